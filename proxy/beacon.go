package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	beaconBytes   = 4 << 10
	beaconSamples = 64 // in one report
	beaconLeast   = 1.0
	beaconMost    = 2000.0 // ms; what is longer tells of a sleeping phone and not of distance

	// A network may report 60 times in 10 s: a /24 behind one address translator has many players. The table has
	// room for 16,384 networks in that time; further ones are refused.
	beaconWindow  = 10 * time.Second
	beaconReports = 60
	beaconRoom    = 1 << 14
)

// report is what a client has measured: one zone, or several.
type report struct {
	Zone    string        `json:"zone"`
	RTT     float64       `json:"rtt_ms"`
	Samples []beaconEntry `json:"samples"`
}

type beaconEntry struct {
	Zone string  `json:"zone"`
	RTT  float64 `json:"rtt_ms"`
}

// beacon takes round-trip times that a browser or a game has measured itself. It believes them of the network they
// come from alone, so the peer must be the client: not a proxy, not a load balancer.
func (x *exchange) beacon(r *http.Request) {
	h := x.w.Header()
	h["Access-Control-Allow-Origin"] = []string{"*"}
	h["Cache-Control"] = []string{"no-store"}
	if r.Method == http.MethodOptions {
		h["Access-Control-Allow-Methods"] = []string{"POST"}
		h["Access-Control-Allow-Headers"] = []string{"Content-Type"}
		h["Access-Control-Max-Age"] = []string{"86400"}
		x.w.WriteHeader(http.StatusNoContent)
		return
	}
	switch {
	case !x.allow(r, http.MethodPost):
	case !x.conn.direct || x.trusted:
		x.fail(http.StatusForbidden, "reports count from clients that are connected directly")
	case !x.p.beacons.allow(prefixOf(x.conn.client), x.began):
		x.refuse(refusedBeacon)
	default:
		x.takeReport(r)
	}
}

func (x *exchange) takeReport(r *http.Request) {
	x.watchUpload(r, beaconBytes)
	entries, err := readReport(r)
	for i := 0; i < len(entries) && err == nil; i++ {
		err = x.p.deps.Beacon(x.conn.client, entries[i].Zone, time.Duration(entries[i].RTT*float64(time.Millisecond)))
	}
	if err != nil {
		x.p.metrics.beacons["refused"].Inc()
		x.fail(http.StatusBadRequest, err.Error())
		return
	}
	x.p.metrics.beacons["taken"].Add(float64(len(entries)))
	x.w.WriteHeader(http.StatusNoContent)
}

// readReport reads and checks a whole report.
func readReport(r *http.Request) ([]beaconEntry, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	return parseReport(body)
}

func parseReport(body []byte) ([]beaconEntry, error) {
	var in report
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, errors.New(`report is not JSON of the form {"zone": "us-west-2-lax-1a", "rtt_ms": 12.5}`)
	}
	entries := in.Samples
	if in.Zone != "" || in.RTT != 0 {
		entries = append(entries, beaconEntry{in.Zone, in.RTT})
	}
	if len(entries) == 0 || len(entries) > beaconSamples {
		return nil, fmt.Errorf("report has %d samples, want 1 to %d", len(entries), beaconSamples)
	}
	for _, e := range entries {
		switch {
		case e.Zone == "" || len(e.Zone) > 64:
			return nil, fmt.Errorf("zone %.64q is no zone's name", e.Zone)
		case !(e.RTT >= beaconLeast && e.RTT <= beaconMost):
			return nil, fmt.Errorf("rtt_ms %g is not within %g and %g", e.RTT, beaconLeast, beaconMost)
		}
	}
	return entries, nil
}

// beaconLimit counts reports by network in windows of time.
type beaconLimit struct {
	mu    sync.Mutex // guards what follows
	began time.Time
	count map[netip.Prefix]int
}

func newBeaconLimit() *beaconLimit { return &beaconLimit{count: map[netip.Prefix]int{}} }

func (b *beaconLimit) allow(p netip.Prefix, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.began) >= beaconWindow {
		b.began = now
		clear(b.count)
	}
	n, known := b.count[p]
	if n >= beaconReports || !known && len(b.count) >= beaconRoom {
		return false
	}
	b.count[p] = n + 1
	return true
}
