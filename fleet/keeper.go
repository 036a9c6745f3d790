package fleet

import (
	"errors"
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

// keeper knows when the hub's logs can come back after its disk was full or failed. NATS remembers an error of a file
// for as long as the file is open, or turns JetStream off altogether, and waits for a restart of the process. The
// embedded server is restarted instead: JetStream alone cannot be, without leaving half of its former self behind.
type keeper struct {
	next time.Time // not before
}

// recovered is called again and again. It is true when the logs took no entry and the disk now takes writes.
func (k *keeper) recovered(n *node, s *server.Server, now time.Time) bool {
	text := n.bridge.storeError()
	if text == "" && !s.JetStreamEnabled() {
		text = "the logs are closed"
		n.bridge.setStore(text)
	}
	if text == "" || now.Before(k.next) {
		return false
	}
	first := k.next.IsZero()
	k.next = now.Add(reopenEvery)
	if first {
		n.metrics.logFailing.Set(1)
		n.log.Error("fleet logs take no entries: make room on the hub's disk", "dir", n.options.StoreDir, "reason", text)
		return false
	}
	if err := tryDisk(n.options.StoreDir); err != nil {
		n.log.Debug("fleet logs stay closed", "err", err)
		return false
	}
	n.log.Info("fleet logs are opened again", "dir", n.options.StoreDir)
	n.metrics.logReopens.Inc()
	return true
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
