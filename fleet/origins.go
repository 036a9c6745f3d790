package fleet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// origins remembers which making of each log this node followed last, by the time it was made. A hub that lost its
// disk makes the log anew, and may by now have more entries than this node had seen: only this tells the two apart.
type origins struct {
	dir string // empty: remembered while the process lives

	mu   sync.Mutex // guards what follows
	seen map[string]int64
	told map[string]int64 // a new making whose finder was told, and has not followed since
}

func newOrigins(dir string) *origins {
	return &origins{dir: dir, seen: map[string]int64{}, told: map[string]int64{}}
}

// accept decides if following may go on after the sequence number `after` in a log made at `made`. A change is told
// once, and it is recorded only when the caller has come back, so that a crash in between is told again.
func (o *origins) accept(log string, made time.Time, after uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := made.UnixNano()
	was, known := o.load(log)
	switch {
	case known && was == id:
		return nil
	case known && after != 0 && o.told[log] != id:
		o.told[log] = id
		return fmt.Errorf("%w: the log was made anew at %s", ErrLogRegressed, made.UTC().Format(time.RFC3339))
	}
	delete(o.told, log)
	return o.save(log, id)
}

func (o *origins) path(log string) string { return filepath.Join(o.dir, "logs", log+".origin") }

func (o *origins) load(log string) (int64, bool) {
	if id, ok := o.seen[log]; ok {
		return id, true
	}
	if o.dir == "" {
		return 0, false
	}
	text, err := os.ReadFile(o.path(log))
	if errors.Is(err, os.ErrNotExist) {
		return 0, false
	}
	// An unreadable file is no reason to trust the log: zero is no making's time.
	id, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	o.seen[log] = id
	return id, true
}

func (o *origins) save(log string, id int64) error {
	o.seen[log] = id
	if o.dir == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(o.path(log)), 0o700); err != nil {
		return fmt.Errorf("remember the origin of log %q: %w", log, err)
	}
	if err := writeFile(o.path(log), []byte(strconv.FormatInt(id, 10)+"\n")); err != nil {
		return fmt.Errorf("remember the origin of log %q: %w", log, err)
	}
	return nil
}

// continues checks that a log holding the entries first to last goes on after `after`. From zero anything goes.
func continues(after, first, last uint64) error {
	switch {
	case after == 0:
		return nil
	case after > last:
		return fmt.Errorf("%w: it ends at %d, this node has seen %d", ErrLogRegressed, last, after)
	case first > after+1:
		return fmt.Errorf("%w: it begins at %d, this node has seen %d; older entries are past their retention", ErrLogRegressed, first, after)
	}
	return nil
}

// writeFile replaces a file as a whole and syncs it: after a crash there is the old one or the new one.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes names in a directory last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
