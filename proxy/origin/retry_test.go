package origin_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/origin"
)

// patient makes an origin whose servers are never taken out, and that asks them in turn, so that tests see each
// retry.
func patient(servers ...string) config.Origin {
	o := app(servers...)
	o.Balance.Policy = config.RoundRobin
	o.Check.Fall = 1 << 20
	return o
}

// Ways in which a server is bad.
func broken(t *testing.T) string  { return raw(t, func(c net.Conn) { readHead(c) }) }
func silent(t *testing.T) string  { return raw(t, func(c net.Conn) { io.Copy(io.Discard, c) }) }
func refused(t *testing.T) string { return "http://" + closedPort(t) }
func busy(t *testing.T) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusServiceUnavailable)
	})
}
func gateway(t *testing.T) string {
	return serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
}

func TestFailover(t *testing.T) {
	stream := func() io.Reader { return readerFunc(strings.NewReader("body").Read) } // cannot be read again
	replayable := func() io.Reader { return strings.NewReader("body") }
	none := func() io.Reader { return nil }
	for _, tc := range []struct {
		name   string
		bad    func(*testing.T) string
		method string
		body   func() io.Reader
		want   string // "good", or what the bad server's outcome is when there is no retry
	}{
		{"GET refused", refused, "GET", none, "good"},
		{"GET broken", broken, "GET", none, "good"},
		{"GET silent", silent, "GET", none, "good"},
		{"GET busy", busy, "GET", none, "good"},
		{"GET bad gateway", gateway, "GET", none, "502"},
		{"OPTIONS broken", broken, "OPTIONS", none, "good"},
		{"DELETE broken", broken, "DELETE", none, "good"},
		{"PUT replayable, broken", broken, "PUT", replayable, "good"},
		{"PUT replayable, busy", busy, "PUT", replayable, "good"},
		{"PUT stream, refused", refused, "PUT", stream, "good"},
		{"PUT stream, broken", broken, "PUT", stream, origin.ErrBroken.Error()},
		{"PUT stream, busy", busy, "PUT", stream, "503"},
		{"POST stream, refused: nothing was sent", refused, "POST", stream, "good"},
		{"POST broken", broken, "POST", none, origin.ErrBroken.Error()},
		{"POST replayable, silent", silent, "POST", replayable, origin.ErrTimeout.Error()},
		{"POST busy", busy, "POST", none, "503"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			good := serve(t, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				fmt.Fprint(w, "good", string(b))
			})
			o := patient(tc.bad(t), good)
			o.Timeouts.FirstByte = 200 * time.Millisecond
			p := pool(t, o)
			var got []string // in turn: the second request meets the bad server first
			for range 2 {
				status, answer, err := do(t, p, request(t, tc.method, tc.body()))
				answer = strings.TrimSuffix(answer, "body")
				switch {
				case err != nil:
					answer = kindOf(err)
				case status != http.StatusOK:
					answer = fmt.Sprint(status)
				}
				got = append(got, answer)
			}
			if want := []string{"good", tc.want}; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func kindOf(err error) string {
	for _, kind := range []error{origin.ErrNoServer, origin.ErrConnect, origin.ErrTimeout, origin.ErrBroken, origin.ErrBody} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return err.Error()
}

func TestRetriesStayWithinTheBudget(t *testing.T) {
	var asked atomic.Int32
	good := serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	reg := prometheus.NewRegistry()
	p := start(t, origin.Deps{Reg: reg}, patient(busy(t), good)).Pool("app")
	const n = 600
	failed := 0
	for range n {
		status, _, err := get(t, p)
		if err != nil {
			t.Fatal(err)
		}
		if status == http.StatusServiceUnavailable {
			failed++
		}
	}
	retries := int(asked.Load()) - n/2
	if retries < 30 || retries > n/10 {
		t.Errorf("%d retries of %d requests, want 30 (3 a second for 10 s) to %d (10 %%)", retries, n, n/10)
	}
	if failed != n/2-retries {
		t.Errorf("%d requests failed, want %d", failed, n/2-retries)
	}
	want := fmt.Sprintf(`
# HELP nearzone_origin_retries_denied_total Retries not made because the budget was spent.
# TYPE nearzone_origin_retries_denied_total counter
nearzone_origin_retries_denied_total{origin="app"} %d
`, failed)
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "nearzone_origin_retries_denied_total"); err != nil {
		t.Error(err)
	}
}

func TestRetriesMax(t *testing.T) {
	for maximum := range 3 {
		var asked atomic.Int32
		failing := func() string {
			return raw(t, func(c net.Conn) {
				readHead(c)
				asked.Add(1)
			})
		}
		o := patient(failing(), failing(), failing(), failing())
		o.Retries.Max = maximum
		_, _, err := get(t, pool(t, o))
		if got := int(asked.Load()); !errors.Is(err, origin.ErrBroken) || got != maximum+1 {
			t.Errorf("max %d: %d attempts, %v", maximum, got, err)
		}
	}
}

func TestBusyAnswerStandsWhenTheOtherServerDoesWorse(t *testing.T) {
	p := pool(t, patient(broken(t), busy(t)))
	for range 2 { // whichever is first
		if status, _, err := get(t, p); err != nil && !errors.Is(err, origin.ErrBroken) || err == nil && status != http.StatusServiceUnavailable {
			t.Errorf("status %d, %v", status, err)
		}
	}
	eventually(t, "nothing is in flight", func() bool {
		return p.Status()[0].InFlight == 0 && p.Status()[1].InFlight == 0
	})
}

func TestFailingServerIsTakenOut(t *testing.T) {
	for name, bad := range map[string]func(*testing.T) string{"refused": refused, "busy": busy, "gateway": gateway, "broken": broken} {
		t.Run(name, func(t *testing.T) {
			o := app(bad(t), serveName(t, "good"))
			o.Balance.Policy = config.RoundRobin
			reg := prometheus.NewRegistry()
			p := start(t, origin.Deps{Reg: reg}, o).Pool("app")
			for range 6 {
				_, _, _ = get(t, p)
			}
			st := p.Status()
			if st[0].Up || !st[1].Up {
				t.Fatalf("status = %+v, want the first server down", st)
			}
			for range 6 {
				if status, body, err := get(t, p); err != nil || body != "good" {
					t.Errorf("with the bad server out: %d %q, %v", status, body, err)
				}
			}
			want := `
# HELP nearzone_origin_ejections_total Times a server was taken out, by its checks or by failing requests.
# TYPE nearzone_origin_ejections_total counter
nearzone_origin_ejections_total{origin="app"} 1
`
			if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "nearzone_origin_ejections_total"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAnswersAloneNeverCloseAnOrigin: whoever finds a path that answers 503 must not be able to turn the whole
// origin off for everybody, and the DNS away from this zone.
func TestAnswersAloneNeverCloseAnOrigin(t *testing.T) {
	p := pool(t, app(busy(t), busy(t), busy(t)))
	for range 50 {
		if status, _, err := get(t, p); err != nil || status != http.StatusServiceUnavailable {
			t.Fatalf("status %d, %v", status, err)
		}
	}
	up := 0
	for _, s := range p.Status() {
		if s.Up {
			up++
		}
	}
	if up != 2 || !p.Up() {
		t.Errorf("%d of 3 servers up, want 2", up)
	}
}

func TestAllServersDownFailsFastAndTriesOnceASecond(t *testing.T) {
	var accepted atomic.Int32
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	p := pool(t, app("http://"+addr))
	for range 3 {
		if _, _, err := get(t, p); !errors.Is(err, origin.ErrConnect) {
			t.Fatalf("before it is known to be down: %v, want %v", err, origin.ErrConnect)
		}
	}
	if p.Up() {
		t.Fatal("up after three refused connections")
	}
	began, connects := time.Now(), 0
	for range 1000 {
		_, _, err := get(t, p)
		switch {
		case errors.Is(err, origin.ErrConnect):
			connects++
		case !errors.Is(err, origin.ErrNoServer):
			t.Fatalf("err = %v, want %v", err, origin.ErrNoServer)
		}
	}
	if took := time.Since(began); connects > int(took/time.Second)+1 {
		t.Errorf("%d connection attempts in %v, want at most one a second", connects, took)
	}

	// When it is back it is used at once, before its checks have noticed.
	l, err = net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { accepted.Add(1) })}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	eventually(t, "it answers", func() bool { _, _, err := get(t, p); return err == nil })
	for range 20 {
		if _, _, err := get(t, p); err != nil {
			t.Errorf("after it came back: %v", err)
		}
	}
}

func TestActiveChecksTakeOutAndBringBack(t *testing.T) {
	var sick atomic.Bool
	var checks atomic.Int32
	first := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			checks.Add(1)
			if r.Host != "internal.example.net" {
				t.Errorf("check has Host %q", r.Host)
			}
			if sick.Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}
	})
	o := app(first, serveName(t, "second"))
	o.Host = "internal.example.net"
	o.Check = config.Check{HTTP: "/healthz", Every: 10 * time.Millisecond, Timeout: time.Second, Rise: 2, Fall: 3}
	set := start(t, origin.Deps{}, o)
	p := set.Pool("app")
	eventually(t, "it is checked", func() bool { return checks.Load() > 3 && set.Onward()["app"] > 0 })
	if st := p.Status(); !st[0].Up || st[0].RTT <= 0 {
		t.Errorf("status = %+v, want up with an RTT", st[0])
	}
	sick.Store(true)
	eventually(t, "it is down", func() bool { return !p.Status()[0].Up })
	if st := p.Status()[0]; !strings.Contains(st.LastError, "500") {
		t.Errorf("last error = %q, want the status", st.LastError)
	}
	for range 10 {
		if _, body, err := get(t, p); err != nil || body != "second" {
			t.Errorf("answer = %q, %v, want the second server's", body, err)
		}
	}
	sick.Store(false)
	eventually(t, "it is up again", func() bool { return p.Status()[0].Up })
}

func TestReachableByTCPCheck(t *testing.T) {
	o := app("http://" + closedPort(t))
	o.Check = config.Check{TCP: true, Every: 5 * time.Millisecond, Timeout: time.Second, Rise: 2, Fall: 3}
	set := start(t, origin.Deps{}, o)
	eventually(t, "the origin is unreachable", func() bool { return !set.Reachable()["app"] })
	if _, ok := set.Onward()["app"]; ok {
		t.Error("an unreachable origin has a round trip")
	}
	if set.Pool("nobody") != nil {
		t.Error("an unknown origin has a pool")
	}
}
