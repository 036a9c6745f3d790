package fleet_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/fleet"
)

// TestHubWithoutDisk: a hub whose directory cannot be used (a disk that came back read-only) is no reason for its node
// to end. It says what is wrong, and begins once the directory is there.
func TestHubWithoutDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(dir, []byte("in the way"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := fleet.Listen(options("hub", fleet.Options{Config: config.Fleet{Listen: "127.0.0.1:0"}, Hub: true, Data: dir}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	eventually(t, "the status says what is wrong", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("Run ended: %v", err)
		default:
		}
		st := f.Status()
		return !st.Connected && st.Error != "" && st.Error != "no hub node has answered yet"
	})
	short, done := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer done()
	if _, err := f.Append(short, "purge", []byte("x")); !errors.Is(err, fleet.ErrNotRunning) {
		t.Errorf("Append = %v, want ErrNotRunning", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the hub begins", func() bool { return f.Status().Connected && f.Status().Error == "" })
	mustAppend(t, f, "purge", "x")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v", err)
	}
}
