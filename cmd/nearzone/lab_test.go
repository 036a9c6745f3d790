package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nearzone/nearzone/lab"
)

// The lab's world. Viewers "portland" are where the geography says Los Angeles, on purpose.
var (
	labZones   = map[string]string{lax: "203.0.113.10", phx: "203.0.113.20", home: "203.0.113.30"}
	labViewers = map[string]string{"la": "198.51.100.7", "phoenix": "192.0.2.7", "portland": "100.64.9.7"}
	labRTT     = map[[2]string]time.Duration{
		{"la", lax}: 8 * time.Millisecond, {"la", phx}: 22 * time.Millisecond, {"la", home}: 36 * time.Millisecond,
		{"phoenix", phx}: 9 * time.Millisecond, {"phoenix", lax}: 24 * time.Millisecond, {"phoenix", home}: 42 * time.Millisecond,
		{"portland", home}: 10 * time.Millisecond, {"portland", lax}: 48 * time.Millisecond, {"portland", phx}: 54 * time.Millisecond,
		{lax, home}: 26 * time.Millisecond, {phx, home}: 34 * time.Millisecond, {lax, phx}: 12 * time.Millisecond,
		{home, "origin"}: 2 * time.Millisecond, {lax, "origin"}: 28 * time.Millisecond, {phx, "origin"}: 36 * time.Millisecond,
	}
)

const labYAML = `
node: {data: "${DATA}"}
home: us-west-2
zones:
  us-west-2:        {nodes: [203.0.113.30], set: {dns: {listen: ":53"}}}
  us-west-2-lax-1a: {nodes: [203.0.113.10]}
  us-west-2-phx-2a: {nodes: [203.0.113.20]}
listen: {http: ":8080"}
origins:
  app: {servers: ["http://203.0.113.40:9000"], check: {http: /healthz, every: 2s}}
sites:
  play: {hosts: [play.example.com], origin: app}
dns: {domains: [example.com], servers: [us-west-2]}
routing:
  geo:
    - {prefix: 198.51.100.0/24, at: [34.05, -118.24]}
    - {prefix: 192.0.2.0/24, at: [33.45, -112.07]}
    - {prefix: 100.64.9.0/24, at: [34.05, -118.24]}   # wrong: these viewers are in Portland
fleet: {key: {env: FLEET_KEY}}
store: {memory: 32MiB}
log: {access: off}
`

// labWorld is the running lab: an origin, three nodes as processes of their own, three viewers.
type labWorld struct {
	t     *testing.T
	lab   *lab.Lab
	nodes map[string]*exec.Cmd
	seen  map[string]*sightings
}

// sightings is what a viewer has said so far.
type sightings struct {
	mu  sync.Mutex // guards all
	all []sighting
}

func (s *sightings) add(x sighting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, x)
}

// since lists what was seen from a time on.
func (s *sightings) since(at time.Time) (list []sighting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.all {
		if !x.At.Before(at) {
			list = append(list, x)
		}
	}
	return list
}

func startLab(t *testing.T) *labWorld {
	t.Helper()
	hosts := map[string][]string{"origin": {"203.0.113.40"}}
	for zone, addr := range labZones {
		hosts[zone] = []string{addr}
	}
	for viewer, addr := range labViewers {
		hosts[viewer] = []string{addr}
	}
	w := &labWorld{t: t, nodes: map[string]*exec.Cmd{}, seen: map[string]*sightings{}}
	w.lab = lab.New(t, lab.Topology{Hosts: hosts, RTT: labRTT, Default: 60 * time.Millisecond, Jitter: 500 * time.Microsecond})
	dir := t.TempDir()
	binary := filepath.Join(dir, "nearzone")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	file := filepath.Join(dir, "nearzone.yaml")
	if err := os.WriteFile(file, []byte(labYAML), 0o600); err != nil {
		t.Fatal(err)
	}
	w.actor("origin", "origin")
	for zone := range labZones {
		cmd := w.lab.Command(zone, binary, "run", file)
		cmd.Env = append(os.Environ(), "NEARZONE_ZONE="+zone, "DATA="+filepath.Join(dir, zone), "FLEET_KEY=a shared secret of the lab's fleet")
		w.run(zone, cmd, nil)
		w.nodes[zone] = cmd
	}
	return w
}

// actor runs this test binary as one of the actors on a host.
func (w *labWorld) actor(host, name string) *bufio.Scanner {
	cmd := w.lab.Command(host, os.Args[0])
	cmd.Env = append(os.Environ(), "NEARZONE_TEST_ACTOR="+name, "NEARZONE_TEST_DNS="+labZones[home]+":53")
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	w.run(host, cmd, out)
	return bufio.NewScanner(out)
}

