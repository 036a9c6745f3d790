package fleet

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// reopenEvery is how often a hub whose disk took no entry looks if it does again.
	reopenEvery = 2 * time.Second
	// spareRoom has to be free before the logs are opened again: opening them writes a little.
	spareRoom = 1 << 20
)

// keeper brings the hub's logs back after its disk was full or failed. NATS remembers an error of a file for as long
// as the file is open, or turns JetStream off altogether, and waits for a restart of the process.
type keeper struct {
	next time.Time // not before
}

// look is called again and again; it does nothing while the logs are well.
func (k *keeper) look(n *node, s *server.Server, now time.Time) {
	text := n.bridge.storeError()
	if text == "" && !s.JetStreamEnabled() {
		text = "the logs are closed"
		n.bridge.setStore(text)
	}
	if text == "" || now.Before(k.next) {
		return
	}
	if k.next.IsZero() {
		n.metrics.logFailing.Set(1)
		n.log.Error("fleet logs take no entries: make room on the hub's disk", "dir", n.options.StoreDir, "reason", text)
	}
	k.next = now.Add(reopenEvery)
	if err := n.reopen(s); err != nil {
		n.log.Debug("fleet logs stay closed", "err", err)
		return
	}
	*k = keeper{}
	n.metrics.logFailing.Set(0)
	n.metrics.logReopens.Inc()
	n.log.Info("fleet logs are open again", "dir", n.options.StoreDir)
	n.streams.kick()
}

// reopen closes the logs and reads them anew, once the disk takes writes.
func (n *node) reopen(s *server.Server) error {
	if err := tryDisk(n.options.StoreDir); err != nil {
		return err
	}
	if err := s.ShutdownJetStream(); err != nil {
		return fmt.Errorf("close the logs: %w", err)
	}
	n.bridge.setStore("") // what goes wrong from here on is news
	o := n.options
	err := s.EnableJetStream(&server.JetStreamConfig{
		StoreDir: o.StoreDir, Domain: o.JetStreamDomain, SyncAlways: o.SyncAlways, Strict: !o.NoJetStreamStrict,
		MaxMemory: o.JetStreamMaxMemory, MaxStore: o.JetStreamMaxStore, CompressOK: true,
	})
	if err != nil {
		n.bridge.setStore(err.Error())
		return fmt.Errorf("open the logs: %w", err)
	}
	return nil
}

// tryDisk writes and syncs a file of spareRoom in dir, and removes it.
func tryDisk(dir string) error {
	f, err := os.CreateTemp(dir, "room.*")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, spareRoom))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}
