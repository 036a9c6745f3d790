package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/nearzone/nearzone/config"
)

type runCmd struct {
	File  string `arg:"" help:"Configuration file." type:"path"`
	Zone  string `help:"This node's zone; instead of node.zone and EC2 metadata." env:"NEARZONE_ZONE"`
	Watch bool   `help:"Reload when the file changes. SIGHUP reloads always."`
}

// Run serves until a signal, then leaves well: readiness false, DNS stops naming the node, connections end by
// themselves within the bounds of `drain`.
func (c runCmd) Run(ctx context.Context, s streams) error {
	log, level := newLogger(s.err)
	me, err := whoAmI(ctx, c.File, c.Zone, log)
	if err != nil {
		return err
	}
	load := func() (*config.Config, error) { return me.load(c.File) }
	cfg, err := load()
	if err != nil {
		return err
	}
	setLevel(level, cfg.Log.Level)
	boundMemory()
	n, err := newNode(cfg, nodeOptions{Log: log, Load: load})
	if err != nil {
		return err
	}
	log.Info("nearzone runs", "version", versionString(), "file", c.File, "hash", cfg.Hash, "zone", n.zone, "node", n.name, "id", n.id,
		"http", cfg.Listen.HTTP, "https", cfg.Listen.HTTPS, "dns", cfg.DNS.Listen, "admin", cfg.Admin.Listen)
	return serve(ctx, n, c.reloads)
}

// serve runs the node; when ctx ends it leaves the fleet before it stops. reloads feeds the times to read the
// configuration again.
func serve(ctx context.Context, n *node, reloads func(context.Context, func())) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- n.Run(running) }()
	reloading := make(chan struct{})
	go func() {
		defer close(reloading)
		reloads(running, func() {
			if err := n.Reload(); err != nil {
				logLines(n.log, "configuration not reloaded, the old one stays", err)
			}
		})
	}()
	defer func() { <-reloading }()
	defer stop()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	n.log.Info("leaving", "why", context.Cause(ctx))
	n.leave(running)
	n.log.Info("closing the doors", "drain.http", n.config.Load().Drain.HTTP)
	stop()
	err := <-ended
	n.log.Info("stopped")
	return err
}

// logLines logs an error that says several things, one line each.
func logLines(log *slog.Logger, message string, err error) {
	for line := range strings.Lines(err.Error()) {
		log.Error(message, "err", strings.TrimSpace(line))
	}
}

// leave is the first half of stopping: nothing is closed, but new clients are sent elsewhere and those who are here
// are asked to finish. Each wait is bounded by a key of `drain`, and there is none for whom nobody would come.
func (n *node) leave(ctx context.Context) {
	cfg := n.config.Load()
	n.leaving.Store(true)
	n.metrics.leaving.Set(1)
	n.health.changed()
	if len(cfg.DNS.Names) > 0 && !cfg.Lone() {
		n.log.Info("waiting for clients to ask DNS again", "drain.answers", cfg.Drain.Answers)
		wait(ctx, cfg.Drain.Answers, func() bool { return false })
	}
	n.proxy.Drain()
	n.streams.Drain()
	if left := n.streams.Sessions(); left > 0 {
		n.log.Info("waiting for stream sessions to end", "sessions", left, "drain.streams", cfg.Drain.Streams)
	}
	wait(ctx, cfg.Drain.Streams, func() bool { return n.streams.Sessions() == 0 })
}

// wait returns when done says so, when most has passed, or when ctx ends.
func wait(ctx context.Context, most time.Duration, done func() bool) {
	end := time.NewTimer(most)
	defer end.Stop()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			return
		case <-look.C:
		}
	}
}

// reloads calls reload at SIGHUP and, with --watch, when the file has changed.
func (c runCmd) reloads(ctx context.Context, reload func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	look := time.NewTicker(time.Second)
	defer look.Stop()
	seen := fileStamp(c.File)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			seen = fileStamp(c.File)
			reload()
		case <-look.C:
			if now := fileStamp(c.File); c.Watch && now != seen {
				seen = now
				reload()
			}
		}
	}
}

type stamp struct {
	size  int64
	mtime time.Time
}

// fileStamp changes when the file does; a file that is away (an editor renames) has the zero stamp.
func fileStamp(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info.Size(), info.ModTime()}
}

// explainBind adds the remedy to an error of a socket that could not be bound.
func explainBind(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: another program holds it (ss -lntup shows which); stop it or change the listen key", err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: ports below 1024 need root, or setcap cap_net_bind_service+ep on the binary; or choose a port above", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: no interface of this machine has that address; on EC2 listen on \":port\", the public address is not the machine's own", err)
	}
	return err
}

// newLogger writes one line of text a fact; the level follows log.level.
func newLogger(w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})), level
}

func setLevel(v *slog.LevelVar, name string) {
	var l slog.Level
	if l.UnmarshalText([]byte(name)) == nil {
		v.Set(l)
	}
}
