// Package lab puts programs at real distances from each other on one machine, for tests.
//
// Each host is a network namespace of its own. A program in user space carries packets between them with a delay,
// jitter and loss for each pair of hosts, which needs no netem in the kernel. Kernel TCP and UDP run across it, so
// that TCP_INFO, retransmissions and path failures are the real ones. It is no model of bandwidth or queues.
//
// It needs Linux, root and the `ip` command; without them [New] skips the test and says so.
//
//	l := lab.New(t, lab.Topology{
//		Hosts: map[string][]string{"lax": {"203.0.113.10"}, "viewer": {"198.51.100.0/24"}},
//		RTT:   map[[2]string]time.Duration{{"lax", "viewer"}: 12 * time.Millisecond},
//	})
//	err := l.Command("viewer", "curl", "http://203.0.113.10/").Run()
package lab

import "time"

// Topology is the hosts of a lab and what lies between them.
type Topology struct {
	// Hosts are the addresses of each host by name. A prefix (198.51.100.0/24) gives it every address in it: a
	// client network in one namespace. The names are letters, digits and hyphens.
	Hosts map[string][]string

	RTT     map[[2]string]time.Duration // round trip between two hosts, in either order; Default for the rest
	Default time.Duration
	Jitter  time.Duration // each packet waits 0 to Jitter longer; those of a pair keep their order
	Loss    float64       // share of packets lost in each direction, 0 to 1
	Seed    uint64        // of jitter and loss
}
