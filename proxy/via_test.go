package proxy_test

import (
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy"
)

// viaPair is an edge in a Local Zone whose origin is asked via the Region's edge, and that one. key signs what they
// say to each other.
func viaPair(t *testing.T, originURL, key string) (zone, region *edge) {
	t.Helper()
	secret := config.Secret{}
	if key != "" {
		secret = config.NewSecret(key)
	}
	far := app(t, originURL)
	far.Fleet.Key = secret
	far.Origins[0].Via = "us-west-2"
	region = start(t, far, func(d *proxy.Deps) { d.Zone, d.Node = "us-west-2", "region-1" })

	near := app(t, originURL)
	near.Fleet.Key = secret
	near.Origins[0].Via = "us-west-2"
	at := netip.MustParseAddrPort(region.addr)
	near.Zones = []config.Zone{{Name: "us-west-2", Nodes: []config.ZoneNode{{Addrs: []netip.Addr{at.Addr()}, Port: at.Port()}}}}
	tlsOn := withTLS(t, near)
	zone = start(t, near, tlsOn, func(d *proxy.Deps) { d.Zone, d.Node = "us-west-2-lax-1a", "zone-1" })
	return zone, region
}

func TestVia(t *testing.T) {
	var asked atomic.Int32
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Cache-Control", "max-age=60")
		echo(w, r)
	})
	zone, region := viaPair(t, o.URL, "a key of the fleet")
	s := zone.ask(zone.client(), zone.request("GET", "/a?b=c", ""))
	if want := `nearzone; node="zone-1", nearzone; node="region-1"`; s.Header.Get("Cdn-Loop") != want || s.Host != "play.example.com" || s.Path != "/a?b=c" {
		t.Errorf("the origin saw %+v, want CDN-Loop %s", s, want)
	}
	if s.Header.Get("Nearzone-Hop") != "" {
		t.Error("the signature went on to the origin")
	}
	// Another zone's miss is the Region's hit.
	region.do(region.client(), region.request("GET", "/a?b=c", ""))
	if asked.Load() != 1 {
		t.Errorf("the origin was asked %d times, want once", asked.Load())
	}
	if got := region.metric("nearzone_proxy_requests_total{cache=miss,code=200,site=play}"); got != 1 {
		t.Errorf("the Region had %v misses", got)
	}
	// What is no miss goes straight to the origin.
	if s := zone.ask(zone.client(), zone.request("POST", "/a", "x")); strings.Contains(s.Header.Get("Cdn-Loop"), "region-1") {
		t.Errorf("a POST went through the Region: %+v", s)
	}
	if got := zone.metric("nearzone_proxy_via_requests_total{result=answered}"); got != 1 {
		t.Errorf("via{answered} = %v", got)
	}
}

// TestViaKeepsTheClient: what the zone says of the client is believed with the fleet's key, and not without.
func TestViaKeepsTheClient(t *testing.T) {
	o := serve(t, echo)
	for key, want := range map[string]struct{ scheme, client string }{
		"a key of the fleet": {"https", "127.0.0.1, 127.0.0.1"},
		"":                   {"http", "127.0.0.1"},
	} {
		zone, _ := viaPair(t, o.URL, key)
		r, _ := http.NewRequest("GET", "https://"+zone.secure+"/cached", nil)
		r.Host = "play.example.com"
		s := zone.ask(zone.secureClient(false), r)
		if s.Header.Get("X-Forwarded-Proto") != want.scheme || s.Header.Get("X-Forwarded-For") != want.client {
			t.Errorf("key %q: the origin saw %s from %s, want %+v", key, s.Header.Get("X-Forwarded-Proto"), s.Header.Get("X-Forwarded-For"), want)
		}
	}
}

// TestHopCannotBeForged: a stranger's signature, or one of another request, is worth nothing.
func TestHopCannotBeForged(t *testing.T) {
	o := serve(t, echo)
	_, region := viaPair(t, o.URL, "a key of the fleet")
	for _, hop := range []string{"", ";", "1;00", "99999999999999999999;00", "1700000000;" + strings.Repeat("ab", 32)} {
		s := region.ask(region.client(), region.request("GET", "/api/x", "", "Nearzone-Hop", hop, "X-Forwarded-For", "203.0.113.9"))
		if s.Header.Get("X-Forwarded-For") != "127.0.0.1" || s.Header.Get("Nearzone-Hop") != "" {
			t.Errorf("hop %q: %v", hop, s.Header)
		}
	}
}

func TestViaFallsBack(t *testing.T) {
	o := serve(t, echo)
	t.Run("the Region is gone", func(t *testing.T) {
		zone, region := viaPair(t, o.URL, "")
		region.stop()
		for range 3 {
			if s := zone.ask(zone.client(), zone.request("GET", "/cached", "")); s.Path != "/cached" {
				t.Errorf("%+v", s)
			}
		}
		if got := zone.metric("nearzone_proxy_via_requests_total{result=failed}"); got != 1 {
			t.Errorf("the Region was tried %v times in a row, want once", got)
		}
	})
	t.Run("the Region does not know the host", func(t *testing.T) {
		zone, region := viaPair(t, o.URL, "")
		next := *region.cfg
		next.Sites = append([]config.Site{}, region.cfg.Sites...)
		next.Sites[0].Hosts = []string{"other.example"}
		if err := region.reload(&next); err != nil {
			t.Fatal(err)
		}
		if s := zone.ask(zone.client(), zone.request("GET", "/cached", "")); strings.Contains(s.Header.Get("Cdn-Loop"), "region-1") {
			t.Errorf("%+v", s)
		}
		if got := zone.metric("nearzone_proxy_via_requests_total{result=declined}"); got != 1 {
			t.Errorf("via{declined} = %v", got)
		}
	})
}

// TestViaGoesSilent: a node that stops in the middle of a body does not hold the client for ever.
func TestViaGoesSilent(t *testing.T) {
	release := make(chan struct{})
	silent := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		<-release
	})
	defer close(release)
	cfg := app(t, silent.URL)
	cfg.Origins[0].Via = "us-west-2"
	cfg.Origins[0].Timeouts.Idle = 100 * time.Millisecond
	at := server(t, silent.URL)
	cfg.Zones = []config.Zone{{Name: "us-west-2", Nodes: []config.ZoneNode{{Addrs: []netip.Addr{netip.MustParseAddr(at.Host)}, Port: at.Port}}}}
	e := start(t, cfg)
	res, err := e.client().Do(e.request("GET", "/cached", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadAll(res.Body); err == nil || os.IsTimeout(err) {
		t.Errorf("half a body: %v, want it cut", err)
	}
}
