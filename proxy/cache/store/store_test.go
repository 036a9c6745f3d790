package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/proxy/cache/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// put stores size bytes under key and lets go of them.
func put(t *testing.T, s *store.Store, key, variant string, size int) error {
	t.Helper()
	b := s.NewBody(int64(size))
	defer b.Release()
	if err := write(t, b, bytes.Repeat([]byte{'x'}, size)); err != nil {
		return err
	}
	b.Seal(nil)
	h := store.Head{Status: 200, Header: http.Header{}}
	if variant != "" {
		h.Vary = []store.Selector{{Name: "V", Value: variant}}
	}
	o := s.NewObject(key, h, b)
	defer o.Release()
	return s.Put(o)
}

func write(t *testing.T, b *store.Body, p []byte) error {
	t.Helper()
	for len(p) > 0 {
		space, err := b.Space(t.Context())
		if err != nil {
			return err
		}
		n := copy(space, p)
		b.Grown(n)
		p = p[n:]
	}
	return nil
}

// drain reads what is there until the end, an error, or nothing more.
func drain(r *store.Reader) ([]byte, error) {
	var all []byte
	for {
		p, more, err := r.Next()
		if err != nil || more != nil {
			return all, err
		}
		all = append(all, p...)
	}
}

func TestBudget(t *testing.T) {
	const budget = 1 << 20
	s := store.New(budget, nil)
	for i := range 1000 {
		if err := put(t, s, fmt.Sprint(i), "", 10_000); err != nil {
			t.Fatal(i, err)
		}
		if b := s.Stats().Bytes; b > budget {
			t.Fatalf("%d bytes of %d after %d objects", b, budget, i+1)
		}
	}
	st := s.Stats()
	if st.Bytes < budget*9/10 || st.Objects < 80 || st.Evictions != 1000-st.Objects {
		t.Errorf("stats %+v", st)
	}
	if err := put(t, s, "giant", "", budget+1); !errors.Is(err, store.ErrNoRoom) {
		t.Errorf("giant: %v", err)
	}
	s.Walk(func(o *store.Object) bool { s.Remove(o); return true })
	if st := s.Stats(); st.Bytes != 0 || st.Objects != 0 {
		t.Errorf("emptied: %+v", st)
	}
}

func TestWhatIsAskedForAgainStays(t *testing.T) {
	s := store.New(1<<20, nil)
	if err := put(t, s, "hot", "", 10_000); err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		for _, o := range s.Variants([]byte("hot")) {
			o.Used()
		}
		if err := put(t, s, fmt.Sprint(i), "", 10_000); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.Variants([]byte("hot"))) != 1 {
		t.Error("the hot object was scanned out")
	}
}

func TestVariants(t *testing.T) {
	s := store.New(1<<20, nil)
	for range 2 {
		for i := range 3 {
			put(t, s, "k", fmt.Sprint(i), 10)
		}
	}
	if v := s.Variants([]byte("k")); len(v) != 3 || v[0].Vary[0].Value != "2" {
		t.Errorf("%d variants, want 3, the newest first", len(v))
	}
	for i := range 100 {
		put(t, s, "k", fmt.Sprint(i), 10)
	}
	if n := len(s.Variants([]byte("k"))); n != 32 {
		t.Errorf("%d variants, want 32", n)
	}
	if n := s.RemoveKey("k"); n != 32 || s.Stats().Bytes != 0 {
		t.Errorf("removed %d, %+v left", n, s.Stats())
	}
}

func TestEvictedObjectsStayChargedWhileRead(t *testing.T) {
	s := store.New(100_000, nil)
	put(t, s, "k", "", 20_000)
	o := s.Variants([]byte("k"))[0]
	if !o.Acquire() {
		t.Fatal("gone")
	}
	s.Remove(o)
	if b := s.Stats().Bytes; b < 20_000 {
		t.Errorf("%d bytes charged while read", b)
	}
	r, err := o.Body.Reader(5, 7)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := drain(r); err != io.EOF || string(p) != "xxxxxxx" {
		t.Errorf("read %q, %v", p, err)
	}
	r.Close()
	o.Release()
	if b := s.Stats().Bytes; b != 0 {
		t.Errorf("%d bytes charged afterwards", b)
	}
	if o.Acquire() {
		t.Error("acquired after the last release")
	}
}

func TestBodyGrowsUnderItsReaders(t *testing.T) {
	s := store.New(8<<20, nil)
	want := bytes.Repeat([]byte("0123456789"), 70_000)
	for _, length := range []int64{-1, int64(len(want))} {
		b := s.NewBody(length)
		var wg sync.WaitGroup
		for i := range 10 {
			r, err := b.Reader(int64(i*1000), -1)
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				defer r.Close()
				var got []byte
				for {
					p, more, err := r.Next()
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Errorf("reader %d: %v", i, err)
						return
					}
					if more != nil {
						<-more
					}
					got = append(got, p...)
				}
				if !bytes.Equal(got, want[i*1000:]) {
					t.Errorf("reader %d: %d bytes differ from the %d written", i, len(got), len(want)-i*1000)
				}
			})
		}
		for p := want; len(p) > 0; {
			n := min(7777, len(p))
			if err := write(t, b, p[:n]); err != nil {
				t.Fatal(err)
			}
			p = p[n:]
		}
		b.Seal(nil)
		wg.Wait()
		if b.Length() != int64(len(want)) {
			t.Errorf("length %d", b.Length())
		}
		if got := s.Stats().Bytes; got != int64(len(want)) {
			t.Errorf("%d bytes charged for %d", got, len(want))
		}
		b.Release()
	}
}

