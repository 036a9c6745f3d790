package fleet

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// The fleet's key is one secret that every node has. All trust comes from it by derivation: an Ed25519 authority,
// which signs a short-lived certificate that each node makes for itself in memory. Whoever has the key is of the
// fleet; whoever has not gets no further than the handshake.
//
// A peer without the key can still ask for a certificate and try keys against it at leisure, so that a key must be
// random: `openssl rand -base64 32`.
const (
	minKey     = 16
	trustName  = "fleet.nearzone.internal"
	trustSalt  = "nearzone fleet authority v1"
	certLife   = 7 * 24 * time.Hour
	certBefore = 48 * time.Hour // clocks of nodes differ, by hours when NTP is broken
)

// authority signs the certificates of one fleet.
type authority struct {
	key  ed25519.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

// newAuthority derives the authority: the same on every node that has the same secret.
func newAuthority(secret string) (*authority, error) {
	if len(secret) < minKey {
		return nil, fmt.Errorf("fleet.key is %d bytes long: want at least %d, made by `openssl rand -base64 32`", len(secret), minKey)
	}
	seed, err := hkdf.Key(sha256.New, []byte(secret), []byte(trustSalt), "ed25519 seed", ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("derive the fleet's authority: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "nearzone fleet"},
		NotBefore:             time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{key: key, cert: cert, pool: pool}, nil
}

// issue makes a certificate for one node, good on both ends of a link.
func (a *authority) issue(node string, now time.Time) (*tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the fleet key of this node: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make the fleet certificate of this node: %w", err)
	}
	cert, err := sign(&x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: node},
		DNSNames:     []string{trustName},
		NotBefore:    now.Add(-certBefore),
		NotAfter:     now.Add(certLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, public, a.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: private, Leaf: cert}, nil
}

func sign(template, parent *x509.Certificate, public any, key ed25519.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign a fleet certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("sign a fleet certificate: %w", err)
	}
	return cert, nil
}

// identity is this node's certificate, made anew when half of its life is over.
type identity struct {
	authority *authority
	node      string

	mu   sync.Mutex // guards cert
	cert *tls.Certificate
}

func (i *identity) current() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	if i.cert != nil && now.Add(certLife/2).Before(i.cert.Leaf.NotAfter) {
		return i.cert, nil
	}
	cert, err := i.authority.issue(i.node, now)
	if err != nil {
		return nil, err
	}
	i.cert = cert
	return cert, nil
}

// tlsConfig serves both ends of a link: each proves that it has the key and asks the other to.
func (i *identity) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: trustName,
		RootCAs:    i.authority.pool,
		ClientCAs:  i.authority.pool,
		ClientAuth: tls.RequireAndVerifyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return i.current()
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return i.current()
		},
		// A resumed session would outlive a key that was changed.
		SessionTicketsDisabled: true,
	}
}
