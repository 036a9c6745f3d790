package dnsserver

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime/debug"

	"github.com/miekg/dns"
)

// maxUDP is the largest answer over UDP, and what we say we take: it passes every path without fragments
// (DNS flag day 2020). It bounds what a forged source can have sent to a victim.
const maxUDP = 1232

// respond answers one packet. The answer may be in buf; it is nil when there is none to give.
//
// from is the resolver's address, without zone and unmapped.
func (s *Server) respond(pkt []byte, from netip.Addr, via transport, buf []byte) (out []byte) {
	defer func() {
		if fault := recover(); fault != nil {
			out = s.panicked(fault, pkt, buf)
		}
	}()
	q, f := parse(pkt)
	if f != faultNone {
		s.metrics.malformed.WithLabelValues(f.String()).Inc()
	}
	if f == faultShort || f == faultResponse {
		return nil
	}
	msg := newReply(&q)
	network, tailored := netip.Prefix{}, false
	if msg.Rcode = refusal(&q, f); msg.Rcode == dns.RcodeSuccess {
		l := lookup{data: s.data.Load(), answer: s.deps.Answer, q: &q, client: q.subnet.client(from), msg: msg}
		l.run()
		network, tailored = l.scope, l.tailored
		if l.steeredOK {
			s.metrics.steeredTo(&l.steered)
		}
	}
	if q.edns {
		scope := 0 // what does not depend on the client (RFC 7871 §7.4)
		if tailored {
			scope = q.subnet.scope(network, from)
		}
		msg.Extra = append(msg.Extra, newOPT(&q, scope))
	}
	s.metrics.answered(&q, msg.Rcode, via)
	return s.pack(msg, limit(&q, via), buf)
}

// refusal is the RCODE of what we do not even look up.
func refusal(q *query, f fault) int {
	switch {
	case f != faultNone:
		return dns.RcodeFormatError
	case q.opcode != dns.OpcodeQuery:
		return dns.RcodeNotImplemented
	case q.edns && q.version != 0:
		return dns.RcodeBadVers
	case q.class != dns.ClassINET: // CHAOS would tell strangers about us
		return dns.RcodeRefused
	}
	return unasked(q.typ)
}

// unasked refuses the types that are not of records (RFC 6895 §3.1): transfers, and what belongs to the message.
func unasked(typ uint16) int {
	switch {
	case typ == dns.TypeAXFR || typ == dns.TypeIXFR:
		return dns.RcodeRefused
	case typ == dns.TypeOPT:
		return dns.RcodeFormatError
	case typ >= 128 && typ <= 254:
		return dns.RcodeNotImplemented
	}
	return dns.RcodeSuccess
}

func newReply(q *query) *dns.Msg {
	msg := &dns.Msg{MsgHdr: dns.MsgHdr{
		Id: q.id, Response: true, Opcode: q.opcode, RecursionDesired: q.rd, CheckingDisabled: q.cd,
	}}
	if q.asked {
		msg.Question = []dns.Question{{Name: q.name, Qtype: q.typ, Qclass: q.class}}
	}
	return msg
}

// newOPT is our side of EDNS. The client's subnet is in every answer to a query that had one, or the resolver
// would think that we do not know the option (RFC 7871 §12.1).
func newOPT(q *query, scope int) *dns.OPT {
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT, Class: maxUDP}}
	if q.do {
		opt.SetDo()
	}
	if q.subnet.present {
		opt.Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: q.subnet.echo(scope)}}
	}
	return opt
}

// limit is how large the answer may be (RFC 6891 §6.2.3).
func limit(q *query, via transport) int {
	switch {
	case via == overTCP:
		return dns.MaxMsgSize
	case q.edns:
		return min(max(q.size, dns.MinMsgSize), maxUDP)
	}
	return dns.MinMsgSize
}

// pack writes the message, cut to size with TC set. One that cannot be written becomes SERVFAIL.
func (s *Server) pack(msg *dns.Msg, size int, buf []byte) []byte {
	msg.Truncate(size)
	if msg.Truncated {
		s.metrics.truncated.Inc()
	}
	msg.Compress = true
	out, err := msg.PackBuffer(buf)
	if err == nil {
		return out
	}
	s.log.Error("answer cannot be packed", "question", msg.Question, "err", err)
	return failed(msg.Id, msg.Opcode, buf)
}

// failed is SERVFAIL and nothing else.
func failed(id uint16, opcode int, buf []byte) []byte {
	msg := &dns.Msg{MsgHdr: dns.MsgHdr{Id: id, Response: true, Opcode: opcode, Rcode: dns.RcodeServerFailure}}
	out, _ := msg.PackBuffer(buf) // a header alone always packs
	return out
}

// panicked keeps a fault of ours from ending the process, and with it every connection of the proxy: whoever found the
// packet that brings it out would send it again. It costs that answer alone.
func (s *Server) panicked(fault any, pkt, buf []byte) []byte {
	s.metrics.panics.Inc()
	s.panicLog.Do(func() {
		s.log.Error("panic while answering dns; please report it", "panic", fault, "packet", fmt.Sprintf("%x", pkt), "stack", string(debug.Stack()))
	})
	if len(pkt) < headerLen {
		return nil
	}
	return failed(binary.BigEndian.Uint16(pkt), int(pkt[2]>>3)&0xF, buf)
}
