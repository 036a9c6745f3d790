package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/fleet"
)

// reader follows a log and checks as it goes that sequence numbers only grow.
type reader struct {
	mu   sync.Mutex
	seqs []uint64
	data []string
	end  chan error
	stop context.CancelFunc
}

func follow(t *testing.T, f *fleet.Fleet, log string, after uint64) *reader {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{end: make(chan error, 1), stop: cancel}
	go func() { r.end <- f.Follow(ctx, log, after, r.see) }()
	t.Cleanup(func() { cancel() })
	return r
}

func (r *reader) see(seq uint64, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seqs = append(r.seqs, seq)
	r.data = append(r.data, string(data))
}

func (r *reader) seen() ([]uint64, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]uint64(nil), r.seqs...), append([]string(nil), r.data...)
}

func (r *reader) last() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seqs) == 0 {
		return 0
	}
	return r.seqs[len(r.seqs)-1]
}

func mustAppend(t *testing.T, f *fleet.Fleet, log, data string) uint64 {
	t.Helper()
	seq, err := f.Append(t.Context(), log, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func TestLogReachesEveryNode(t *testing.T) {
	hub, one, two := threeNodes(t, keyed)
	readers := []*reader{follow(t, hub.Fleet, "purge", 0), follow(t, one.Fleet, "purge", 0), follow(t, two.Fleet, "purge", 0)}
	const many = 60
	for i := range many {
		from := []*running{hub, one, two}[i%3]
		if seq := mustAppend(t, from.Fleet, "purge", fmt.Sprint(i)); seq != uint64(i+1) {
			t.Fatalf("entry %d got sequence %d", i, seq)
		}
	}
	for i, r := range readers {
		eventually(t, "all entries are seen", func() bool { return r.last() == many })
		seqs, data := r.seen()
		for j := range data {
			if data[j] != fmt.Sprint(j) || seqs[j] != uint64(j+1) {
				t.Fatalf("reader %d, entry %d: sequence %d, %q", i, j, seqs[j], data[j])
			}
		}
	}
	late := follow(t, one.Fleet, "purge", 50)
	eventually(t, "a late reader starts where it says", func() bool { return late.last() == many })
	if seqs, _ := late.seen(); seqs[0] != 51 {
		t.Errorf("first = %d, want 51", seqs[0])
	}
	for _, f := range []*running{hub, two} {
		if head, err := f.Head(t.Context(), "purge"); err != nil || head != many {
			t.Errorf("Head = %d, %v; want %d", head, err, many)
		}
	}
	if head, err := two.Head(t.Context(), "never-written"); err != nil || head != 0 {
		t.Errorf("Head of an empty log = %d, %v", head, err)
	}
	if pos, _ := gather(t, two.reg, "nearzone_fleet_log_position"); pos != many {
		t.Errorf("log position = %v, want %d", pos, many)
	}
}

func TestLogWithoutHub(t *testing.T) {
	t.Parallel()
	f := start(t, "leaf", fleet.Options{Config: config.Fleet{Hub: []string{"127.0.0.1:1"}}})
	r := follow(t, f.Fleet, "purge", 7)
	began := time.Now()
	if _, err := f.Append(t.Context(), "purge", []byte("x")); !errors.Is(err, fleet.ErrNoHub) {
		t.Errorf("Append = %v, want ErrNoHub", err)
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("Append gave up after %v", took)
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := f.Head(short, "purge"); !errors.Is(err, fleet.ErrNoHub) {
		t.Errorf("Head = %v, want ErrNoHub", err)
	}
	r.stop()
	if err := <-r.end; !errors.Is(err, context.Canceled) {
		t.Errorf("Follow = %v, want context.Canceled", err)
	}
	r = follow(t, f.Fleet, "purge", 7)
	f.stop()
	if err := <-r.end; !errors.Is(err, fleet.ErrNotRunning) {
		t.Errorf("Follow after Run = %v, want ErrNotRunning", err)
	}
}

// TestEveryAcknowledgedEntryIsSeenOnce restarts the hub and cuts leaves' links at random while all append.
func TestEveryAcknowledgedEntryIsSeenOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hubOptions := fleet.Options{Config: keyed(config.Fleet{Listen: "127.0.0.1:0"}), Hub: true, Data: dir}
	hub := start(t, "hub", hubOptions)
	hubOptions.Config.Listen = hub.Addr().String()

	var leaves []*running
	var links []*link
	var readers []*reader
	for i := range 2 {
		k := newLink(t, hubOptions.Config.Listen)
		leaf := start(t, fmt.Sprintf("leaf-%d", i), fleet.Options{Config: keyed(config.Fleet{Hub: []string{k.l.Addr().String()}}), Data: t.TempDir()})
		links, leaves = append(links, k), append(leaves, leaf)
		readers = append(readers, follow(t, leaf.Fleet, "purge", 0))
	}
	eventually(t, "leaves are there", func() bool { return leaves[0].Status().Connected && leaves[1].Status().Connected })

	acked := map[string]uint64{}
	var mu sync.Mutex
	var writers sync.WaitGroup
	quit := make(chan struct{})
	for w, leaf := range leaves {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-quit:
					return
				default:
				}
				entry := fmt.Sprintf("%d-%d", w, i)
				if seq, err := leaf.Append(context.Background(), "purge", []byte(entry)); err == nil {
					mu.Lock()
					acked[entry] = seq
					mu.Unlock()
				}
			}
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(acked) }
	random := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		before := count()
		switch k := links[random.IntN(2)]; random.IntN(3) {
		case 0:
			k.cut()
			<-time.After(time.Duration(random.IntN(300)) * time.Millisecond)
			k.heal()
		default:
			hub.stop()
			hub = start(t, "hub", hubOptions)
		}
		eventually(t, "entries are acknowledged again", func() bool { return count() > before+20 })
	}
	close(quit)
	writers.Wait()

	head, err := hub.Head(t.Context(), "purge")
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range readers {
		eventually(t, "readers reach the head", func() bool { return r.last() >= head })
		checkSeen(t, i, r, acked)
	}
	t.Logf("%d entries acknowledged, head %d", len(acked), head)
}

