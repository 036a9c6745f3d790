package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// The lab's hosts run this test binary again as one of these actors, chosen by NEARZONE_TEST_ACTOR.
var actors = map[string]func() error{"origin": actOrigin, "viewer": actViewer}

// actOrigin serves cacheable pages on :9000 and says at /count how many it has served.
func actOrigin() error {
	var served atomic.Int64
	return http.ListenAndServe(":9000", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz":
		case "/count":
			w.Header().Set("Cache-Control", "no-store")
			fmt.Fprint(w, served.Load())
		default:
			served.Add(1)
			w.Header().Set("Cache-Control", "max-age=600")
			fmt.Fprintf(w, "%s\n", r.URL.Path)
		}
	}))
}

// sighting is one line of a viewer: the address it was answered with, and what came of asking there.
type sighting struct {
	At     time.Time
	Addr   string
	Error  string
	First  time.Duration // GET over a new connection
	Second time.Duration // the same over the connection that is open now
}

// actViewer resolves play.example.com at NEARZONE_TEST_DNS and fetches a page there twice, five times a second.
func actViewer() error {
	out := json.NewEncoder(os.Stdout)
	for n := 0; ; n++ {
		if err := out.Encode(view(n)); err != nil {
			return err
		}
		<-time.After(200 * time.Millisecond)
	}
}

func view(n int) sighting {
	s := sighting{At: time.Now()}
	in, _, err := (&dns.Client{Timeout: 2 * time.Second}).Exchange(new(dns.Msg).SetQuestion(play+".", dns.TypeA), os.Getenv("NEARZONE_TEST_DNS"))
	if err == nil && len(in.Answer) == 0 {
		err = fmt.Errorf("no answer: %s", dns.RcodeToString[in.Rcode])
	}
	if err != nil {
		s.Error = "resolve: " + err.Error()
		return s
	}
	s.Addr = in.Answer[0].(*dns.A).A.String()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	path := fmt.Sprintf("/page/%d", n%3)
	if s.First, err = timedGet(client, s.Addr, path); err == nil {
		s.Second, err = timedGet(client, s.Addr, path)
	}
	if err != nil {
		s.Error = err.Error()
	}
	return s
}

func timedGet(client *http.Client, addr, path string) (time.Duration, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+net.JoinHostPort(addr, "8080")+path, nil)
	if err != nil {
		return 0, err
	}
	req.Host = play
	begin := time.Now()
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return 0, err
	}
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("GET %s at %s: %s", path, addr, res.Status)
	}
	return time.Since(begin), nil
}
