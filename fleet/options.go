package fleet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// hubSize is how many nodes a hub of several has: two would stop when either stops.
	hubSize = 3

	hubDomain = "hub" // of JetStream

	defaultListen = ":7422"
	// A link that is cut without a word is noticed after pingEvery × (pingsLost + 1).
	pingEvery = 2 * time.Second
	pingsLost = 2
	// With the jitter that the server adds, a leaf tries again within 1.5 s.
	reconnectEvery = 750 * time.Millisecond
	// A handshake from the other side of the planet takes three round trips of 300 ms; strangers get no longer.
	handshakeTimeout = 5 * time.Second
	writeTimeout     = 5 * time.Second
	maxPending       = 16 << 20 // what a peer may leave unread
	maxControlLine   = 4096
	maxStore         = 1 << 30
	maxStoreMemory   = 64 << 20 // followers' places; the logs are files
)

// serverOptions turn off everything of NATS but what a hub or a leaf needs: no client port, monitoring, WebSocket,
// MQTT, gateway or signal handler.
func serverOptions(o Options, role Role) (*server.Options, error) {
	s := &server.Options{
		ServerName: serverName(o.Node),
		DontListen: true,
		NoSigs:     true,
		MaxPayload: MaxMessage + 1<<10, // and the headers of an entry
		// MaxPending also bounds what this process may leave unread.
		MaxPending: maxPending, MaxControlLine: maxControlLine, WriteDeadline: writeTimeout,
		PingInterval: pingEvery, MaxPingsOut: pingsLost,
		NoFastProducerStall:    true, // Publish waits for nobody
		ReconnectErrorReports:  40,
		ConnectErrorReports:    40,
		DisableJetStreamBanner: true,
	}
	s.LeafNode = server.LeafNodeOpts{
		ReconnectInterval: reconnectEvery,
		WriteDeadline:     writeTimeout,
		DialTimeout:       handshakeTimeout,
		Compression:       server.CompressionOpts{Mode: server.CompressionOff},
		NoAdvertise:       true, // an address that only this Region can reach is no use to a leaf
	}
	trust, err := trustOf(o)
	if err != nil {
		return nil, err
	}
	if role == Hub {
		return s, hubOptions(s, o, trust)
	}
	return s, leafOptions(s, o, trust)
}

// trustOf is nil without a key.
func trustOf(o Options) (*identity, error) {
	if !o.Config.Key.IsSet() {
		return nil, nil
	}
	a, err := newAuthority(o.Config.Key.Value())
	if err != nil {
		return nil, err
	}
	return &identity{authority: a, node: serverName(o.Node)}, nil
}

func hubOptions(s *server.Options, o Options, trust *identity) error {
	if o.Data == "" {
		return errors.New("the hub keeps the fleet's logs on disk: set node.data to a directory")
	}
	host, port, err := listenAddr(o.Config.Listen, trust != nil)
	if err != nil {
		return err
	}
	s.JetStream, s.StoreDir, s.JetStreamDomain = true, o.Data, hubDomain
	s.JetStreamMaxStore, s.JetStreamMaxMemory = maxStore, maxStoreMemory
	// NATS acknowledges before it syncs unless told otherwise, and a purge that was acknowledged must last.
	s.SyncAlways = true
	s.LeafNode.Host, s.LeafNode.Port = host, port
	if port == 0 {
		s.LeafNode.Port = server.RANDOM_PORT
	}
	if trust != nil {
		s.LeafNode.TLSConfig = trust.tlsConfig()
		s.LeafNode.TLSHandshakeFirst = true // not a byte of NATS to a stranger
		s.LeafNode.TLSTimeout = handshakeTimeout.Seconds()
	}
	return clusterOptions(s, o, trust)
}

