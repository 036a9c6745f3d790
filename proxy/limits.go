package proxy

import "time"

// Limits bound what one client can take. Zero values are the defaults.
type Limits struct {
	Head      time.Duration // to send a request's head, and a PROXY header; 10 s
	Handshake time.Duration // TLS; 10 s
	Idle      time.Duration // between requests; 75 s, more than the 60 s of load balancers in front of us
	Body      time.Duration // between two reads of a request's body; 60 s
	Stall     time.Duration // a write that makes no progress; 60 s
	HeadBytes int           // of a request's head; 64 KiB
	Streams   int           // at once on an HTTP/2 connection; 200
	Conns     int           // at once; half of the file descriptors, since each may need one to an origin
	Requests  int           // at once, upgraded connections included; as many as Conns: on HTTP/2, one connection has many
}

// fewConns is the default of Limits.Conns where the number of descriptors is not known.
const fewConns = 8192

func (l Limits) orDefaults() Limits {
	or(&l.Head, 10*time.Second)
	or(&l.Handshake, 10*time.Second)
	or(&l.Idle, 75*time.Second)
	or(&l.Body, time.Minute)
	or(&l.Stall, time.Minute)
	or(&l.HeadBytes, 64<<10)
	or(&l.Streams, 200)
	or(&l.Conns, halfOfDescriptors())
	or(&l.Requests, l.Conns)
	return l
}

func or[T int | time.Duration](v *T, otherwise T) {
	if *v <= 0 {
		*v = otherwise
	}
}
