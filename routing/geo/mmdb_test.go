package geo_test

import (
	"encoding/binary"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// mmdb writes a small MaxMind DB file (maxmind.github.io/MaxMind-DB): a binary tree of 24-bit records over a data
// section. version is 4 or 6; in a tree of version 6, IPv4 is below ::/96.
type mmdb struct {
	version int
	kind    string
	nodes   [][2]int // 0: nothing; n > 0: node n; n < 0: data at -n-1
	data    []byte
}

func newMMDB(version int, kind string) *mmdb {
	return &mmdb{version: version, kind: kind, nodes: [][2]int{{}}}
}

func (m *mmdb) insert(p netip.Prefix, record any) {
	at := -len(m.data) - 1
	m.data = encode(m.data, record)
	addr, bits := p.Addr().AsSlice(), p.Bits()
	if m.version == 6 && len(addr) == 4 {
		addr, bits = append(make([]byte, 12), addr...), bits+96
	}
	node := 0
	for i := range bits {
		side := addr[i/8] >> (7 - i%8) & 1
		if i == bits-1 {
			m.nodes[node][side] = at
			return
		}
		if m.nodes[node][side] <= 0 {
			m.nodes = append(m.nodes, [2]int{m.nodes[node][side], m.nodes[node][side]})
			m.nodes[node][side] = len(m.nodes) - 1
		}
		node = m.nodes[node][side]
	}
}

func (m *mmdb) bytes() []byte {
	var b []byte
	for _, node := range m.nodes {
		for _, r := range node {
			switch {
			case r == 0:
				r = len(m.nodes)
			case r < 0:
				r = len(m.nodes) + 16 - r - 1
			}
			b = append(b, byte(r>>16), byte(r>>8), byte(r))
		}
	}
	b = append(append(b, make([]byte, 16)...), m.data...)
	b = append(b, "\xab\xcd\xefMaxMind.com"...)
	return encode(b, map[string]any{
		"binary_format_major_version": uint16(2), "binary_format_minor_version": uint16(0),
		"build_epoch": uint64(1767225600), "database_type": m.kind, "description": map[string]any{"en": "test"},
		"ip_version": uint16(m.version), "languages": []any{"en"}, "node_count": uint32(len(m.nodes)), "record_size": uint16(24),
	})
}

func (m *mmdb) write(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), m.kind+".mmdb")
	if err := os.WriteFile(file, m.bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// encode appends a value as the data section has it. Sizes stay below 29.
func encode(b []byte, v any) []byte {
	control := func(kind, size int) {
		if kind > 7 {
			b = append(b, byte(size), byte(kind-7))
			return
		}
		b = append(b, byte(kind<<5|size))
	}
	switch v := v.(type) {
	case string:
		control(2, len(v))
		b = append(b, v...)
	case float64:
		control(3, 8)
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(v))
	case float32:
		control(15, 4)
		b = binary.BigEndian.AppendUint32(b, math.Float32bits(v))
	case uint16:
		control(5, 2)
		b = binary.BigEndian.AppendUint16(b, v)
	case uint32:
		control(6, 4)
		b = binary.BigEndian.AppendUint32(b, v)
	case uint64:
		control(9, 8)
		b = binary.BigEndian.AppendUint64(b, v)
	case []any:
		control(11, len(v))
		for _, e := range v {
			b = encode(b, e)
		}
	case map[string]any:
		control(7, len(v))
		var keys []string
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			b = encode(encode(b, k), v[k])
		}
	}
	return b
}
