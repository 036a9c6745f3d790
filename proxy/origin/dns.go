package origin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	dnsTries   = 2               // rounds over all servers
	dnsTimeout = 2 * time.Second // of one question to one server
	dnsUDPSize = 1232            // DNS flag day 2020: fits every path unfragmented
)

// addresses asks for A and AAAA of an absolute name. A failed AAAA alone does not spoil the answer: there are
// servers that drop the question.
func (c resolvConf) addresses(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	var v4, v6 answer
	var err4, err6 error
	var wg sync.WaitGroup
	wg.Go(func() { v4, err4 = c.ask(ctx, name, dnsmessage.TypeA) })
	wg.Go(func() { v6, err6 = c.ask(ctx, name, dnsmessage.TypeAAAA) })
	wg.Wait()
	if err4 != nil && !errors.Is(err4, errNoName) {
		return nil, 0, err4
	}
	if len(v4.addrs) == 0 && len(v6.addrs) == 0 {
		return nil, 0, errors.Join(err4, err6)
	}
	both := answer{ttl: maxTTL}
	for _, a := range []answer{v4, v6} {
		if len(a.addrs) > 0 {
			both.addrs = append(both.addrs, a.addrs...)
			both.ttl = min(both.ttl, a.ttl)
		}
	}
	return both.addrs, both.ttl, nil
}

type answer struct {
	addrs []netip.Addr
	ttl   time.Duration // the least of the answer, aliases included
}

// ask puts one question to the servers in order until one answers. errNoName is an answer.
func (c resolvConf) ask(ctx context.Context, name string, qtype dnsmessage.Type) (answer, error) {
	var errs []error
	for range dnsTries {
		for _, server := range c.servers {
			a, err := exchangeDNS(ctx, server, name, qtype)
			if err == nil || errors.Is(err, errNoName) {
				return a, err
			}
			errs = append(errs, err)
			if ctx.Err() != nil {
				return answer{}, errors.Join(errs...)
			}
		}
	}
	return answer{}, errors.Join(errs...)
}

// exchangeDNS asks one server over UDP, and over TCP if the answer is cut off.
func exchangeDNS(ctx context.Context, server netip.AddrPort, name string, qtype dnsmessage.Type) (answer, error) {
	id := uint16(rand.Uint32())
	query, q, err := buildQuery(id, name, qtype)
	if err != nil {
		return answer{}, fmt.Errorf("resolve %s: %w", name, err)
	}
	a, err := overUDP(ctx, server, query, id, q)
	if errors.Is(err, errTruncated) {
		a, err = overTCP(ctx, server, query, id, q)
	}
	if err != nil {
		return answer{}, fmt.Errorf("resolve %s %s at %s: %w", name, strings.TrimPrefix(qtype.String(), "Type"), server, err)
	}
	return a, nil
}

func buildQuery(id uint16, name string, qtype dnsmessage.Type) ([]byte, dnsmessage.Question, error) {
	n, err := dnsmessage.NewName(name)
	if err != nil {
		return nil, dnsmessage.Question{}, err
	}
	q := dnsmessage.Question{Name: n, Type: qtype, Class: dnsmessage.ClassINET}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: true})
	var h dnsmessage.ResourceHeader
	err = errors.Join(b.StartQuestions(), b.Question(q), b.StartAdditionals(),
		h.SetEDNS0(dnsUDPSize, dnsmessage.RCodeSuccess, false), b.OPTResource(h, dnsmessage.OPTResource{}))
	if err != nil {
		return nil, q, err
	}
	msg, err := b.Finish()
	return msg, q, err
}

func dialDNS(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Timeout: dnsTimeout}
	c, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(dnsTimeout)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	if err := c.SetDeadline(deadline); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// overUDP takes the first datagram that answers the question; others are forged or late.
func overUDP(ctx context.Context, server netip.AddrPort, query []byte, id uint16, q dnsmessage.Question) (answer, error) {
	c, err := dialDNS(ctx, "udp", server)
	if err != nil {
		return answer{}, err
	}
	defer closeWith(ctx, c)()
	if _, err := c.Write(query); err != nil {
		return answer{}, err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return answer{}, err
		}
		if a, err := parseAnswer(buf[:n], id, q); !errors.Is(err, errNotOurs) {
			return a, err
		}
	}
}

// overTCP is RFC 7766: each message after its length.
func overTCP(ctx context.Context, server netip.AddrPort, query []byte, id uint16, q dnsmessage.Question) (answer, error) {
	c, err := dialDNS(ctx, "tcp", server)
	if err != nil {
		return answer{}, err
	}
	defer closeWith(ctx, c)()
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return answer{}, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return answer{}, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, msg); err != nil {
		return answer{}, err
	}
	a, err := parseAnswer(msg, id, q)
	if errors.Is(err, errTruncated) {
		return a, errors.New("answer cut off over TCP")
	}
	return a, err
}

// closeWith closes the connection when ctx ends, so that a read does not outlive it, or when the returned
// function is called.
func closeWith(ctx context.Context, c net.Conn) func() {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	return func() {
		stop()
		c.Close()
	}
}
