package fleet_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/fleet"
)

func TestStrangersGetNotAByteOfNATS(t *testing.T) {
	t.Parallel()
	hub := start(t, "hub", fleet.Options{Config: keyed(config.Fleet{Listen: "127.0.0.1:0"}), Hub: true, Data: t.TempDir()})
	addr := hub.Addr().String()
	forged := forge(t)
	tests := map[string]func(net.Conn) net.Conn{
		"plain TCP that waits": func(c net.Conn) net.Conn { return c },
		"plain TCP that talks": func(c net.Conn) net.Conn {
			fmt.Fprintf(c, "CONNECT {\"verbose\":false}\r\nPING\r\n")
			return c
		},
		"TLS without a certificate": func(c net.Conn) net.Conn {
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		},
		"TLS 1.2 with a certificate": func(c net.Conn) net.Conn {
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{forged}})
		},
		"TLS with another key's certificate": func(c net.Conn) net.Conn {
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{forged}})
		},
	}
	for name, wrap := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(15 * time.Second))
			got, err := io.ReadAll(wrap(c))
			if strings.Contains(string(got), "INFO") || strings.Contains(string(got), "server_id") {
				t.Errorf("received %q", got)
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection is still open after 15 s")
			}
		})
	}
	t.Cleanup(func() {
		if n, _ := gather(t, hub.reg, "nearzone_fleet_handshake_errors_total"); int(n) != len(tests) {
			t.Errorf("handshake errors counted = %v, want %d", n, len(tests))
		}
	})
}

// forge makes a certificate that looks right and is signed by itself.
func forge(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nearzone fleet"}, DNSNames: []string{"fleet.nearzone.internal"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestNodesOfDifferentKeysDoNotMeet(t *testing.T) {
	t.Parallel()
	other := func(c config.Fleet) config.Fleet {
		c.Key = config.NewSecret("another key, as long as the first one")
		return c
	}
	type secure = func(config.Fleet) config.Fleet
	for name, keys := range map[string][2]secure{
		"another key":       {keyed, other},
		"the leaf has none": {keyed, plain},
		"the hub has none":  {plain, keyed},
	} {
		t.Run(name, func(t *testing.T) {
			hub := start(t, "hub", fleet.Options{Config: keys[0](config.Fleet{Listen: "127.0.0.1:0"}), Hub: true, Data: t.TempDir()})
			leaf := start(t, "leaf", fleet.Options{Config: keys[1](config.Fleet{Hub: []string{hub.Addr().String()}})})
			eventually(t, "the leaf says why it is alone", func() bool {
				return !strings.Contains(leaf.Status().Error, "no hub node has answered")
			})
			if hub, leaf := hub.Status(), leaf.Status(); leaf.Connected || len(hub.Peers) > 0 || len(leaf.Peers) > 0 {
				t.Errorf("they met: hub %+v, leaf %+v", hub, leaf)
			}
		})
	}
}

// TestLeafTellsAFalseHubNothing: one that answers on the hub's address, without the key.
func TestLeafTellsAFalseHubNothing(t *testing.T) {
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{forge(t)}, ClientAuth: tls.RequestClientCert})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	leaf := start(t, "leaf", fleet.Options{Config: keyed(config.Fleet{Hub: []string{l.Addr().String()}})})
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	got, err := io.ReadAll(c)
	if err == nil || len(got) > 0 {
		t.Errorf("a false hub read %q, %v; want a refused handshake", got, err)
	}
	if leaf.Status().Connected {
		t.Error("the leaf takes the false hub for its own")
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	tests := map[string]struct {
		o    fleet.Options
		want string
	}{
		"open listener without a key":  {fleet.Options{Hub: true, Data: dir, Config: config.Fleet{Listen: "192.0.2.1:7422"}}, "without fleet.key the fleet listens on loopback only"},
		"named listener without a key": {fleet.Options{Hub: true, Data: dir, Config: config.Fleet{Listen: "hub.example.com:7422"}}, "loopback only"},
		"far hub without a key":        {fleet.Options{Config: config.Fleet{Hub: []string{"192.0.2.1:7422"}}}, "without fleet.key only a hub on loopback is joined"},
		"short key":                    {fleet.Options{Config: config.Fleet{Hub: []string{"192.0.2.1:7422"}, Key: config.NewSecret("short")}}, "openssl rand"},
		"no directory":                 {fleet.Options{Hub: true, Config: config.Fleet{Listen: "127.0.0.1:0"}}, "node.data"},
		"no hub":                       {fleet.Options{}, "fleet.hub"},
		"two hub nodes":                {fleet.Options{Hub: true, Data: dir, Config: config.Fleet{Listen: "127.0.0.1:7422", Hub: []string{"127.0.0.1:1", "127.0.0.1:2"}}}, "names 2 nodes: want 1, or 3"},
		"no port":                      {fleet.Options{Config: config.Fleet{Hub: []string{"127.0.0.1"}}}, "want host:port"},
		"bad port":                     {fleet.Options{Config: config.Fleet{Hub: []string{"127.0.0.1:99999"}}}, "port"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f, err := fleet.Listen(options("node", tt.o))
			if err == nil {
				f.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Listen = %v, want an error with %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "short\"") {
				t.Errorf("the key is in the error: %v", err)
			}
		})
	}
}

func TestBusyPortAndClose(t *testing.T) {
	o := options("hub", fleet.Options{Config: config.Fleet{Listen: "127.0.0.1:0"}, Hub: true, Data: t.TempDir()})
	f, err := fleet.Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	o.Config.Listen = f.Addr().String()
	if _, err := fleet.Listen(o); err == nil || !strings.Contains(err.Error(), "fleet.listen") {
		t.Errorf("Listen on a busy port = %v, want an error that names fleet.listen", err)
	}
	f.Close()
	again, err := fleet.Listen(o)
	if err != nil {
		t.Fatalf("Listen after Close: %v", err)
	}
	again.Close()
}

// TestUnspecifiedAddressIsLoopbackWithoutAKey: the default fleet.listen names no host.
func TestUnspecifiedAddressIsLoopbackWithoutAKey(t *testing.T) {
	for _, listen := range []string{":0", "0.0.0.0:0", "[::]:0"} {
		f, err := fleet.Listen(options("hub", fleet.Options{Config: config.Fleet{Listen: listen}, Hub: true, Data: t.TempDir()}))
		if err != nil {
			t.Fatal(err)
		}
		if !f.Addr().(*net.TCPAddr).IP.IsLoopback() {
			t.Errorf("fleet.listen %q without a key listens on %v", listen, f.Addr())
		}
		f.Close()
	}
}

// TestKeyedHubListensForAll: with a key fleet.listen may name no host.
func TestKeyedHubListensForAll(t *testing.T) {
	hub := start(t, "hub", fleet.Options{Config: keyed(config.Fleet{Listen: ":0"}), Hub: true, Data: t.TempDir()})
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(hub.Addr().(*net.TCPAddr).Port))
	leaf := start(t, "leaf", fleet.Options{Config: keyed(config.Fleet{Hub: []string{"127.0.0.1:1", at}})})
	eventually(t, "the leaf finds the hub that answers", func() bool { return leaf.Status().Connected })
}
