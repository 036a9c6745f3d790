package latency

import (
	"math"
	"net/netip"
	"time"

	"github.com/nearzone/nearzone/routing"
)

const (
	// maxN caps what a mean remembers. At 20 a new sample moves it by a twentieth, so a changed route is believed
	// after a dozen; at 60 noise would move answers a little less and a changed route would take three times as long.
	maxN = 20.0
	// halfLife is how fast samples lose weight with time. A bad path lasts a day in six cases of ten: after one, a
	// full mean counts as one sample and a bit, so the prior and new samples outweigh it.
	halfLife = 6 * time.Hour
	// minN is when a mean is dropped: 20 samples after 46 hours, one after 20.
	minN = 0.1
	// spike is how far above what was expected a sample may be, in ms; more is taken for this much. One slow
	// handshake then moves a mean as little as a low percentile would move.
	spike = 30.0
	// spikes in a row are not a spike but the path: from the third on the limit doubles each time.
	spikes = 2
	// maxStreak keeps the doubled limit a sane number: 30 ms << 10 is longer than MaxRTT.
	maxStreak = spikes + 10
)

// cell is the decayed mean of one prefix and zone. It knows no lock and no clock.
type cell struct {
	mean   float64 // ms, of winsorised samples
	n      float64 // weight of the mean at the time at
	at     int64   // unix ns of the last sample
	client netip.Addr
	seen   int64  // when client was: samples we cause ourselves do not count
	beacon int64  // unix ns of the last beacon that counted
	streak uint8  // samples in a row that were spikes
	dirty  bool   // not told to the fleet yet
	sent   uint64 // the last digest it was in
}

// newCell begins at the prior, with no weight.
func newCell(prior float64) *cell { return &cell{mean: prior} }

// weight is n, decayed.
func (c *cell) weight(now time.Time) float64 { return decay(c.n, c.at, now.UnixNano()) }

// decay is n after the time from at to now; never more than n, should a clock have gone back.
func decay(n float64, at, now int64) float64 {
	if now <= at {
		return n
	}
	return n * math.Exp2(-float64(now-at)/float64(halfLife))
}

// add takes one sample in ms.
func (c *cell) add(ms float64, now time.Time) {
	limit := c.mean + spike*float64(uint32(1)<<max(0, int(c.streak)-spikes+1))
	if ms > c.mean+spike {
		c.streak = min(c.streak+1, maxStreak)
	} else {
		c.streak = 0
	}
	ms = min(ms, limit)
	c.n = min(c.weight(now)+1, maxN)
	c.mean += (ms - c.mean) / c.n
	c.at = now.UnixNano()
	c.dirty = true
}

// source notes where a sample came from. Probes and made-up samples are no sign of a client.
func (c *cell) source(client netip.Addr, src routing.Source, now time.Time) {
	if src == routing.Probe || src == routing.Simulated {
		return
	}
	c.client, c.seen = client, now.UnixNano()
}

// tooSoon says whether a beacon follows another too closely to count.
func (c *cell) tooSoon(src routing.Source, now time.Time) bool {
	if src != routing.Beacon {
		return false
	}
	since := now.UnixNano() - c.beacon
	soon := since >= 0 && since < int64(beaconGap) // or the clock was set back
	if !soon {
		c.beacon = now.UnixNano()
	}
	return soon
}
