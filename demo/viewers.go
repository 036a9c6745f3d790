package demo

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

// viewer is one simulated viewer and its round trips to each zone, in the order of zones.
type viewer struct {
	place string
	addr  netip.Addr
	rtt   []time.Duration
}

// viewers come from the networks reserved for documentation (RFC 5737, RFC 3849).
var viewers = []viewer{
	{"Los Angeles", netip.MustParseAddr("198.51.100.7"), ms(7, 19, 31)},
	{"Phoenix", netip.MustParseAddr("203.0.113.7"), ms(18, 6, 38)},
	{"Portland", netip.MustParseAddr("192.0.2.7"), ms(33, 42, 9)},
	{"San Diego", netip.MustParseAddr("2001:db8:5a::7"), ms(10, 14, 37)},
}

func ms(values ...float64) (list []time.Duration) {
	for _, v := range values {
		list = append(list, time.Duration(v*float64(time.Millisecond)))
	}
	return list
}

// observe feeds one simulated sample of every viewer into every zone's node: the matrix above plus jitter.
func (w *world) observe() {
	for _, v := range viewers {
		for i, zone := range zones {
			jitter := time.Duration(rand.ExpFloat64() * float64(time.Millisecond))
			w.nodes[zone].Observe(v.addr, v.rtt[i]+jitter)
		}
	}
}

// live is the demo's clock: samples, then one viewer's answer and request a second, printed.
func (w *world) live(ctx context.Context) error {
	for range 8 { // enough for the estimates to outweigh the prior
		w.observe()
	}
	w.settle(ctx)
	w.usage()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			w.observe()
			w.view(ctx, client, viewers[n%len(viewers)], n)
		}
	}
}

// settle waits until the first estimates have reached the DNS, for 10 s at most, so that what usage tells to try works.
func (w *world) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for !w.settled() {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// settled reports whether every viewer is answered with its nearest zone.
func (w *world) settled() bool {
	for _, v := range viewers {
		nearest := slices.Index(v.rtt, slices.Min(v.rtt))
		if zone, ok := w.nodes["us-west-2"].Answer(Name, v.addr); !ok || zone != zones[nearest] {
			return false
		}
	}
	return true
}

// view asks for one viewer's zone as its resolver would, and fetches a clip there.
func (w *world) view(ctx context.Context, client *http.Client, v viewer, n int) {
	zone, ok := w.nodes["us-west-2"].Answer(Name, v.addr)
	if !ok {
		fmt.Fprintf(w.out, "%s  %-11s no answer\n", time.Now().Format("15:04:05"), v.place)
		return
	}
	begin := time.Now()
	status, err := w.get(ctx, client, zone, fmt.Sprintf("/clip/%d", n/16))
	if err != nil {
		status = err.Error()
	}
	fmt.Fprintf(w.out, "%s  simulated viewer in %-11s (%s) -> %-16s  GET /clip/%d %.1f ms  %s\n",
		begin.Format("15:04:05"), v.place, v.addr, zone, n/16, float64(time.Since(begin).Microseconds())/1000, status)
}

func (w *world) get(ctx context.Context, client *http.Client, zone, path string) (string, error) {
	for i, z := range zones {
		if z != zone {
			continue
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.at.nodes[i]+path, nil)
		if err != nil {
			return "", err
		}
		req.Host = Name
		res, err := client.Do(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return "", err
		}
		return res.Header.Get("Cache-Status"), nil
	}
	return "", fmt.Errorf("zone %q is not of the demo", zone)
}

func (w *world) usage() {
	fmt.Fprintf(w.out, `Nearzone's small world runs: an example origin "in the Region" (%[4]v away), three nodes, their fleet and the DNS.
The viewers below are simulated: a latency matrix fed into the estimates. All else is real. In another terminal, try:

  curl -i -H 'Host: %[5]s' http://%[1]s/        # twice: a miss, then a hit (Cache-Status)
  dig @127.0.0.1 -p 8053 %[5]s +subnet=198.51.100.0/24 +short
  dig @127.0.0.1 -p 8053 %[5]s +subnet=203.0.113.0/24 +short
  go run ./cmd/nearzone explain --client 198.51.100.7
  go run ./cmd/nearzone drain us-west-2-lax-1a      # its clients move; explain again
  go run ./cmd/nearzone drain --undo us-west-2-lax-1a
  go run ./cmd/nearzone purge --tag demo
  go run ./cmd/nearzone status
  curl http://127.0.0.1:9180/metrics

Nodes: us-west-2-lax-1a %[1]s, us-west-2-phx-2a %[2]s, us-west-2 (the Region's edge) %[3]s. Ctrl-C stops everything.

`, w.at.nodes[0], w.at.nodes[1], w.at.nodes[2], originDelay, Name)
}
