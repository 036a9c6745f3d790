// Package cache answers HTTP requests from stored responses by the rules of RFC 9111, and fetches what is not
// stored once for all who wait for it.
//
// A request goes lookup -> hit, stale, revalidate, miss or bypass -> fetch -> deliver. Each way it can go has
// a [Reason], the same word in the outcome, the metrics and Cache-Status (RFC 9211). Beyond the RFC's core the
// cache follows CDN-Cache-Control (RFC 9213), stale-while-revalidate and stale-if-error (RFC 5861), serves
// single ranges of what is stored or on its way, and purges by URL, prefix, host and tag.
//
// It speaks to no network itself: a [Route] brings the way to the origin. Where objects live is package store.
//
//	c := cache.New(cache.Options{Store: store.New(1<<30, reg), Node: "nearzone", Reg: reg})
//	go c.Run(ctx)
//	out := c.Serve(w, r, cache.Route{Site: "play", Policy: route.Cache, Scheme: "https", Fetch: pool, Pass: proxy})
package cache

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/cache/store"
)

// Options make a Cache.
type Options struct {
	Store *store.Store
	Node  string                // name in Cache-Status; default nearzone
	Log   *slog.Logger          // default slog.Default()
	Reg   prometheus.Registerer // nil: not registered
	Now   func() time.Time      // default time.Now
}

// Cache is one node's HTTP cache, shared by all its sites. All methods may be called concurrently.
type Cache struct {
	store   *store.Store
	name    string
	log     *slog.Logger
	now     func() time.Time
	fills   *fills
	purges  purges
	sweep   chan struct{}
	metrics *metrics
}

// Route is what the cache needs to know of the route a request took.
type Route struct {
	Site   string // label of metrics
	Policy config.Cache
	Scheme string // http or https, as the client used it
	// Fetch brings responses from the origin. It gets the client's request with its header as it is, less what
	// the cache takes out or puts in for validation, and does the hygiene of headers itself. Its context does
	// not end with the client. It must not decompress bodies.
	Fetch http.RoundTripper
	// Pass forwards unbuffered what the cache does not handle: other methods, upgrades, routes without cache.
	Pass http.Handler
	// Aborted, if set, is told the outcome when Serve is about to panic with http.ErrAbortHandler.
	Aborted func(Outcome)
}

// Outcome is what became of a request.
type Outcome struct {
	Status    string // hit, stale, revalidated, miss or bypass
	Reason    Reason
	Code      int           // sent to the client; 0: nothing was
	Bytes     int64         // of the body sent
	Upstream  time.Duration // from the request to the origin to its response's head; 0: not asked
	Stored    bool          // the response is being stored
	Collapsed bool          // another request's fetch was waited for
}

// Stats is a moment of the cache.
type Stats struct {
	store.Stats
	Hits        int64  `json:"hits"`
	Stale       int64  `json:"stale"`
	Revalidated int64  `json:"revalidated"`
	Misses      int64  `json:"misses"`
	Bypassed    int64  `json:"bypassed"`
	Fills       int    `json:"fills"` // under way
	Purge       uint64 `json:"purge_position"`
}

// New makes a cache. It starts nothing.
func New(o Options) *Cache {
	c := &Cache{
		store: o.Store, name: statusName(o.Node), log: o.Log, now: o.Now,
		fills: newFills(), sweep: make(chan struct{}, 1),
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	if c.now == nil {
		c.now = time.Now
	}
	c.metrics = newMetrics(o.Reg, c)
	return c
}

// Run reclaims the room of what was purged until ctx ends, then cancels every fetch under way, those behind
// clients' backs included, and returns when they have ended. Serve works without it, and no longer fetches
// after it.
func (c *Cache) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			c.fills.close()
			return nil
		case <-c.sweep:
			c.reclaim(ctx)
		}
	}
}

// reclaim takes out what was purged. It also marks the rest as looked at, so that forgetting old purges later
// costs it nothing.
func (c *Cache) reclaim(ctx context.Context) {
	removed := 0
	c.store.Walk(func(o *store.Object) bool {
		if c.purges.gone(o) {
			c.store.Remove(o)
			removed++
		}
		return ctx.Err() == nil
	})
	c.log.Debug("purged objects removed", "objects", removed)
}

// Purge applies p on this node: at once, for stored responses and for those on their way. It returns an error
// only for a purge that Validate refuses.
func (c *Cache) Purge(p Purge) error {
	k, err := p.key()
	if err != nil {
		return err
	}
	c.purges.add(k, p.Soft, c.now())
	c.metrics.purged(k.kind, p.Soft)
	select {
	case c.sweep <- struct{}{}:
	default: // one is due already
	}
	return nil
}

// RevalidateAll marks all that is stored stale, as a soft purge of everything would: for when purges may have been
// missed. What the origin confirms lives on.
func (c *Cache) RevalidateAll() { c.purges.add(everything, true, c.now()) }

// Stats tells the numbers of this moment.
func (c *Cache) Stats() Stats {
	return Stats{
		Stats: c.store.Stats(), Hits: c.metrics.hit.Load(), Stale: c.metrics.stale.Load(),
		Revalidated: c.metrics.revalidated.Load(), Misses: c.metrics.miss.Load(), Bypassed: c.metrics.bypass.Load(),
		Fills: c.fills.count(), Purge: c.purges.position.Load(),
	}
}
