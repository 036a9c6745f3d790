package origin

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/nearzone/nearzone/config"
)

// sessionsKept is how many TLS sessions an origin's servers may resume.
const sessionsKept = 64

// material is what an origin's tls block comes to once its files are read.
type material struct {
	config *tls.Config       // without ServerName
	sum    [sha256.Size]byte // of the files: the same paths may hold new certificates
}

// readTLS reads the files of a tls block; one that is missing or broken is an error, never less security.
func readTLS(origin string, c config.OriginTLS) (material, error) {
	m := material{config: &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: !c.Verify,
		ClientSessionCache: tls.NewLRUClientSessionCache(sessionsKept),
	}}
	sum := sha256.New()
	read := func(key, path string) ([]byte, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("origins.%s.tls.%s: %w", origin, key, err)
		}
		sum.Write(b)
		return b, nil
	}
	if c.CA != "" {
		pem, err := read("ca", c.CA)
		if err != nil {
			return material{}, err
		}
		m.config.RootCAs = x509.NewCertPool()
		if !m.config.RootCAs.AppendCertsFromPEM(pem) {
			return material{}, fmt.Errorf("origins.%s.tls.ca: %s has no certificate in PEM form", origin, c.CA)
		}
	}
	if c.Cert != "" || c.Key != "" {
		cert, errCert := read("cert", c.Cert)
		key, errKey := read("key", c.Key)
		if err := errors.Join(errCert, errKey); err != nil {
			return material{}, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return material{}, fmt.Errorf("origins.%s.tls: certificate %s with key %s: %w", origin, c.Cert, c.Key, err)
		}
		m.config.Certificates = []tls.Certificate{pair}
	}
	copy(m.sum[:], sum.Sum(nil))
	return m, nil
}

// for server makes the configuration to speak to one server with.
func (m material) forServer(name string, protocols ...string) *tls.Config {
	c := m.config.Clone()
	c.ServerName, c.NextProtos = name, protocols
	return c
}

// explainTLS adds where to look to an error of a certificate that is not trusted.
func explainTLS(origin string, err error) error {
	if bad := (*tls.CertificateVerificationError)(nil); errors.As(err, &bad) {
		return fmt.Errorf("%w (see origins.%s.tls: server_name, ca, verify)", err, origin)
	}
	return err
}