// run starts a process and ends it with the test.
func (w *labWorld) run(host string, cmd *exec.Cmd, out io.Reader) {
	w.t.Helper()
	var said safeBuffer
	cmd.Stderr = &said
	if out == nil {
		cmd.Stdout = &said
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if w.t.Failed() {
			w.t.Logf("%s said:\n%s", host, said.String())
		}
	})
}

// watch starts the viewers.
func (w *labWorld) watch() {
	for viewer := range labViewers {
		lines, all := w.actor(viewer, "viewer"), &sightings{}
		w.seen[viewer] = all
		go func() {
			for lines.Scan() {
				var s sighting
				if json.Unmarshal(lines.Bytes(), &s) == nil {
					all.add(s)
				}
			}
		}()
	}
}

func (w *labWorld) eventually(most time.Duration, what string, is func() bool) {
	w.t.Helper()
	(&testFleet{t: w.t}).eventually(most, what, is)
}

// best is the zone of lowest RTT for a viewer among those given.
func best(viewer string, zones ...string) string {
	least := zones[0]
	for _, z := range zones {
		if labRTT[[2]string{viewer, z}] < labRTT[[2]string{viewer, least}] {
			least = z
		}
	}
	return least
}

func zoneAt(addr string) string {
	for zone, at := range labZones {
		if at == addr {
			return zone
		}
	}
	return addr
}

// settled reports whether the last five sightings of every viewer are its best zone without an error.
func (w *labWorld) settled(zones ...string) bool {
	for viewer, s := range w.seen {
		all := s.since(time.Time{})
		if len(all) < 5 {
			return false
		}
		for _, x := range all[len(all)-5:] {
			if x.Error != "" || zoneAt(x.Addr) != best(viewer, zones...) {
				return false
			}
		}
	}
	return true
}

// TestLab proves the loop at real distances: requests make samples, samples make estimates, estimates make answers;
// then a node dies.
func TestLab(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	w := startLab(t)
	w.watch()
	began := time.Now()
	w.eventually(60*time.Second, "every viewer network is answered with its nearest zone", func() bool { return w.settled(lax, phx, home) })
	t.Logf("settled after %v", time.Since(began).Round(time.Second))
	for viewer, s := range w.seen {
		all := s.since(time.Time{})
		last := all[len(all)-1]
		for _, x := range all[len(all)-5:] { // the least of a few: what is above it is this machine's
			last.Second = min(last.Second, x.Second)
		}
		t.Logf("%-9s chosen %s, RTT %v; best %s, RTT %v; first answer was %s; second GET %.1f ms", viewer, zoneAt(last.Addr),
			labRTT[[2]string{viewer, zoneAt(last.Addr)}], best(viewer, lax, phx, home), labRTT[[2]string{viewer, best(viewer, lax, phx, home)}],
			zoneAt(all[0].Addr), float64(last.Second.Microseconds())/1000)
		if rtt := labRTT[[2]string{viewer, best(viewer, lax, phx, home)}]; last.Second > rtt+8*time.Millisecond {
			t.Errorf("%s: the second GET took %v over a path of %v: it did not come from the zone", viewer, last.Second, rtt)
		}
	}
	if got := w.served(); got > 9 {
		t.Errorf("the origin served %s requests; three pages in three zones are nine at most", fmt.Sprint(got))
	}
	w.failover()
}

// served is the number of pages that the origin has served.
func (w *labWorld) served() (n int) {
	transport := &http.Transport{DialContext: w.dialFrom(home), DisableKeepAlives: true}
	res, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Get("http://203.0.113.40:9000/count")
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := fmt.Fscan(res.Body, &n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// failover kills the node nearest to the viewers in Los Angeles.
func (w *labWorld) failover() {
	w.t.Helper()
	died := time.Now()
	if err := syscall.Kill(w.nodes[lax].Process.Pid, syscall.SIGKILL); err != nil {
		w.t.Fatal(err)
	}
	w.eventually(15*time.Second, "viewers of the dead node are answered with the next best", func() bool { return w.settled(phx, home) })
	last := died
	for _, s := range w.seen {
		for _, x := range s.since(died) {
			if x.Addr == labZones[lax] && x.At.After(last) {
				last = x.At
			}
		}
	}
	w.t.Logf("kill -9: the last answer that named the dead node came %v later", last.Sub(died).Round(time.Millisecond))
	if last.Sub(died) > 5*time.Second {
		w.t.Errorf("the dead node was named for %v, want at most 5 s", last.Sub(died))
	}
	var lost []string
	for viewer, s := range w.seen {
		for _, x := range s.since(last.Add(time.Millisecond)) {
			if x.Error != "" {
				lost = append(lost, viewer+": "+x.Error)
			}
		}
	}
	if len(lost) > 0 {
		w.t.Errorf("requests lost after the last answer with the dead node:\n%s", strings.Join(lost, "\n"))
	}
}

// dialFrom connects from inside a host.
func (w *labWorld) dialFrom(host string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		return w.lab.Dial(ctx, host, net.Dialer{}, network, addr)
	}
}
