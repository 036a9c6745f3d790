package healthcheck

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"
)

const (
	// probeTimeout bounds a probe whose caller gave it no deadline.
	probeTimeout = 5 * time.Second
	maxProbeHead = 64 << 10
)

// ProbeOptions shape the probes of HTTP and TCP. The zero value is a plain one that verifies certificates.
type ProbeOptions struct {
	Host string      // Host header; default: that of the URL
	TLS  *tls.Config // for https; default: the system's roots, the URL's host as server name
	// AnyCertificate takes whatever certificate is shown. It is for a peer's own health only: a peer is asked
	// by its address, its certificate names sites, and nothing but a status is taken from the answer.
	AnyCertificate bool
	H2C            bool                                                                 // speak HTTP/2 without TLS
	Dial           func(ctx context.Context, network, address string) (net.Conn, error) // default: a net.Dialer
}

func (o ProbeOptions) dial() func(ctx context.Context, network, address string) (net.Conn, error) {
	dial := o.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		began := time.Now()
		c, err := dial(ctx, network, address)
		if err == nil {
			Measured(ctx, time.Since(began))
		}
		return c, err
	}
}

// HTTP is a probe that asks for a URL with GET, on a connection of its own. A status of 2xx or 3xx passes;
// redirects are not followed and the body is not read. What it measures is the time of the TCP connect.
func HTTP(url string, o ProbeOptions) func(ctx context.Context) error {
	t := o.transport()
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("probe %s: %w", url, err)
		}
		req.Host = o.Host
		req.Header.Set("User-Agent", "nearzone-healthcheck")
		resp, err := t.RoundTrip(req)
		if err != nil {
			return fmt.Errorf("probe %s: %w", url, err)
		}
		resp.Body.Close()
		if resp.StatusCode < 200 || resp.StatusCode > 399 {
			return fmt.Errorf("probe %s: status %d, want 2xx or 3xx", url, resp.StatusCode)
		}
		return nil
	}
}

// transport makes one that keeps no connection: what is asked is whether a new one can be made.
func (o ProbeOptions) transport() *http.Transport {
	config := o.TLS.Clone()
	if config == nil {
		config = &tls.Config{}
	}
	if o.AnyCertificate {
		config.InsecureSkipVerify = true
	}
	t := &http.Transport{
		DialContext:            o.dial(),
		TLSClientConfig:        config,
		ForceAttemptHTTP2:      true, // a server of gRPC speaks nothing else
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxProbeHead,
	}
	if o.H2C {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	return t
}

// TCP is a probe that makes a connection to host:port and closes it.
func TCP(address string, o ProbeOptions) func(ctx context.Context) error {
	dial := o.dial()
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		c, err := dial(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("probe tcp %s: %w", address, err)
		}
		return c.Close()
	}
}
