package stream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/proxy/origin"
)

// policy is how new sessions of one stream are treated. It never changes; a reload makes a new one.
type policy struct {
	name        string
	origin      string
	proxy       string // empty, v1 or v2
	unreplied   time.Duration
	established time.Duration
	max         int
	count       *counters
}

func newPolicy(st config.Stream, m *metrics) *policy {
	return &policy{
		name: st.Name, origin: st.Origin, proxy: st.ProxyProtocol,
		unreplied: st.Idle.Unreplied, established: st.Idle.Established,
		max: st.MaxSessions, count: m.of(st.Name, st.Network),
	}
}

// door is one listener with its sessions.
type door struct {
	key     doorKey
	policy  atomic.Pointer[policy]
	serving bool // guarded by Streams.mu
	relay
}

// relay is what a door does in its network. The methods may be called from any goroutine, close more than once.
type relay interface {
	addr() net.Addr
	serve(ctx context.Context) // until it is closed and every session has ended
	sessions() int
	shut() // takes no new session; closes itself with the last one
	isShut() bool
	reopen() // undoes shut while pinned
	// pin keeps a shut relay from closing itself, so that it can be reopened; false if it has already.
	pin() bool
	unpin()
	endAll(why ending)
	close(why ending) // shut and endAll, at once
}

// open binds the address of k.
func (s *Streams) open(k doorKey, p *policy) (*door, error) {
	d := &door{key: k}
	d.policy.Store(p)
	shared := shared{Deps: &s.deps, servers: pools{s.deps.Origins}, policy: &d.policy, locals: &s.locals, seldom: &rate.Sometimes{Interval: 10 * time.Second}}
	var err error
	switch k.network {
	case "tcp":
		d.relay, err = newTCPRelay(shared, k.address)
	case "udp":
		d.relay, err = newUDPRelay(shared, k.address)
	default:
		err = fmt.Errorf("unknown network %q (have: tcp, udp)", k.network)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// shared is what the relays of both networks use.
type shared struct {
	*Deps
	servers servers
	policy  *atomic.Pointer[policy]
	locals  *locals
	seldom  *rate.Sometimes // for log lines that every client could cause
}

// noServer logs that a client could not be served, for the first client and then for one every ten seconds: the
// metrics have the number.
func (s shared) noServer(p *policy, client netip.AddrPort, err error) {
	s.seldom.Do(func() {
		s.Log.Warn("stream has no server", "stream", p.name, "client", client, "origin", p.origin, "err", err)
	})
}

// lost logs that a session's connection to its server failed, as seldom.
func (s shared) lost(p *policy, client netip.AddrPort, server net.Conn, err error) {
	s.seldom.Do(func() {
		s.Log.Warn("stream lost its server", "stream", p.name, "client", client, "server", server.RemoteAddr(), "err", err)
	})
}

// dial connects a client to its server: the one that its address leads to, whatever the port and network, so that a
// player who comes back, or who speaks TCP and UDP, finds the same one.
func (s shared) dial(ctx context.Context, p *policy, network string, client netip.Addr) (net.Conn, error) {
	return s.servers.connect(ctx, p.origin, network, client.String())
}

// servers are the servers of origins, by name.
type servers interface {
	// connect goes to the server that a key leads to.
	connect(ctx context.Context, origin, network, key string) (net.Conn, error)
	// report says whether a server that connect went to has answered, or refused.
	report(origin string, server netip.AddrPort, ok bool)
}

// pools are the servers that the configuration names.
type pools struct{ *origin.Set }

func (s pools) connect(ctx context.Context, origin, network, key string) (net.Conn, error) {
	pool := s.Pool(origin)
	if pool == nil {
		return nil, fmt.Errorf("origin %q is not configured", origin)
	}
	return pool.DialContext(ctx, network, key)
}

func (s pools) report(origin string, server netip.AddrPort, ok bool) {
	if pool := s.Pool(origin); pool != nil {
		pool.Report(server, ok)
	}
}

// ending is why a session is over, as metrics name it.
type ending uint8

const (
	endClosed      ending = iota // by client and server
	endIdle                      // silent for the idle time
	endReset                     // by an error on one side
	endRefused                   // the server's host said that nothing listens there
	endUnreachable               // no server could be connected to
	endRemoved                   // its stream left the configuration
	endDrained                   // drain.streams was over
	endStopped                   // the process stops
	endCrowded                   // the table was full, and its client had not yet spoken after an answer (udp)
	numEndings
)

var endingNames = [...]string{"closed", "idle", "reset", "refused", "unreachable", "removed", "drained", "stopped", "crowded_out"}

// String is the value of the reason label.
func (e ending) String() string { return endingNames[e] }

// Error makes an ending a cause for a context.
func (e ending) Error() string { return "session ended: " + e.String() }
