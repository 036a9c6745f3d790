package main

import (
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/nearzone/nearzone/config"
)

// accessLog is where access log lines go. A file is opened again at every reload, so that logrotate's move followed
// by SIGHUP works.
type accessLog struct {
	mu   sync.Mutex // guards to and file
	to   io.Writer
	file *os.File // nil unless a file is ours to close
}

func openAccessLog(where string) (*accessLog, error) {
	a := &accessLog{}
	to, file, err := openLog(where)
	if err != nil {
		return nil, err
	}
	a.to, a.file = to, file
	return a, nil
}

func openLog(where string) (io.Writer, *os.File, error) {
	switch where {
	case "", "off":
		return io.Discard, nil, nil
	case "stdout":
		return os.Stdout, nil, nil
	case "stderr":
		return os.Stderr, nil, nil
	}
	file, err := os.OpenFile(where, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, nil, fmt.Errorf("log.access: %w", err)
	}
	return file, file, nil
}

// Write takes whole lines.
func (a *accessLog) Write(lines []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.to.Write(lines)
}

// Reload opens the destination again.
func (a *accessLog) Reload(cfg *config.Config) (func(), error) {
	to, file, err := openLog(cfg.Log.Access)
	if err != nil {
		return nil, err
	}
	return func() { a.swap(to, file) }, nil
}

func (a *accessLog) swap(to io.Writer, file *os.File) {
	a.mu.Lock()
	old := a.file
	a.to, a.file = to, file
	a.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

// close ends the log; what is written later goes nowhere.
func (a *accessLog) close() { a.swap(io.Discard, nil) }
