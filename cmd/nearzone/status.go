package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nearzone/nearzone/admin"
	"github.com/nearzone/nearzone/fleet"
	"github.com/nearzone/nearzone/healthcheck"
	"github.com/nearzone/nearzone/localzone"
	"github.com/nearzone/nearzone/proxy/cache"
	"github.com/nearzone/nearzone/proxy/origin"
)

// Status is /v1/status: what one node knows of itself and of its fleet.
type Status struct {
	Version string                           `json:"version"`
	Node    string                           `json:"node"` // by which its peers know it
	Name    string                           `json:"name"` // node.name
	Zone    string                           `json:"zone"`
	Config  string                           `json:"config"` // hash of the file, alike on all nodes that run the same
	Started time.Time                        `json:"started"`
	Leaving bool                             `json:"leaving"`
	Fleet   fleet.Status                     `json:"fleet"`
	Nodes   []healthcheck.NodeStatus         `json:"nodes"`
	Drained []string                         `json:"drained"`
	Origins map[string][]origin.ServerStatus `json:"origins"`
	Cache   cache.Stats                      `json:"cache"`
	Streams int                              `json:"stream_sessions"`
	Names   []string                         `json:"names"`
	EC2     *localzone.Who                   `json:"ec2,omitempty"` // once EC2 metadata has answered
}

func (n *node) status() any {
	cfg := n.config.Load()
	s := Status{
		Version: versionString(), Node: n.id, Name: n.name, Zone: n.zone, Config: cfg.Hash, Started: n.started, Leaving: n.leaving.Load(),
		Fleet: n.fleet.Status(), Nodes: n.nodesStatus(), Drained: n.drained.list(),
		Origins: map[string][]origin.ServerStatus{}, Cache: n.cache.Stats(), Streams: n.streams.Sessions(), Names: []string{},
	}
	for _, o := range cfg.Origins {
		if pool := n.origins.Pool(o.Name); pool != nil {
			s.Origins[o.Name] = pool.Status()
		}
	}
	for _, name := range cfg.DNS.Names {
		s.Names = append(s.Names, name.Name)
	}
	if who, ok := n.identity.Get(); ok {
		s.EC2 = &who
	}
	return s
}

// nodesStatus is the votes on each node, with what the operator has ordered, and with the zone of those never heard of.
func (n *node) nodesStatus() []healthcheck.NodeStatus {
	zones := map[string]string{}
	for _, z := range n.routingZones() {
		for _, node := range z.Nodes {
			zones[node.ID] = z.Name
		}
	}
	nodes := n.quorum.Status(time.Now())
	for i := range nodes {
		if zone, known := zones[nodes[i].Node]; known {
			nodes[i].Zone = zone
		}
		nodes[i].Draining = nodes[i].Draining || n.drained.has(nodes[i].Zone, nodes[i].Node)
	}
	return nodes
}

func (s Status) write(out io.Writer) error {
	fmt.Fprintf(out, "nearzone %s  node %s  zone %s  configuration %s  up %s\n", s.Version, s.Name, s.Zone, s.Config,
		time.Since(s.Started).Round(time.Second))
	fmt.Fprintf(out, "fleet: %s\n", describeFleet(s.Fleet))
	if len(s.Drained) > 0 {
		fmt.Fprintf(out, "drained: %s\n", strings.Join(s.Drained, ", "))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(s.Nodes) > 0 {
		fmt.Fprintln(w, "\nNODE\tZONE\tHEALTH\tUP BY\tDOWN BY\t")
	}
	for _, n := range s.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", n.Node, n.Zone, describeUp(n.Up, n.Draining), strings.Join(n.UpVotes, " "), strings.Join(n.DownVotes, " "))
	}
	if len(s.Origins) > 0 {
		fmt.Fprintln(w, "\nORIGIN\tSERVER\tHEALTH\tLAST ERROR\t")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Origins)) {
		for _, server := range s.Origins[name] {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t\n", name, server.Address, describeUp(server.Up, false), server.LastError)
		}
	}
	fmt.Fprintf(w, "\ncache\t%d objects\t%d bytes\t%d hits\t%d misses\t\n", s.Cache.Objects, s.Cache.Bytes, s.Cache.Hits, s.Cache.Misses)
	fmt.Fprintf(w, "streams\t%d sessions\t\t\t\t\n", s.Streams)
	return w.Flush()
}

// describeFleet is one phrase: the role, who is connected, or why nobody is.
func describeFleet(f fleet.Status) string {
	switch {
	case !f.Connected:
		return fmt.Sprintf("%s, not connected: %s", f.Role, f.Error)
	case len(f.Peers) > 0:
		return fmt.Sprintf("%s, connected with %s", f.Role, strings.Join(f.Peers, ", "))
	}
	if f.Role == fleet.Lone {
		return "alone: no other node is configured"
	}
	return string(f.Role)
}

// describeUp is the word for health in status.
func describeUp(up, draining bool) string {
	switch {
	case draining:
		return "draining"
	case up:
		return "up"
	}
	return "DOWN"
}

// hooks are what the admin door opens onto.
func (n *node) hooks() admin.Hooks {
	return admin.Hooks{
		Status: n.status, Ready: n.ready, Purge: n.purge, Drain: n.drain, Explain: n.explain, Reload: n.Reload,
		Zones: func() any { return n.routingZones() },
	}
}

// ready is nil while new clients are welcome.
func (n *node) ready() error {
	if n.leaving.Load() {
		return errors.New("draining")
	}
	return nil
}

func (n *node) explain(name, client string) (any, error) {
	addr, err := netip.ParseAddr(client)
	if err != nil {
		return nil, fmt.Errorf("client %q is no IP address; give one, such as 198.51.100.7", client)
	}
	return n.router.Explain(strings.ToLower(strings.TrimSuffix(name, ".")), addr)
}

func writeZone(w io.Writer, z localzone.Entry) {
	fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%.1f ms\t%s\t%d\t%s\t\n", z.Name, z.Metro, z.Parent, z.Km,
		float64(z.Floor.Microseconds())/1000, yesNo(z.IPv6), z.MTU, z.Status)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// decodeStrict refuses what it does not know, so that a misspelt key is no silent no-op.
func decodeStrict(data []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(to)
}

func sortedKeys(m map[string]bool) []string { return slices.Sorted(maps.Keys(m)) }
