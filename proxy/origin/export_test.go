package origin

import (
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// SetIdle shortens timeouts.idle of a pool that is not used yet.
func (p *Pool) SetIdle(d time.Duration) { p.cfg.Timeouts.Idle = d }

// Forbidden is forbidden.
func Forbidden(addr netip.Addr) string { return forbidden(addr) }

// ParseAnswer is parseAnswer for a question about a.example.
func ParseAnswer(msg []byte, id uint16) ([]netip.Addr, time.Duration, error) {
	a, err := parseAnswer(msg, id, dnsmessage.Question{
		Name: dnsmessage.MustNewName("a.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET,
	})
	return a.addrs, a.ttl, err
}
