package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// fileLogs are the logs of a lone node.
type fileLogs struct {
	dir     string // empty: in memory
	log     *slog.Logger
	metrics *metrics
	origins *origins

	mu     sync.Mutex // guards what follows
	open   map[string]*fileLog
	closed bool
}

func newFileLogs(dir string, log *slog.Logger, m *metrics) *fileLogs {
	return &fileLogs{dir: dir, log: log, metrics: m, origins: newOrigins(dir), open: map[string]*fileLog{}}
}

func (l *fileLogs) append(_ context.Context, log string, data []byte) (uint64, error) {
	f, err := l.get(log)
	if err != nil {
		return 0, err
	}
	return f.append(data, time.Now())
}

func (l *fileLogs) head(_ context.Context, log string) (uint64, error) {
	f, err := l.get(log)
	if err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next - 1, nil
}

// follow goes on when the disk does not: its error is no reason for the caller to give up, nor for a node to end.
func (l *fileLogs) follow(ctx context.Context, log string, after uint64, fn func(uint64, []byte)) error {
	last, wait := after, retryFirst
	for {
		err := l.read(ctx, log, last, func(seq uint64, data []byte) {
			fn(seq, data)
			last, wait = seq, retryFirst
		})
		switch {
		case errors.Is(err, ErrLogRegressed):
			l.metrics.regressions.WithLabelValues(log).Inc()
			return err
		case ctx.Err() != nil, errors.Is(err, ErrNotRunning):
			return err
		}
		l.log.Error("fleet log cannot be followed, trying again", "log", log, "after", last, "err", err)
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
		wait = min(2*wait, startAgain)
	}
}

// read follows until something breaks.
func (l *fileLogs) read(ctx context.Context, log string, after uint64, fn func(uint64, []byte)) error {
	f, err := l.get(log)
	if err != nil {
		return err
	}
	if err := l.origins.accept(log, f.made, after); err != nil {
		return err
	}
	return f.follow(ctx, after, fn)
}

func (l *fileLogs) get(log string) (*fileLog, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrNotRunning
	}
	if f := l.open[log]; f != nil {
		return f, nil
	}
	f, err := openLog(l.dir, log, l.log, time.Now())
	if err != nil {
		return nil, err
	}
	l.open[log] = f
	return f, nil
}

func (l *fileLogs) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	var all error
	for _, f := range l.open {
		all = errors.Join(all, f.close())
	}
	return all
}

// fileLog is one log, in a file or in memory.
type fileLog struct {
	path string // empty: in memory
	made time.Time
	log  *slog.Logger

	mu      sync.Mutex // guards what follows
	file    *os.File
	records []record
	bytes   int64 // of the records, headers included
	end     int64 // of the file
	next    uint64
	changed chan struct{} // closed and replaced with every append
	broken  error         // the file is in a state that we do not know
}

// openLog reads a log, or makes it.
func openLog(dir, name string, log *slog.Logger, now time.Time) (*fileLog, error) {
	l := &fileLog{made: now, next: 1, changed: make(chan struct{}), log: log}
	if dir == "" {
		return l, nil
	}
	l.path = filepath.Join(dir, "logs", name+".log")
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := l.load(now); err != nil {
		return nil, fmt.Errorf("open log %q: %w", l.path, err)
	}
	return l, nil
}

