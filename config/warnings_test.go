package config_test

import (
	"strings"
	"testing"

	"github.com/nearzone/nearzone/config"
)

// app is an origin and a site, so that a file has something to do.
const app = "origins: {app: {servers: [\"http://10.0.1.20\"]}}\nsites: {all: {hosts: [\"*\"], origin: app}}\n"

func TestWarningsOfUse(t *testing.T) {
	const nothing = "f: nothing to do: want listen, origins and sites (or streams, or dns)"
	for name, test := range map[string]struct {
		yaml, zone, want string
	}{
		"no site":            {yaml: "listen: {http: \":8080\"}", want: nothing},
		"no listener either": {yaml: "listen: {http: off}", want: nothing},
		"sites by zone":      {yaml: "zones: {us-west-2: {set: {sites: {a: {hosts: [a.example.com], origin: app}}}}}\norigins: {app: {servers: [\"http://10.0.1.20\"]}}", want: "f:2:11: origins.app: no site and no stream uses it"},
		"sites unserved":     {yaml: app + "listen: {http: off}", want: "f:2:1: sites: are served nowhere: want listen.http or listen.https"},
		"listener by zone":   {yaml: app + "listen: {http: off}\nzones: {us-west-2: {set: {listen: {http: \":80\"}}}}"},
		"no name":            {yaml: app + "dns: {listen: \":53\", domains: [edge.example.com]}", want: "f:3:32: dns.domains[0]: no name under it is steered: want a site with a host such as play.edge.example.com, or an entry in dns.names"},
		"no name but records": {yaml: app + "dns: {listen: \":53\", domains: [edge.example.com], records: {www: {A: [192.0.2.1]}}}",
			want: "f:3:32: dns.domains[0]: no name under it is steered: want a site with a host such as play.edge.example.com, or an entry in dns.names"},
		"one domain of records": {yaml: app + "zones: {us-west-2: {nodes: [198.51.100.5]}}\ndns: {listen: \":53\", domains: [a.example.com, b.example.com, c.example.com], records: {www.a.example.com: {A: [192.0.2.1]}}, names: {b.example.com: {serves: sites.all}}}", zone: "us-west-2",
			want: "f:4:62: dns.domains[2]: no name under it is steered: want a site with a host such as play.c.example.com, or an entry in dns.names"},
		"zone":             {yaml: app + "node: {zone: us-west-2-lax-1a}"},
		"Region":           {yaml: app, zone: "us-west-2"},
		"own name":         {yaml: app, zone: "garage"},
		"zone id":          {yaml: app + "node: {zone: usw2-lax1-az1}", want: "f:3:14: node.zone: \"usw2-lax1-az1\" is the id of a zone: want its name, such as us-west-2-lax-1a"},
		"zone id outside":  {yaml: app, zone: "usw2-az1", want: "f: node.zone: \"usw2-az1\" is the id of a zone: want its name, such as us-west-2-lax-1a"},
		"zone group":       {yaml: app + "node: {zone: us-west-2-lax-1}", want: "f:3:14: node.zone: \"us-west-2-lax-1\" is a group of zones: want one of them, such as us-west-2-lax-1a"},
		"fleet on machine": {yaml: app + "zones: {us-west-2: {nodes: [\"127.0.0.1:8001\", \"127.0.0.1:8002\"]}}", zone: "us-west-2"},
		"fleet": {yaml: app + "zones: {us-west-2: {nodes: [198.51.100.5, 198.51.100.6]}}", zone: "us-west-2",
			want: "f:3:1: fleet.key: is not set: the fleet stays on loopback, and nodes on other machines, such as 198.51.100.5 in us-west-2, cannot join: want fleet: {key: {file: FILE}}, the same file of at least 16 characters on every node"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := config.Parse("f", []byte(test.yaml), config.Options{Zone: test.zone, Env: environment})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(c.Warnings, "\n"); got != test.want {
				t.Errorf("%s\n got %s\nwant %s", test.yaml, got, test.want)
			}
		})
	}
}
