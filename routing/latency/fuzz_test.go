package latency_test

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"testing"
	"time"

	"github.com/nearzone/nearzone/routing"
	"github.com/nearzone/nearzone/routing/latency"
)

// FuzzMerge gives bytes a sound checksum, so that what is behind it is reached, and demands that whatever is taken
// leaves estimates that can be believed.
func FuzzMerge(f *testing.F) {
	c := newClock()
	good := sample(c)
	f.Add(good[:len(good)-4])
	f.Add([]byte("NZL1"))
	f.Add([]byte{})
	for i := range good[:len(good)-4] {
		b := append([]byte(nil), good[:len(good)-4]...)
		b[i] = 0xff
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e := node(newClock(), phx, "b")
		if e.Merge(b) == nil && len(b) < 20 {
			t.Fatalf("%x is taken", b)
		}
		b = binary.BigEndian.AppendUint32(b[:len(b):len(b)], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		if e.Merge(b) != nil {
			if n := len(e.Estimates()); n != 0 {
				t.Fatalf("a refused digest left %d prefixes", n)
			}
			return
		}
		for _, p := range e.Estimates() {
			if !p.Prefix.IsValid() || p.Prefix != routing.PrefixOf(p.Prefix.Addr()) {
				t.Fatalf("prefix %v", p.Prefix)
			}
			for _, m := range p.Zones {
				if !(m.Mean > 0 && m.Mean <= 1e4 && m.N > 0 && m.N <= 20) || m.Zone == "" {
					t.Fatalf("measured %+v", m)
				}
			}
		}
		for _, target := range e.Targets() {
			if !target.Client.IsValid() || target.Client.IsMulticast() || target.Client.IsUnspecified() || math.IsNaN(target.N) {
				t.Fatalf("target %+v", target)
			}
		}
	})
}

// TestHostileDigests are forged with care: the checksum is right, one thing is not.
func TestHostileDigests(t *testing.T) {
	c := newClock()
	a := node(c, lax, "a")
	a.Observe(addr("192.0.2.7"), 8*ms, routing.TCP)
	good := a.Digest()
	good = good[:len(good)-4]
	entry := len(good) - (1 + 1 + 4 + 4 + 4 + 4 + 4) // flags zone addr mean n age seen
	change := func(at int, with ...byte) []byte {
		b := append([]byte(nil), good...)
		copy(b[at:], with)
		return b
	}
	float := func(at int, f float32) []byte {
		return change(at, binary.BigEndian.AppendUint32(nil, math.Float32bits(f))...)
	}
	nan := float32(math.NaN())
	week := binary.BigEndian.AppendUint32(nil, uint32(8*24*time.Hour/time.Millisecond))
	for what, b := range map[string][]byte{
		"flags":              change(entry, 0x80),
		"zone not listed":    change(entry+1, 1),
		"multicast client":   change(entry+2, 224, 0, 0, 1),
		"no client":          change(entry+2, 0, 0, 0, 0),
		"negative mean":      float(entry+6, -1),
		"mean NaN":           float(entry+6, nan),
		"mean infinite":      float(entry+6, float32(math.Inf(1))),
		"no samples":         float(entry+10, 0),
		"too many samples":   float(entry+10, 21),
		"samples NaN":        float(entry+10, nan),
		"too old":            change(entry+14, week...),
		"client too old":     change(entry+18, week...),
		"four thousand more": change(entry-2, 0x10, 0),
		"one more":           change(entry-1, 2),
		"one less":           change(entry-1, 0),
		"empty node":         change(4, 0),
		"node with control":  change(5, 7),
		"other version":      change(3, '2'),
		"bytes after":        append(change(0), 0),
	} {
		e := node(c, phx, "b")
		b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		if e.Merge(b) == nil {
			t.Errorf("%s: taken", what)
		}
		if n := len(e.Estimates()); n != 0 {
			t.Errorf("%s: %d prefixes", what, n)
		}
	}
}

func FuzzReply(f *testing.F) {
	nonce := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	f.Add(append([]byte{0, 0, 0, 0, 0, 1, 0, 9}, nonce[:]...), false)
	f.Add(append([]byte{129, 0, 0, 0, 0, 1, 0, 9}, nonce[:]...), true)
	f.Add(append([]byte{8, 0, 0, 0, 0, 1, 0, 9}, nonce[:]...), false)
	f.Add([]byte{0}, false)
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		want := byte(0)
		if v6 {
			want = 129
		}
		seq, ok := latency.ParseReply(v6, nonce, b)
		if ok && (len(b) != 16 || b[0] != want || seq != binary.BigEndian.Uint16(b[6:]) || string(b[8:]) != string(nonce[:])) {
			t.Fatalf("%x is a reply with sequence number %d", b, seq)
		}
	})
}
