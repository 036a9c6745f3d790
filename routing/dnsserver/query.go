package dnsserver

import (
	"encoding/binary"
	"strings"

	"github.com/miekg/dns"
)

// query is what one packet asks, read straight from the wire: [dns.Msg] forgets how long a client subnet was.
type query struct {
	id     uint16
	opcode int
	rd, cd bool

	asked bool   // the question below could be read
	name  string // as asked, with its case, in presentation form
	lower string
	typ   uint16
	class uint16

	edns    bool // what follows is from the OPT record
	size    int
	version uint8
	do      bool
	subnet  subnet
}

// fault is what is wrong with a packet. All but the first two are answered with FORMERR.
type fault uint8

const (
	faultNone     fault = iota
	faultShort          // no whole header: dropped
	faultResponse       // not a query: dropped, or two servers could answer each other for ever
	faultQuestion       // not exactly one well-formed question
	faultRecord         // a record that does not end where it should
	faultEDNS           // OPT twice, not at the root, misplaced, or options that do not add up (RFC 6891 §6.1)
	faultSubnet         // a client subnet that is not as RFC 7871 §6 says
)

var faultNames = [...]string{"none", "short", "response", "question", "record", "edns", "subnet"}

func (f fault) String() string { return faultNames[f] }

const headerLen = 12

// parse reads a packet as far as it is well-formed. What was read before a fault is in the query.
func parse(pkt []byte) (q query, f fault) {
	if len(pkt) < headerLen {
		return q, faultShort
	}
	bits := binary.BigEndian.Uint16(pkt[2:])
	if bits&(1<<15) != 0 {
		return q, faultResponse
	}
	q.id = binary.BigEndian.Uint16(pkt)
	q.opcode = int(bits>>11) & 0xF
	q.rd, q.cd = bits&(1<<8) != 0, bits&(1<<4) != 0
	if q.opcode != dns.OpcodeQuery {
		return q, faultNone // what the sections mean is up to the opcode
	}
	off, ok := q.question(pkt)
	if !ok {
		return q, faultQuestion
	}
	return q, q.records(pkt, off)
}

// question reads the one question (RFC 9619). A name at the beginning of a message has nothing to point back
// to, so compression is malformed there.
func (q *query) question(pkt []byte) (off int, ok bool) {
	if binary.BigEndian.Uint16(pkt[4:]) != 1 {
		return 0, false
	}
	end, pointer, ok := skipName(pkt, headerLen)
	if !ok || pointer || len(pkt) < end+4 {
		return 0, false
	}
	name, _, err := dns.UnpackDomainName(pkt[:end], headerLen)
	if err != nil {
		return 0, false
	}
	q.asked, q.name, q.lower = true, name, strings.ToLower(name)
	q.typ = binary.BigEndian.Uint16(pkt[end:])
	q.class = binary.BigEndian.Uint16(pkt[end+2:])
	return end + 4, true
}

// records walks the other sections for the OPT record. Bytes after the last record are ignored.
func (q *query) records(pkt []byte, off int) fault {
	other := int(binary.BigEndian.Uint16(pkt[6:])) + int(binary.BigEndian.Uint16(pkt[8:]))
	total := other + int(binary.BigEndian.Uint16(pkt[10:]))
	for i := range total {
		start := off
		end, _, ok := skipName(pkt, off)
		if !ok || len(pkt) < end+10 {
			return faultRecord
		}
		head := pkt[end : end+10]
		off = end + 10 + int(binary.BigEndian.Uint16(head[8:]))
		if off > len(pkt) {
			return faultRecord
		}
		if binary.BigEndian.Uint16(head) != dns.TypeOPT {
			continue
		}
		if i < other || q.edns || pkt[start] != 0 {
			return faultEDNS
		}
		if f := q.opt(head, pkt[end+10:off]); f != faultNone {
			return f
		}
	}
	return faultNone
}

// opt reads the OPT record: its head from the type on, and its options.
func (q *query) opt(head, options []byte) fault {
	q.edns = true
	q.size = int(binary.BigEndian.Uint16(head[2:]))
	q.version = head[5]
	q.do = head[6]&0x80 != 0
	if q.version != 0 {
		return faultNone // it will be BADVERS; what its options look like we cannot know
	}
	for len(options) > 0 {
		if len(options) < 4 {
			return faultEDNS
		}
		code, n := binary.BigEndian.Uint16(options), int(binary.BigEndian.Uint16(options[2:]))
		if len(options) < 4+n {
			return faultEDNS
		}
		if code == dns.EDNS0SUBNET {
			if f := q.clientSubnet(options[4 : 4+n]); f != faultNone {
				return f
			}
		}
		options = options[4+n:]
	}
	return faultNone
}

func (q *query) clientSubnet(data []byte) fault {
	s, ok := parseSubnet(data)
	if !ok || q.subnet.present {
		q.subnet = subnet{}
		return faultSubnet
	}
	q.subnet = s
	return faultNone
}

// skipName finds the end of a name without following pointers, so that it takes no longer than the name.
func skipName(pkt []byte, off int) (end int, pointer, ok bool) {
	for off < len(pkt) {
		switch c := pkt[off]; c & 0xC0 {
		case 0x00:
			off++
			if c == 0 {
				return off, false, true
			}
			off += int(c)
		case 0xC0:
			return off + 2, true, off+2 <= len(pkt)
		default: // reserved (RFC 6891 §5)
			return 0, false, false
		}
	}
	return 0, false, false
}
