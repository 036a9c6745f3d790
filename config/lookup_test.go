package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nearzone/nearzone/config"
)

func assertHidden(t *testing.T, v any) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if s := fmt.Sprintf(verb, v); strings.Contains(s, "HIDDEN") {
			t.Errorf("%s shows the secret: %s", verb, s)
		}
	}
}

func TestSelf(t *testing.T) {
	tests := []struct{ name, nodes, node, listen, want string }{
		{"the only entry", "[203.0.113.10]", "", ":80", "203.0.113.10"},
		{"the only entry, another address", "[203.0.113.10]", "address: 203.0.113.9", ":80", ""},
		{"by address", "[203.0.113.10, 203.0.113.11]", "address: 203.0.113.11", ":80", "203.0.113.11"},
		{"by IPv6", "[[203.0.113.10, \"2001:db8::1\"], 203.0.113.11]", `address: "2001:db8::1"`, ":80", "203.0.113.10"},
		{"nobody knows", "[203.0.113.10, 203.0.113.11]", "", ":80", ""},
		{"by listener", "[127.0.0.2, 127.0.0.3]", "", "127.0.0.3:8080", "127.0.0.3"},
		{"by port", `["127.0.0.1:8080", "127.0.0.1:8081"]`, "", "127.0.0.1:8081", "127.0.0.1:8081"},
		{"by port alone", `["192.0.2.1:8080", "192.0.2.1:8081"]`, "", ":8081", "192.0.2.1:8081"},
		{"by address, then port", `["127.0.0.1:8080", "127.0.0.1:8081"]`, "address: 127.0.0.1", ":8080", "127.0.0.1:8080"},
		{"no entry", "[]", "", ":80", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := parse(t, fmt.Sprintf("node: {%s}\nhome: us-west-2\nzones:\n  us-west-2: {nodes: %s}\n  other-1: {nodes: [192.0.2.200]}\nlisten: {http: %q}\nfleet: {hub: [\"192.0.2.1:1\"]}\n",
				tt.node, strings.ReplaceAll(tt.nodes, "[]", "null"), tt.listen), "us-west-2")
			got := ""
			if self := c.Self(); self != nil {
				got = self.ID()
			}
			if got != tt.want {
				t.Errorf("self of %s: got %q, want %q", tt.nodes, got, tt.want)
			}
			self := 0
			if tt.want != "" {
				self = 1
			}
			same(t, "peers", len(c.Peers()), len(c.Zones[0].Nodes)+1-self)
		})
	}
}

func TestPeersAndHub(t *testing.T) {
	c := parse(t, `zones:
  us-west-2-lax-1a: {nodes: [127.0.0.2, "127.0.0.3:8443"]}
  us-west-2: {nodes: [[127.0.0.4, "::1"]]}
listen: {http: ":8080"}
fleet: {listen: ":7000"}
`, "us-west-2")
	var peers []string
	for _, p := range c.Peers() {
		peers = append(peers, fmt.Sprintf("%s %s %d", p.Zone, p.ID(), c.CheckPort(p.ZoneNode)))
	}
	same(t, "peers", peers, []string{"us-west-2-lax-1a 127.0.0.2 8080", "us-west-2-lax-1a 127.0.0.3:8443 8443"})
	same(t, "hub addresses", c.HubAddrs(), []string{"127.0.0.4:7000"})
	same(t, "listen follows the node's loopback address", c.Fleet.Listen, "127.0.0.4:7000")
	same(t, "hub", c.IsHub(), true)
	same(t, "lone", c.Lone(), false)
}

func TestIsRegion(t *testing.T) {
	for name, want := range map[string]bool{
		"us-west-2": true, "ap-southeast-1": true, "us-gov-east-1": true, "mx-central-1": true,
		"us-west-2-lax-1a": false, "us-west-2-lax-1": false, "us-west-2a": false, "garage-1": false, "auto": false, "": false,
	} {
		if got := config.IsRegion(name); got != want {
			t.Errorf("IsRegion(%q): got %v, want %v", name, got, want)
		}
	}
}

func TestHosts(t *testing.T) {
	c := load(t, "dns.yaml", "")
	same(t, "hosts", c.Hosts(), []string{"play.edge.example.com", "www.example.org", "*.play.edge.example.com", "api.edge.example.com", "half.edge.example.com"})
	same(t, "hosts of *", len(load(t, "quickstart.yaml", "").Hosts()), 0)
}