// clusterOptions join the three nodes of a hub. Routes are TLS from the first byte by NATS's own design.
func clusterOptions(s *server.Options, o Options, trust *identity) error {
	switch n := len(o.HubAddrs); n {
	case 0, 1:
		return nil
	case hubSize:
	default:
		return fmt.Errorf("fleet.hub names %d nodes: want 1, or %d, of which one may fail (two stop when either stops)", n, hubSize)
	}
	if trust == nil {
		return fmt.Errorf("fleet.hub names %d nodes: a hub of several needs fleet.key", hubSize)
	}
	if s.LeafNode.Port == server.RANDOM_PORT {
		return fmt.Errorf("fleet.listen %q: a hub of %d nodes needs a port of its own choosing", o.Config.Listen, hubSize)
	}
	s.Cluster = server.ClusterOpts{
		Name: "nearzone", Host: s.LeafNode.Host, Port: s.LeafNode.Port + 1,
		NoAdvertise: true, ConnectRetries: 1 << 30, WriteDeadline: writeTimeout,
		PingInterval: pingEvery, MaxPingsOut: pingsLost,
		Compression: server.CompressionOpts{Mode: server.CompressionOff},
	}
	s.Cluster.TLSConfig = trust.tlsConfig()
	s.Cluster.TLSTimeout = handshakeTimeout.Seconds()
	// NATS 2.15 starts its routes only after its client listener: it gets one on loopback that takes nobody without
	// the key, on a port that nobody is told.
	s.DontListen, s.Host, s.Port = false, "127.0.0.1", server.RANDOM_PORT
	s.TLSConfig, s.TLSHandshakeFirst, s.TLSTimeout = trust.tlsConfig(), true, handshakeTimeout.Seconds()
	s.TLS, s.TLSVerify = true, true
	for _, addr := range o.HubAddrs {
		host, port, err := dialAddr(addr, true)
		if err != nil {
			return err
		}
		s.Routes = append(s.Routes, &url.URL{Scheme: "nats-route", Host: hostPort(host, port+1)})
	}
	return nil
}

func leafOptions(s *server.Options, o Options, trust *identity) error {
	if len(o.HubAddrs) == 0 {
		return errors.New("no hub to join: set fleet.hub, or home to a Region with a node")
	}
	remote := &server.RemoteLeafOpts{
		FirstInfoTimeout: handshakeTimeout,
		DialTimeout:      handshakeTimeout,
		Compression:      server.CompressionOpts{Mode: server.CompressionOff},
	}
	scheme := "nats-leaf"
	if trust != nil {
		scheme = "tls"
		remote.TLS, remote.TLSConfig, remote.TLSHandshakeFirst = true, trust.tlsConfig(), true
		remote.TLSTimeout = handshakeTimeout.Seconds()
	}
	for _, addr := range o.HubAddrs {
		host, port, err := dialAddr(addr, trust != nil)
		if err != nil {
			return err
		}
		remote.URLs = append(remote.URLs, &url.URL{Scheme: scheme, Host: hostPort(host, port)})
	}
	s.LeafNode.Remotes = []*server.RemoteLeafOpts{remote}
	return nil
}

// listenAddr is where a hub listens: on loopback alone without a key.
func listenAddr(listen string, keyed bool) (string, int, error) {
	if listen == "" {
		listen = defaultListen
	}
	host, port, err := splitAddr("fleet.listen", listen)
	if err != nil || keyed {
		return host, port, err
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		return "127.0.0.1", port, nil
	}
	if !isLoopback(host) {
		return "", 0, fmt.Errorf("fleet.listen %q: without fleet.key the fleet listens on loopback only", listen)
	}
	return host, port, nil
}

func dialAddr(addr string, keyed bool) (string, int, error) {
	host, port, err := splitAddr("fleet.hub", addr)
	if err != nil {
		return "", 0, err
	}
	if !keyed && !isLoopback(host) {
		return "", 0, fmt.Errorf("fleet.hub %q: without fleet.key only a hub on loopback is joined; give every node the same fleet.key", addr)
	}
	return host, port, nil
}

func splitAddr(key, addr string) (string, int, error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("%s %q: want host:port", key, addr)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%s %q: the port is no number from 0 to 65535", key, addr)
	}
	return host, int(port), nil
}

// isLoopback takes no name but localhost: what another name resolves to may change.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func hostPort(host string, port int) string {
	if port == server.RANDOM_PORT {
		port = 0
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}