func checkSeen(t *testing.T, i int, r *reader, acked map[string]uint64) {
	t.Helper()
	seqs, data := r.seen()
	at := map[string]uint64{}
	for j, d := range data {
		if seqs[j] != uint64(j+1) {
			t.Fatalf("reader %d: entry %d has sequence %d", i, j+1, seqs[j])
		}
		if was, twice := at[d]; twice {
			t.Errorf("reader %d: entry %q at %d and again at %d", i, d, was, seqs[j])
		}
		at[d] = seqs[j]
	}
	for d, seq := range acked {
		if at[d] != seq {
			t.Errorf("reader %d: entry %q acknowledged at %d, seen at %d", i, d, seq, at[d])
		}
	}
}

// TestHubThatLostItsDataIsNoticed: by a follower that was there, and by a node that was away meanwhile.
func TestHubThatLostItsDataIsNoticed(t *testing.T) {
	o := fleet.Options{Config: config.Fleet{Listen: "127.0.0.1:0"}, Hub: true, Data: t.TempDir()}
	hub := start(t, "hub", o)
	o.Config.Listen = hub.Addr().String()
	leafOptions := fleet.Options{Config: config.Fleet{Hub: []string{o.Config.Listen}}, Data: t.TempDir()}
	leaf := start(t, "leaf", leafOptions)
	away := fleet.Options{Config: leafOptions.Config, Data: t.TempDir()}
	other := start(t, "away", away)
	for i := range 5 {
		mustAppend(t, leaf.Fleet, "purge", fmt.Sprint(i))
	}
	here, gone := follow(t, leaf.Fleet, "purge", 0), follow(t, other.Fleet, "purge", 0)
	eventually(t, "both have seen all", func() bool { return here.last() == 5 && gone.last() == 5 })
	other.stop()

	hub.stop()
	o.Data = t.TempDir()
	hub = start(t, "hub", o)
	for i := range 9 { // more than anyone had seen: the numbers alone would look right
		mustAppend(t, hub.Fleet, "purge", fmt.Sprintf("new %d", i))
	}
	if err := <-here.end; !errors.Is(err, fleet.ErrLogRegressed) {
		t.Errorf("a follower that was there: %v, want ErrLogRegressed", err)
	}
	for range 2 { // a crash before the caller has acted: told again
		other = start(t, "away", away)
		if err := <-follow(t, other.Fleet, "purge", 5).end; !errors.Is(err, fleet.ErrLogRegressed) {
			t.Errorf("a node that was away: %v, want ErrLogRegressed", err)
		}
		if c, _ := gather(t, other.reg, "nearzone_fleet_log_regressions_total"); c != 1 {
			t.Errorf("regressions = %v, want 1", c)
		}
		other.stop()
	}
	other = start(t, "away", away)
	<-follow(t, other.Fleet, "purge", 5).end
	again := follow(t, other.Fleet, "purge", 5) // it has acted, and goes on
	eventually(t, "following goes on", func() bool { return again.last() == 9 })
	if err := <-follow(t, other.Fleet, "purge", 100).end; !errors.Is(err, fleet.ErrLogRegressed) {
		t.Errorf("a position past the head: %v, want ErrLogRegressed", err)
	}
}

