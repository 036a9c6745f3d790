package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Run serves until ctx ends. Then it accepts no more, lets requests and upgraded connections finish for at most
// drain.http, closes the rest and returns when everything it started has ended. It returns early only if serving
// fails.
func (p *Proxy) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.Background())
	var background sync.WaitGroup
	background.Go(func() { p.access.run(work) })
	background.Go(func() { p.sampleEvery(work, sampleInterval) })
	served := make(chan error, 1)
	go func() { served <- p.server.Serve(p.feed) }()
	p.openDoors()

	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
		served <- err
		err = fmt.Errorf("serve HTTP: %w", err)
	}
	p.finish()
	<-served
	stop()
	background.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// finish closes the doors, waits for what is under way, and cuts the rest.
func (p *Proxy) finish() {
	p.Drain()
	p.finished.Store(true)
	p.closeDoors()
	p.conns.closeFresh()
	ctx, cancel := context.WithTimeout(context.Background(), p.state.Load().cfg.Drain.HTTP)
	defer cancel()
	if p.server.Shutdown(ctx) == nil {
		p.awaitRequests(ctx)
	}
	p.abandon()
	p.server.Close()
	p.conns.closeAll()
	p.doorsWG.Wait()
	p.via.close()
	p.awaitRequests(context.Background())
}

// awaitRequests waits until no request is under way, or ctx ends. Shutdown does not know of upgraded connections.
func (p *Proxy) awaitRequests(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for p.requests.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
