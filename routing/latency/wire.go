package latency

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"net/netip"
	"time"
)

// A digest is big-endian:
//
//	"NZL1"  node  epoch:8 seq:8  zones:1 {name}  entries:4 {entry}  CRC-32C of all before:4
//	name:   length:1 bytes
//	entry:  flags:1 zone:1 address:4|16 mean:4 n:4 age:4 [seen:4]
//
// mean is a float32 in ms and n a float32. age and seen are ms before the digest was made, so that the clocks of
// nodes need not agree. The address is that of the last client if flagClient is set, else the prefix's first.
const (
	magic      = "NZL1"
	flagV6     = 1
	flagClient = 2

	maxDigest = 256 << 10 // what Digest makes; a NATS message may be 1 MiB
	maxEntry  = 1 + 1 + 16 + 4 + 4 + 4 + 4
	minEntry  = 1 + 1 + 4 + 4 + 4 + 4
	maxName   = 64
	maxAge    = 7 * 24 * time.Hour
)

var (
	errDigest = errors.New("not a latency digest")
	errName   = fmt.Errorf("a name has 1 to %d printable ASCII characters and no space", maxName)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// digest is one decoded message.
type digest struct {
	node       string
	epoch, seq uint64
	zones      []string
	entries    []entry
}

// entry is the state of one cell of the sender.
type entry struct {
	zone      uint8
	addr      netip.Addr // of a client, or the first of the prefix
	client    bool
	mean, n   float64
	age, seen time.Duration
}

func validName(s string) bool {
	if len(s) == 0 || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// writer builds a digest; entries are added until it is full.
type writer struct {
	buf   []byte
	zones int
	count int // where the number of entries goes
	n     uint32
}

func newWriter(node string, epoch, seq uint64, zones []string) *writer {
	w := &writer{zones: len(zones), buf: append(make([]byte, 0, 4<<10), magic...)}
	w.name(node)
	w.buf = binary.BigEndian.AppendUint64(w.buf, epoch)
	w.buf = binary.BigEndian.AppendUint64(w.buf, seq)
	w.buf = append(w.buf, byte(len(zones)))
	for _, z := range zones {
		w.name(z)
	}
	w.count = len(w.buf)
	w.buf = append(w.buf, 0, 0, 0, 0)
	return w
}

func (w *writer) name(s string) { w.buf = append(append(w.buf, byte(len(s))), s...) }

func (w *writer) full() bool { return len(w.buf)+maxEntry+crc32.Size > maxDigest }

func (w *writer) entry(e entry) {
	var flags byte
	if e.addr.Is6() {
		flags |= flagV6
	}
	if e.client {
		flags |= flagClient
	}
	b := append(w.buf, flags, e.zone)
	b = append(b, e.addr.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, math.Float32bits(float32(e.mean)))
	b = binary.BigEndian.AppendUint32(b, math.Float32bits(float32(e.n)))
	b = binary.BigEndian.AppendUint32(b, ms32(e.age))
	if e.client {
		b = binary.BigEndian.AppendUint32(b, ms32(e.seen))
	}
	w.buf = b
	w.n++
}

func ms32(d time.Duration) uint32 {
	return uint32(min(max(d, 0), maxAge) / time.Millisecond)
}

func (w *writer) done() []byte {
	binary.BigEndian.PutUint32(w.buf[w.count:], w.n)
	return binary.BigEndian.AppendUint32(w.buf, crc32.Checksum(w.buf, castagnoli))
}

// reader takes a digest apart. The first thing wrong sticks in err, and what is read after it is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err == nil && len(r.b) < n {
		r.err = errors.New("cut short")
	}
	if r.err != nil {
		return make([]byte, n)
	}
	head := r.b[:n]
	r.b = r.b[n:]
	return head
}

func (r *reader) check(ok bool, what string) {
	if r.err == nil && !ok {
		r.err = errors.New(what)
	}
}

func (r *reader) u8() uint8      { return r.take(1)[0] }
func (r *reader) u32() uint32    { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64    { return binary.BigEndian.Uint64(r.take(8)) }
func (r *reader) float() float64 { return float64(math.Float32frombits(r.u32())) }

func (r *reader) name() string {
	s := string(r.take(int(r.u8())))
	r.check(validName(s), "a name that cannot be one")
	return s
}

func (r *reader) millis() time.Duration {
	d := time.Duration(r.u32()) * time.Millisecond
	r.check(d <= maxAge, "an age of more than a week")
	return d
}

// decode reads a digest. It is all or nothing, and allocates no more than a small multiple of len(b).
func decode(b []byte) (digest, error) {
	if len(b) > 2*maxDigest || len(b) < len(magic)+crc32.Size || string(b[:len(magic)]) != magic {
		return digest{}, errDigest
	}
	body, sum := b[:len(b)-crc32.Size], b[len(b)-crc32.Size:]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(sum) {
		return digest{}, fmt.Errorf("%w: wrong checksum", errDigest)
	}
	r := &reader{b: body[len(magic):]}
	d := digest{node: r.name(), epoch: r.u64(), seq: r.u64()}
	zones := r.u8()
	r.check(zones > 0 && zones <= maxZones, "too many zones, or none")
	for range zones {
		d.zones = append(d.zones, r.name())
	}
	count := r.u32()
	r.check(int64(count)*minEntry <= int64(len(r.b)), "more entries than bytes")
	for i := uint32(0); i < count && r.err == nil; i++ {
		d.entries = append(d.entries, r.entry(zones))
	}
	r.check(len(r.b) == 0, "bytes after the end")
	if r.err != nil {
		return digest{}, fmt.Errorf("%w: %w", errDigest, r.err)
	}
	return d, nil
}

func (r *reader) entry(zones uint8) entry {
	flags := r.u8()
	r.check(flags&^(flagV6|flagClient) == 0, "unknown flags")
	e := entry{zone: r.u8(), client: flags&flagClient != 0}
	r.check(e.zone < zones, "a zone that is not listed")
	size := 4
	if flags&flagV6 != 0 {
		size = 16
	}
	e.addr, _ = netip.AddrFromSlice(r.take(size))
	r.check(!e.addr.Is4In6() && (isClient(e.addr) || !e.client && !e.addr.IsMulticast()), "an address that is no client's")
	e.mean, e.n, e.age = r.float(), r.float(), r.millis()
	// Comparisons with NaN are false, so these refuse it too.
	r.check(e.mean > 0 && e.mean <= float64(MaxRTT/time.Millisecond), "an impossible round trip")
	r.check(e.n > 0 && e.n <= maxN, "an impossible number of samples")
	if e.client {
		e.seen = r.millis()
	}
	return e
}
