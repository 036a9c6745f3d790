package origin

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

var (
	errTruncated = errors.New("answer cut off")
	errNotOurs   = errors.New("not an answer to this question")
)

// parseAnswer reads what a name server sent. Anything may have come.
func parseAnswer(msg []byte, id uint16, q dnsmessage.Question) (answer, error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.ID != id || !h.Response {
		return answer{}, errNotOurs
	}
	got, err := p.Question()
	if err != nil || !sameQuestion(got, q) {
		return answer{}, errNotOurs
	}
	if err := p.SkipAllQuestions(); err != nil {
		return answer{}, err
	}
	switch {
	case h.RCode == dnsmessage.RCodeNameError:
		return answer{}, errNoName
	case h.RCode != dnsmessage.RCodeSuccess:
		return answer{}, fmt.Errorf("answered %s", strings.TrimPrefix(h.RCode.String(), "RCode"))
	case h.Truncated:
		return answer{}, errTruncated
	}
	a, err := readAddresses(&p)
	if err == nil && len(a.addrs) == 0 {
		err = errNoName
	}
	return a, err
}

func sameQuestion(a, b dnsmessage.Question) bool {
	return a.Type == b.Type && a.Class == b.Class && strings.EqualFold(a.Name.String(), b.Name.String())
}

// readAddresses takes the addresses of the answer section. The server has followed the aliases; their TTLs
// count too.
func readAddresses(p *dnsmessage.Parser) (answer, error) {
	a := answer{ttl: maxTTL}
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return a, nil
		}
		if err != nil {
			return answer{}, err
		}
		addr, err := readAddress(p, h)
		if err != nil {
			return answer{}, err
		}
		if addr.IsValid() {
			a.addrs = append(a.addrs, addr)
		}
		a.ttl = min(a.ttl, time.Duration(h.TTL)*time.Second)
	}
}

// readAddress is the address that a record holds, the zero Addr for records of other kinds.
func readAddress(p *dnsmessage.Parser, h dnsmessage.ResourceHeader) (netip.Addr, error) {
	switch h.Type {
	case dnsmessage.TypeA:
		r, err := p.AResource()
		return netip.AddrFrom4(r.A), err
	case dnsmessage.TypeAAAA:
		r, err := p.AAAAResource()
		return netip.AddrFrom16(r.AAAA).Unmap(), err
	}
	return netip.Addr{}, p.SkipAnswer()
}
