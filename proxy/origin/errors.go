package origin

import (
	"errors"
	"fmt"
)

// What went wrong, for errors.Is. A request that fails for the caller's own context returns that context's error
// and none of these.
var (
	// ErrNoServer: nothing could be asked. Every server is down and was tried less than a second ago, or no
	// address of them is known.
	ErrNoServer = errors.New("no server is up")
	// ErrConnect: the connection could not be made, TLS included. Nothing was sent.
	ErrConnect = errors.New("connect")
	// ErrTimeout: the server was silent too long, in whichever phase. It comes along with ErrConnect when
	// that phase was the connect.
	ErrTimeout = errors.New("timeout")
	// ErrBroken: the server broke off, or what it sent was not HTTP.
	ErrBroken = errors.New("broken exchange")
	// ErrBody: the request's body could not be read. It was not the server.
	ErrBody = errors.New("read request body")
	// ErrRefused: the address is one that only a configuration naming it may use.
	ErrRefused = errors.New("refused address")
)

// serverError is a failure at one server. kinds are sentinels from above.
type serverError struct {
	origin, server string
	kinds          []error
	err            error
}

func (e *serverError) Error() string {
	return fmt.Sprintf("origin %q: server %s: %v", e.origin, e.server, e.err)
}

func (e *serverError) Unwrap() []error { return append([]error{e.err}, e.kinds...) }

// connectError marks an error of the dial inside those that a transport returns. refused means that the attempt
// was not made, because the last one was less than a second ago.
type connectError struct {
	err     error
	refused bool
}

func (e *connectError) Error() string { return e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }
