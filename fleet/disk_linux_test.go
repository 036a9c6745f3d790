package fleet_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/fleet"
)

// fillDisk makes every write to the files open under dir fail as on a full disk, until they are opened again. It
// returns how many there were.
func fillDisk(t *testing.T, dir string) (files int) {
	t.Helper()
	full, err := unix.Open("/dev/full", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(full)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		path, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil || !strings.HasPrefix(path, dir) || filepath.Ext(path) != ".blk" {
			continue
		}
		var n int
		if _, err := fmt.Sscan(fd.Name(), &n); err != nil {
			t.Fatal(err)
		}
		if err := unix.Dup3(full, n, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		files++
	}
	return files
}

// TestHubDiskFullRecovers: an entry that could not be stored is refused, the hub says so, and once the disk takes
// writes again so does the log, with all that was acknowledged before, and without a restart.
func TestHubDiskFullRecovers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hub := start(t, "hub", fleet.Options{Config: config.Fleet{Listen: "127.0.0.1:0"}, Hub: true, Data: dir})
	leaf := start(t, "leaf", fleet.Options{Config: config.Fleet{Hub: []string{hub.Addr().String()}}})
	eventually(t, "the leaf reaches the hub", func() bool { return leaf.Status().Connected })
	r := follow(t, leaf.Fleet, "purge", 0)
	var told atomic.Int64
	hub.Subscribe("health", func([]byte) { told.Add(1) })
	mustAppend(t, leaf.Fleet, "purge", "before")
	if fillDisk(t, dir) == 0 {
		t.Fatal("no file of the log is open")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if seq, err := leaf.Append(ctx, "purge", []byte("lost")); err == nil {
		t.Fatalf("an entry that cannot be stored was acknowledged as %d", seq)
	}
	eventually(t, "the log takes entries again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := leaf.Append(ctx, "purge", []byte("after"))
		return err == nil
	})
	eventually(t, "the follower has both", func() bool {
		_, data := r.seen()
		return len(data) >= 2 && data[0] == "before" && data[len(data)-1] == "after"
	})
	before := told.Load()
	eventually(t, "topics go on too", func() bool {
		_ = leaf.Publish("health", []byte("x"))
		return told.Load() > before
	})
	eventually(t, "the hub has nothing to complain of", func() bool {
		reopens, _ := gather(t, hub.reg, "nearzone_fleet_log_reopens_total")
		failing, _ := gather(t, hub.reg, "nearzone_fleet_log_failing")
		return hub.Status().Error == "" && reopens >= 1 && failing == 0
	})
}

// TestDiskFullOfOneHubNode: the other two go on, and the one joins them again once its disk takes writes.
func TestDiskFullOfOneHubNode(t *testing.T) {
	t.Parallel()
	all, hubs := hubOfThree(t)
	leaf := start(t, "leaf", fleet.Options{Config: keyed(config.Fleet{Hub: all[0].Config.Hub})})
	appends := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := leaf.Append(ctx, "purge", []byte("x"))
		return err == nil
	}
	eventually(t, "the leaf can append", appends)
	eventually(t, "its file is open", func() bool { appends(); return fillDisk(t, all[0].Data) > 0 })
	eventually(t, "the others go on, and it comes back", func() bool {
		reopens, _ := gather(t, hubs[0].reg, "nearzone_fleet_log_reopens_total")
		return appends() && reopens > 0 && hubs[0].Status().Error == ""
	})
}
