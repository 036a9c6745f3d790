package lab

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestPlanRefusesWhatCannotBe(t *testing.T) {
	for _, c := range []struct {
		top  Topology
		says string
	}{
		{Topology{Hosts: map[string][]string{"a b": {"10.0.0.1"}}}, "letters, digits and hyphens"},
		{Topology{Hosts: map[string][]string{"a": {"10.0.0"}}}, "10.0.0"},
		{Topology{Hosts: map[string][]string{"a": {"10.0.0.1"}, "b": {"10.0.0.1"}}}, "10.0.0.1 belongs to a"},
		{Topology{Hosts: map[string][]string{"a": {"10.0.0.1"}}, RTT: map[[2]string]time.Duration{{"a", "c"}: 1}}, `no host "c"`},
	} {
		if _, err := c.top.plan(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: got %v, want an error that says %q", c.top, err, c.says)
		}
	}
}

func TestPathsBetweenHosts(t *testing.T) {
	p, err := Topology{
		Hosts:   map[string][]string{"a": {"10.0.0.1"}, "b": {"10.0.0.0/8", "2001:db8::/64"}, "c": {"10.0.0.2"}},
		RTT:     map[[2]string]time.Duration{{"b", "a"}: 30 * time.Millisecond},
		Default: 80 * time.Millisecond,
	}.plan()
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{"10.0.0.1": "a", "10.0.0.2": "c", "10.9.9.9": "b", "2001:db8::7": "b", "192.0.2.1": ""} {
		if got, ok := p.find(netip.MustParseAddr(address)); got != want || ok != (want != "") {
			t.Errorf("%s is at %q, want %q", address, got, want)
		}
	}
	if d, ok := p.fate("a", "b"); !ok || d != 15*time.Millisecond {
		t.Errorf("a to b takes %v, want 15ms", d)
	}
	if d, ok := p.fate("c", "b"); !ok || d != 40*time.Millisecond {
		t.Errorf("c to b takes %v, want 40ms", d)
	}
}

func TestWireKeepsOrderUnderJitter(t *testing.T) {
	p, err := Topology{Hosts: map[string][]string{"a": {"10.0.0.1"}, "b": {"10.0.0.2"}}, Default: time.Millisecond, Jitter: 50 * time.Millisecond}.plan()
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(p)
	var got []byte
	w.out["b"] = func(packet []byte) { got = append(got, packet[20]) }
	now := time.Now()
	for i := range byte(200) {
		packet := append(make([]byte, 20), i)
		packet[0] = 0x45
		copy(packet[16:], []byte{10, 0, 0, 2})
		w.send("a", packet, now)
	}
	w.send("a", []byte("no IP packet"), now)
	w.deliver(now.Add(time.Second))
	if len(got) != 200 {
		t.Fatalf("%d packets arrived, want 200", len(got))
	}
	for i, b := range got {
		if int(b) != i {
			t.Fatalf("packet %d arrived at place %d", b, i)
		}
	}
}
