package fleet_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/nearzone/nearzone/fleet"
)

func TestLoneLog(t *testing.T) {
	for name, dir := range map[string]string{"file": t.TempDir(), "memory": ""} {
		t.Run(name, func(t *testing.T) {
			f := start(t, "alone", fleet.Options{Lone: true, Data: dir})
			r := follow(t, f.Fleet, "purge", 0)
			for i := range 20 {
				if seq := mustAppend(t, f.Fleet, "purge", fmt.Sprint(i)); seq != uint64(i+1) {
					t.Fatalf("entry %d got sequence %d", i, seq)
				}
			}
			eventually(t, "all is seen", func() bool { return r.last() == 20 })
			f.stop()
			if err := <-r.end; !errors.Is(err, fleet.ErrNotRunning) {
				t.Errorf("Follow after Run = %v, want ErrNotRunning", err)
			}
			f = start(t, "alone", fleet.Options{Lone: true, Data: dir})
			want := uint64(20)
			if dir == "" {
				want = 0
			}
			if head, err := f.Head(t.Context(), "purge"); err != nil || head != want {
				t.Errorf("Head after a restart = %d, %v; want %d", head, err, want)
			}
			r = follow(t, f.Fleet, "purge", 18)
			if dir == "" {
				if err := <-r.end; !errors.Is(err, fleet.ErrLogRegressed) {
					t.Errorf("Follow = %v, want ErrLogRegressed", err)
				}
				return
			}
			mustAppend(t, f.Fleet, "purge", "more")
			eventually(t, "following goes on", func() bool { return r.last() == 21 })
			if seqs, data := r.seen(); seqs[0] != 19 || data[0] != "18" {
				t.Errorf("first = %d %q, want 19 \"18\"", seqs[0], data[0])
			}
		})
	}
}

func TestLoneLogThatIsDamaged(t *testing.T) {
	damages := map[string]func(b []byte) []byte{
		"torn tail":     func(b []byte) []byte { return b[:len(b)-3] },
		"flipped bit":   func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"garbage after": func(b []byte) []byte { return append(b, "garbage"...) },
		"huge length": func(b []byte) []byte {
			return append(b, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		},
		"damaged header": func(b []byte) []byte { b[0] ^= 1; return b },
		"empty":          func([]byte) []byte { return nil },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			o := fleet.Options{Lone: true, Data: t.TempDir()}
			f := start(t, "alone", o)
			r := follow(t, f.Fleet, "purge", 0)
			for i := range 10 {
				mustAppend(t, f.Fleet, "purge", fmt.Sprintf("entry %d", i))
			}
			eventually(t, "all is seen", func() bool { return r.last() == 10 })
			f.stop()
			path := filepath.Join(o.Data, "logs", "purge.log")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}

			f = start(t, "alone", o)
			if err := <-follow(t, f.Fleet, "purge", 10).end; !errors.Is(err, fleet.ErrLogRegressed) {
				t.Errorf("Follow = %v, want ErrLogRegressed", err)
			}
			head, err := f.Head(t.Context(), "purge")
			if err != nil {
				t.Fatal(err)
			}
			r = follow(t, f.Fleet, "purge", 0)
			seq := mustAppend(t, f.Fleet, "purge", "after")
			eventually(t, "what is whole and what is new is seen", func() bool { return r.last() == seq })
			seqs, data := r.seen()
			if uint64(len(seqs)) != head+1 || data[len(data)-1] != "after" {
				t.Errorf("seen %d entries after damage, head was %d", len(seqs), head)
			}
		})
	}
}

// FuzzLoneLog opens whatever a disk may hold: what can be read is followed, and the log goes on.
func FuzzLoneLog(f *testing.F) {
	f.Add([]byte("nzlog\x00\x00\x01"))
	f.Add([]byte{})
	f.Add(wholeLog(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "logs", "purge.log"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		n := start(t, "alone", fleet.Options{Lone: true, Data: dir})
		r := follow(t, n.Fleet, "purge", 0)
		seq := mustAppend(t, n.Fleet, "purge", "after")
		eventually(t, "what is appended is seen", func() bool { return r.last() == seq })
		n.stop()
		<-r.end
	})
}

// wholeLog is the file of a log with three entries.
func wholeLog(f *testing.F) []byte {
	f.Helper()
	dir := f.TempDir()
	n, err := tryStart("alone", fleet.Options{Lone: true, Data: dir})
	if err != nil {
		f.Fatal(err)
	}
	for i := range 3 {
		if _, err := n.Append(f.Context(), "purge", fmt.Append(nil, i)); err != nil {
			f.Fatal(err)
		}
	}
	n.stop()
	b, err := os.ReadFile(filepath.Join(dir, "logs", "purge.log"))
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// TestLoneWithoutDisk: a disk that cannot be used is no reason to stop following, which would end the node.
func TestLoneWithoutDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(dir, []byte("in the way"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := start(t, "alone", fleet.Options{Lone: true, Data: dir})
	r := follow(t, n.Fleet, "purge", 0)
	if _, err := n.Append(t.Context(), "purge", []byte("x")); err == nil {
		t.Error("an entry was acknowledged without a disk")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	seq := mustAppend(t, n.Fleet, "purge", "y")
	eventually(t, "the follower has it", func() bool { return r.last() == seq })
}
