package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nearzone/nearzone/config"
)

func TestWhoAmI(t *testing.T) {
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1") // nobody
	const tail = "listen: {http: \"127.0.0.1:0\"}\nadmin: {listen: off}\n"
	const two = "home: us-west-2\nzones: {us-west-2: {nodes: [203.0.113.1]}, us-west-2-lax-1a: {nodes: [203.0.113.2, 203.0.113.3]}}\n" + tail
	for _, test := range []struct {
		name, yaml, flag string
		zone, fails      string
	}{
		{name: "no zones need no answer", yaml: tail},
		{name: "the only zone", yaml: "zones: {us-west-2: {nodes: [203.0.113.1]}}\n" + tail, zone: "us-west-2"},
		{name: "the flag", yaml: two, flag: "us-west-2", zone: "us-west-2"},
		{name: "an Availability Zone is its Region", yaml: two, flag: "us-west-2b", zone: "us-west-2"},
		{name: "node.zone", yaml: "node: {zone: us-west-2}\n" + two, zone: "us-west-2"},
		{name: "node.zone and node.address", yaml: "node: {zone: us-west-2-lax-1a, address: 203.0.113.3}\n" + two, zone: "us-west-2-lax-1a"},
		{name: "one of two nodes, unsaid", yaml: two, flag: "us-west-2-lax-1a", fails: "zones.us-west-2-lax-1a lists 2 nodes, and no address of this machine says which one it is; set node.address"},
		{name: "nothing says", yaml: two, fails: "set node.zone or NEARZONE_ZONE to one of us-west-2, us-west-2-lax-1a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "nearzone.yaml")
			if err := os.WriteFile(file, []byte(test.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			me, err := whoAmI(t.Context(), file, test.flag, testLog(t))
			if err == nil {
				_, err = me.load(file)
			}
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("got %v, want an error with %q", err, test.fails)
				}
				return
			}
			if err != nil || me.zone != test.zone {
				t.Errorf("got zone %q, %v; want %q", me.zone, err, test.zone)
			}
		})
	}
}

func TestHubIsOneOrThreeNodesOfHome(t *testing.T) {
	const key = "fleet: {key: {env: KEY}}\n"
	for _, test := range []struct {
		name, home, fleet string
		hubs              string // addresses of home whose nodes are of the hub
		dialled           int
	}{
		{"one", "203.0.113.1", "", "203.0.113.1", 1},
		{"of two, the first", "203.0.113.1, 203.0.113.2", key, "203.0.113.1", 1},
		{"of three with a key, all", "203.0.113.1, 203.0.113.2, 203.0.113.3", key, "203.0.113.1 203.0.113.2 203.0.113.3", 3},
		{"of three without a key, the first", "203.0.113.1, 203.0.113.2, 203.0.113.3", "", "203.0.113.1", 1},
		{"of four, the first three", "203.0.113.1, 203.0.113.2, 203.0.113.3, 203.0.113.4", key, "203.0.113.1 203.0.113.2 203.0.113.3", 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			var hubs []string
			for _, addr := range strings.Split(test.home, ", ") {
				yaml := "node: {zone: us-west-2, address: " + addr + "}\nhome: us-west-2\nzones: {us-west-2: {nodes: [" + test.home +
					"]}, us-west-2-lax-1a: {nodes: [203.0.113.9]}}\n" + test.fleet
				cfg, err := config.Parse("nearzone.yaml", []byte(yaml), config.Options{
					Env: func(string) (string, bool) { return "sixteen characters and more", true },
				})
				if err != nil {
					t.Fatal(err)
				}
				hub, addrs := hubOf(cfg)
				if hub {
					hubs = append(hubs, addr)
				}
				if len(addrs) != test.dialled {
					t.Errorf("%s: dials %v, want %d", addr, addrs, test.dialled)
				}
			}
			if got := strings.Join(hubs, " "); got != test.hubs {
				t.Errorf("got hub %q, want %q", got, test.hubs)
			}
		})
	}
}