// A reader may begin at any moment of its writer, the last one too.
func TestReadersBeginAsTheBodyEnds(t *testing.T) {
	s := store.New(1<<20, nil)
	for range 2000 {
		b := s.NewBody(4)
		if err := write(t, b, []byte("body")); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				r, err := b.Reader(0, -1)
				if err != nil {
					t.Error(err)
					return
				}
				defer r.Close()
				if p, _, err := r.Next(); string(p) != "body" || err != nil {
					t.Errorf("read %q, error %v", p, err)
				}
			})
		}
		b.Seal(nil)
		wg.Wait()
		b.Release()
	}
}

func TestFailedBody(t *testing.T) {
	s := store.New(1<<20, nil)
	b := s.NewBody(-1)
	r, _ := b.Reader(0, -1)
	write(t, b, []byte("some"))
	b.Fail(io.ErrUnexpectedEOF)
	if p, err := drain(r); string(p) != "some" || err != io.ErrUnexpectedEOF {
		t.Errorf("%q, %v", p, err)
	}
	r.Close()
	b.Release()
	if n := s.Stats().Bytes; n != 0 {
		t.Errorf("%d bytes left", n)
	}
}

// An unstored body waits for its slowest reader, and cuts off one that takes nothing while another would go on.
func TestUnstoredBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.New(8<<20, nil)
		b := s.NewBody(-1)
		quick, _ := b.Reader(0, -1)
		stuck, _ := b.Reader(0, -1)
		b.Unstore()
		if _, err := b.Reader(0, -1); !errors.Is(err, store.ErrGone) {
			t.Errorf("late reader: %v", err)
		}
		const size = 10 << 20
		wrote := make(chan error)
		go func() {
			err := write(t, b, make([]byte, size))
			b.Seal(nil)
			wrote <- err
		}()
		got := 0
		for {
			p, more, err := quick.Next()
			if err != nil {
				if err != io.EOF {
					t.Errorf("quick reader: %v", err)
				}
				break
			}
			if got += len(p); more != nil {
				<-more
			}
		}
		if err := <-wrote; err != nil || got != size {
			t.Errorf("%d bytes, %v", got, err)
		}
		if _, err := drain(stuck); !errors.Is(err, store.ErrTooSlow) {
			t.Errorf("stuck reader: %v", err)
		}
		if n := s.Stats().Bytes; n != 0 {
			t.Errorf("%d bytes charged", n)
		}
		quick.Close()
		stuck.Close()
		b.Release()
	})
}

func TestUnstoredBodyEndsWithItsReaders(t *testing.T) {
	s := store.New(8<<20, nil)
	b := s.NewBody(-1)
	r, _ := b.Reader(0, -1)
	b.Unstore()
	r.Close()
	if err := write(t, b, make([]byte, 1)); !errors.Is(err, store.ErrNoReaders) {
		t.Errorf("wrote for nobody: %v", err)
	}
	b.Release()
}

func TestConcurrentUse(t *testing.T) {
	const budget = 1 << 20
	s := store.New(budget, nil)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 300 {
				key := fmt.Sprint((g*31 + i*7) % 97)
				for _, o := range s.Variants([]byte(key)) {
					if o.Acquire() {
						o.Used()
						r, _ := o.Body.Reader(0, -1)
						if p, err := drain(r); err != io.EOF || int64(len(p)) != o.Body.Length() {
							t.Errorf("%d bytes, %v", len(p), err)
						}
						r.Close()
						o.Release()
					}
				}
				if err := put(t, s, key, "", 1000*(i%30)); err != nil {
					t.Error(err)
				}
				if b := s.Stats().Bytes; b > budget {
					t.Errorf("%d bytes", b)
				}
			}
		})
	}
	wg.Wait()
	s.Walk(func(o *store.Object) bool { s.Remove(o); return true })
	if st := s.Stats(); st.Bytes != 0 || st.Objects != 0 {
		t.Errorf("emptied: %+v", st)
	}
}

func TestMetricsAreClean(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	store.New(1, reg)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

func BenchmarkVariants(b *testing.B) {
	s := store.New(64<<20, nil)
	keys := make([][]byte, 10_000)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "http://play.example.com/segment/%d.ts", i)
		body := s.NewBody(0)
		body.Seal(nil)
		o := s.NewObject(string(keys[i]), store.Head{Header: http.Header{}}, body)
		if err := s.Put(o); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			o := s.Variants(keys[i%len(keys)])[0]
			if o.Acquire() {
				o.Used()
				o.Release()
			}
		}
	})
}