func (l *fileLog) load(now time.Time) error {
	f, err := os.Open(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return l.rewrite(nil)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	made, records, dropped, err := scan(f)
	if err != nil {
		return err
	}
	if dropped > 0 {
		l.log.Warn("fleet log was damaged, what follows the damage is dropped", "file", l.path, "kept", len(records), "dropped_bytes", dropped)
	} else {
		l.made = made
	}
	if n := len(records); n > 0 {
		l.next = records[n-1].seq + 1
	}
	kept := expire(records, now)
	if dropped > 0 || len(kept) < len(records) {
		return l.rewrite(kept)
	}
	return l.use(kept)
}

// rewrite makes the file anew with these records, and opens it for appending.
func (l *fileLog) rewrite(records []record) error {
	old, err := os.Open(l.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	read := func(r record) ([]byte, error) { return readData(old, r) }
	kept, err := writeLog(l.path, l.made, records, read)
	if old != nil {
		err = errors.Join(err, old.Close())
	}
	if err != nil {
		return err
	}
	return l.use(kept)
}

// use opens the file, which holds these records, for appending.
func (l *fileLog) use(records []record) error {
	file, err := os.OpenFile(l.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if l.file != nil {
		_ = l.file.Close() // of the file that was replaced
	}
	l.file, l.records, l.bytes = file, records, 0
	for _, r := range records {
		l.bytes += int64(recordHeader + r.size)
	}
	l.end = fileHeader + l.bytes
	return nil
}

func readData(f *os.File, r record) ([]byte, error) {
	data := make([]byte, r.size)
	_, err := f.ReadAt(data, r.offset)
	return data, err
}

// expire drops what is past its retention, and the oldest of what is too much; never the last, so that a sequence
// number is not given twice.
func expire(records []record, now time.Time) []record {
	var bytes int64
	for i := len(records) - 1; i >= 0; i-- {
		bytes += int64(recordHeader + records[i].size)
		if i < len(records)-1 && (bytes > maxLogBytes || now.Sub(records[i].stored) > retention) {
			return records[i+1:]
		}
	}
	return records
}

func (l *fileLog) append(data []byte, now time.Time) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return 0, l.broken
	}
	r := record{seq: l.next, stored: now, size: len(data)}
	if l.path == "" {
		r.data = append(make([]byte, 0, len(data)), data...)
	} else {
		r.offset = l.end + recordHeader
		if err := l.write(encodeRecord(r.seq, now, data)); err != nil {
			return 0, err
		}
	}
	l.next++
	l.records = append(l.records, r)
	l.bytes += int64(recordHeader + r.size)
	close(l.changed)
	l.changed = make(chan struct{})
	l.compact(now)
	return r.seq, nil
}

// write is called with mu held. What cannot be written whole is taken back.
func (l *fileLog) write(b []byte) error {
	_, err := l.file.WriteAt(b, l.end)
	if err == nil {
		err = l.file.Sync()
	}
	if err == nil {
		l.end += int64(len(b))
		return nil
	}
	if undo := l.file.Truncate(l.end); undo != nil {
		l.broken = fmt.Errorf("the log is closed after an error: %w", errors.Join(err, undo))
	}
	return err
}

// compact is called with mu held. Twice the bound before it works means that each entry is copied once on average.
func (l *fileLog) compact(now time.Time) {
	if l.bytes <= 2*maxLogBytes {
		return
	}
	kept := expire(l.records, now)
	if l.path == "" {
		l.records, l.bytes = append([]record(nil), kept...), 0
		for _, r := range l.records {
			l.bytes += int64(recordHeader + r.size)
		}
		return
	}
	if err := l.rewrite(kept); err != nil { // the old file is whole, and the next append tries again
		l.log.Warn("fleet log is not compacted", "file", l.path, "err", err)
	}
}

func (l *fileLog) follow(ctx context.Context, after uint64, fn func(uint64, []byte)) error {
	last := after
	for {
		r, changed, err := l.after(last)
		if err != nil {
			return err
		}
		if changed == nil {
			fn(r.seq, r.data)
			last = r.seq
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// after reads the entry that follows `last`, or tells what to wait for.
func (l *fileLog) after(last uint64) (record, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.next
	if len(l.records) > 0 {
		first = l.records[0].seq
	}
	if err := continues(last, first, l.next-1); err != nil {
		return record{}, nil, err
	}
	if last+1 >= l.next {
		return record{}, l.changed, nil
	}
	r := l.records[max(last+1, first)-first]
	if r.data != nil || l.path == "" {
		return r, nil, nil
	}
	if l.file == nil {
		return record{}, nil, ErrNotRunning
	}
	data, err := readData(l.file, r)
	if err != nil {
		return record{}, nil, fmt.Errorf("read entry %d of %q: %w", r.seq, l.path, err)
	}
	r.data = data
	return r, nil, nil
}

func (l *fileLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = ErrNotRunning
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