// TestJoiningAFleetIsANewLog: a lone node that becomes part of a fleet follows another log.
func TestJoiningAFleetIsANewLog(t *testing.T) {
	dir := t.TempDir()
	f := start(t, "node", fleet.Options{Lone: true, Data: dir})
	r := follow(t, f.Fleet, "purge", 0)
	mustAppend(t, f.Fleet, "purge", "mine")
	eventually(t, "it is seen", func() bool { return r.last() == 1 })
	f.stop()
	hub := start(t, "hub", fleet.Options{Config: config.Fleet{Listen: "127.0.0.1:0"}, Hub: true, Data: t.TempDir()})
	mustAppend(t, hub.Fleet, "purge", "theirs")
	f = start(t, "node", fleet.Options{Config: config.Fleet{Hub: []string{hub.Addr().String()}}, Data: dir})
	if err := <-follow(t, f.Fleet, "purge", 1).end; !errors.Is(err, fleet.ErrLogRegressed) {
		t.Errorf("Follow = %v, want ErrLogRegressed", err)
	}
}

// TestHubRestoredFromABackupIsNoticed: the log is the same, but its last entries are others.
func TestHubRestoredFromABackupIsNoticed(t *testing.T) {
	o := fleet.Options{Config: config.Fleet{Listen: "127.0.0.1:0"}, Hub: true, Data: t.TempDir()}
	hub := start(t, "hub", o)
	o.Config.Listen = hub.Addr().String()
	leaf := start(t, "leaf", fleet.Options{Config: config.Fleet{Hub: []string{o.Config.Listen}}, Data: t.TempDir()})
	for i := range 3 {
		mustAppend(t, hub.Fleet, "purge", fmt.Sprint(i))
	}
	hub.stop()
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(o.Data)); err != nil {
		t.Fatal(err)
	}
	hub = start(t, "hub", o)
	for i := range 2 {
		mustAppend(t, hub.Fleet, "purge", fmt.Sprint("lost ", i))
	}
	r := follow(t, leaf.Fleet, "purge", 0)
	eventually(t, "all is seen", func() bool { return r.last() == 5 })

	hub.stop()
	o.Data = backup
	hub = start(t, "hub", o)
	for i := range 4 {
		mustAppend(t, hub.Fleet, "purge", fmt.Sprint("other ", i))
	}
	if err := <-r.end; !errors.Is(err, fleet.ErrLogRegressed) {
		t.Errorf("Follow = %v, want ErrLogRegressed", err)
	}
	if _, data := r.seen(); len(data) != 5 {
		t.Errorf("entries handed over after the loss: %q", data[5:])
	}
}

// TestLinkThatHangsIsNoticed: the network swallows everything, and no connection is reset.
func TestLinkThatHangsIsNoticed(t *testing.T) {
	t.Parallel()
	hub := start(t, "hub", fleet.Options{Config: keyed(config.Fleet{Listen: "127.0.0.1:0"}), Hub: true, Data: t.TempDir()})
	k := newLink(t, hub.Addr().String())
	leaf := start(t, "leaf", fleet.Options{Config: keyed(config.Fleet{Hub: []string{k.l.Addr().String()}})})
	r := follow(t, leaf.Fleet, "purge", 0)
	mustAppend(t, hub.Fleet, "purge", "before")
	eventually(t, "it is seen", func() bool { return r.last() == 1 && leaf.Status().Connected })
	k.hang()
	began := time.Now()
	mustAppend(t, hub.Fleet, "purge", "meanwhile")
	eventually(t, "the leaf notices", func() bool { return !leaf.Status().Connected })
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("noticed after %v", took)
	}
	k.resume()
	eventually(t, "the entry is seen", func() bool { return r.last() == 2 })
	if seqs, _ := r.seen(); len(seqs) != 2 {
		t.Errorf("seen %v, want 1 and 2", seqs)
	}
	if n, _ := gather(t, leaf.reg, "nearzone_fleet_reconnects_total"); n < 1 {
		t.Errorf("reconnects = %v, want 1 or more", n)
	}
}
