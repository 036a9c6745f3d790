package certs

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/nearzone/nearzone/config"
)

// pair is one certificate with its key, from files; immutable.
type pair struct {
	files config.Certificate
	cert  *tls.Certificate
	stamp stamp
}

// stamp tells when a pair's files were last changed, without reading them.
type stamp struct{ cert, key fileStamp }

type fileStamp struct {
	changed time.Time
	size    int64
}

func readPairs(list []config.Certificate) ([]*pair, error) {
	var pairs []*pair
	for i, files := range list {
		p, err := readPair(files)
		if err != nil {
			return nil, wrapKey(i, err)
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}

// readPair takes the stamp first: a file that changes while it is read is read again at the next look.
func readPair(files config.Certificate) (*pair, error) {
	s, err := stampOf(files)
	if err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %q with key %q: %w", files.Cert, files.Key, err)
	}
	p := &pair{files: files, cert: &cert, stamp: s}
	if len(p.names()) == 0 {
		return nil, fmt.Errorf("certificate %q: it names no host (subject alternative names are needed)", files.Cert)
	}
	return p, nil
}

func stampOf(files config.Certificate) (stamp, error) {
	cert, err := os.Stat(files.Cert)
	if err != nil {
		return stamp{}, fmt.Errorf("certificate: %w", err)
	}
	key, err := os.Stat(files.Key)
	if err != nil {
		return stamp{}, fmt.Errorf("key: %w", err)
	}
	return stamp{fileStamp{cert.ModTime(), cert.Size()}, fileStamp{key.ModTime(), key.Size()}}, nil
}

// refresh is p itself unless its files have changed. With an error it is the old certificate under the new stamp, so
// that the error is told once.
func (p *pair) refresh() (*pair, error) {
	s, err := stampOf(p.files)
	if s == p.stamp {
		return p, nil
	}
	var next *pair
	if err == nil {
		next, err = readPair(p.files)
	}
	if err != nil {
		return &pair{files: p.files, cert: p.cert, stamp: s}, err
	}
	return next, nil
}

// names are what a ClientHello may ask for. Clients send no SNI for an address (RFC 6066 section 3), and a
// certificate for addresses alone is still a default.
func (p *pair) names() []string {
	leaf := p.cert.Leaf
	names := make([]string, 0, len(leaf.DNSNames)+len(leaf.IPAddresses))
	for _, n := range leaf.DNSNames {
		names = append(names, strings.ToLower(n))
	}
	for _, ip := range leaf.IPAddresses {
		names = append(names, net.IP.String(ip))
	}
	return names
}
