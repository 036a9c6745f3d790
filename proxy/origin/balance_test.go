package origin_test

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"testing"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/origin"
)

func names(t *testing.T, n int) []string {
	t.Helper()
	var urls []string
	for i := range n {
		urls = append(urls, serveName(t, fmt.Sprint("s", i)))
	}
	return urls
}

// spread counts who answers n requests made by next.
func spread(t *testing.T, p *origin.Pool, n int, next func(i int) *http.Request) map[string]int {
	t.Helper()
	counts := make(map[string]int)
	for i := range n {
		_, body, err := do(t, p, next(i))
		if err != nil {
			t.Fatal(err)
		}
		counts[body]++
	}
	return counts
}

func TestRoundRobinIsEven(t *testing.T) {
	o := app(names(t, 3)...)
	o.Balance.Policy = config.RoundRobin
	got := spread(t, pool(t, o), 30, func(int) *http.Request { return request(t, "GET", nil) })
	if len(got) != 3 || got["s0"] != 10 || got["s1"] != 10 {
		t.Errorf("spread = %v, want 10 each", got)
	}
}

func TestLeastRequestsAvoidsTheBusyServer(t *testing.T) {
	release := make(chan struct{})
	slow := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
			<-release
		}
		io.WriteString(w, "slow")
	})
	p := pool(t, app(slow, serveName(t, "free")))
	var held []*http.Response
	for p.Status()[0].InFlight == 0 { // until one is held by the slow server
		resp, err := p.RoundTrip(request(t, "POST", nil))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, resp)
	}
	for _, resp := range held {
		defer resp.Body.Close()
	}
	for _, resp := range held[:len(held)-1] {
		resp.Body.Close() // those of the free server
	}
	defer close(release)
	got := spread(t, p, 50, func(int) *http.Request { return request(t, "GET", nil) })
	if got["slow"] != 0 {
		t.Errorf("spread = %v, want all at the free server", got)
	}
}

func TestHashKeepsKeysTogether(t *testing.T) {
	keys := map[string]struct {
		balance config.Balance
		with    func(r *http.Request, key int) *http.Request
	}{
		"cookie": {config.Balance{Policy: config.PolicyHash, By: "cookie", Key: "session"}, func(r *http.Request, key int) *http.Request {
			r.AddCookie(&http.Cookie{Name: "session", Value: fmt.Sprint("k", key)})
			return r
		}},
		"header": {config.Balance{Policy: config.PolicyHash, By: "header", Key: "X-Room"}, func(r *http.Request, key int) *http.Request {
			r.Header.Set("X-Room", fmt.Sprint("k", key))
			return r
		}},
		"client": {config.Balance{Policy: config.PolicyHash, By: "client"}, func(r *http.Request, key int) *http.Request {
			return r.WithContext(origin.WithClient(r.Context(), netip.AddrFrom4([4]byte{203, 0, 113, byte(key)})))
		}},
	}
	for name, tc := range keys {
		t.Run(name, func(t *testing.T) {
			o := app(names(t, 4)...)
			o.Balance = tc.balance
			s := start(t, origin.Deps{}, o)
			home := make(map[int]string)
			used := make(map[string]bool)
			for key := range 60 {
				_, who, err := do(t, s.Pool("app"), tc.with(request(t, "GET", nil), key))
				if err != nil {
					t.Fatal(err)
				}
				home[key] = who
				used[who] = true
			}
			if len(used) != 4 {
				t.Errorf("only %v are used", used)
			}
			fewer := o
			fewer.Servers = o.Servers[:3] // s3 goes: only its keys may move
			reload(t, s, fewer)
			for key, was := range home {
				_, who, err := do(t, s.Pool("app"), tc.with(request(t, "GET", nil), key))
				if err != nil || (who != was && was != "s3") || who == "s3" {
					t.Errorf("key %d moved from %s to %s, %v", key, was, who, err)
				}
			}
		})
	}
}

func TestHashWithoutAKeyIsSpread(t *testing.T) {
	o := app(names(t, 3)...)
	o.Balance = config.Balance{Policy: config.PolicyHash, By: "cookie", Key: "session"}
	got := spread(t, pool(t, o), 60, func(int) *http.Request { return request(t, "GET", nil) })
	if len(got) != 3 {
		t.Errorf("spread = %v, want all three", got)
	}
}

func TestOwnZoneFirst(t *testing.T) {
	s := names(t, 3)
	o := app("lax="+s[0], "lax="+s[1], "us-west-2="+s[2])
	p := start(t, origin.Deps{Zone: "lax"}, o).Pool("app")
	next := func(int) *http.Request { return request(t, "GET", nil) }
	if got := spread(t, p, 40, next); got["s2"] != 0 || len(got) != 2 {
		t.Errorf("spread = %v, want the own zone's two", got)
	}
	for _, url := range s[:2] {
		for range 3 {
			p.Report(addrPort(t, url), false)
		}
	}
	if got := spread(t, p, 10, next); got["s2"] != 10 {
		t.Errorf("spread with the own zone down = %v, want the other zone", got)
	}
	other := start(t, origin.Deps{Zone: "phx"}, o).Pool("app")
	if got := spread(t, other, 60, next); len(got) != 3 {
		t.Errorf("spread from a zone without servers = %v, want all", got)
	}
}
