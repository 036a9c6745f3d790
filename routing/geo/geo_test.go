package geo_test

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
	"github.com/nearzone/nearzone/routing/geo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// city is a record of the MaxMind layout, with more in it than we read.
func city(lat, lon any) map[string]any {
	return map[string]any{
		"city":     map[string]any{"names": map[string]any{"en": "Somewhere"}},
		"country":  map[string]any{"iso_code": "US", "geoname_id": uint32(6252001)},
		"location": map[string]any{"accuracy_radius": uint16(20), "latitude": lat, "longitude": lon, "time_zone": "America/Los_Angeles"},
	}
}

// flat is a record as the DB-IP files of ip-location-db have it.
func flat(lat, lon any) map[string]any {
	return map[string]any{"city": "Somewhere", "country_code": "US", "latitude": lat, "longitude": lon}
}

// atlas is one file of each layout and some configured networks.
func atlas(t *testing.T) *geo.Locator {
	one := newMMDB(6, "GeoLite2-City")
	one.insert(prefix("192.0.2.0/24"), city(1.0, 101.0))
	one.insert(prefix("198.51.100.0/25"), city(2.0, 102.0))
	one.insert(prefix("10.0.0.0/8"), city(3.0, 103.0))
	one.insert(prefix("203.0.113.0/24"), map[string]any{"country": map[string]any{"iso_code": "US"}})
	one.insert(prefix("2001:db8::/32"), city(4.0, 104.0))
	one.insert(prefix("100.64.0.0/10"), city(0.0, 0.0))
	one.insert(prefix("172.16.0.0/12"), city(91.0, 0.0))
	two := newMMDB(4, "DBIP-City-Lite")
	two.insert(prefix("198.51.100.128/26"), flat(float32(5), float32(-105)))
	two.insert(prefix("192.0.2.0/24"), flat(float32(6), float32(-106)))
	l, err := geo.New([]config.GeoSource{
		{Prefix: prefix("10.20.0.0/16"), At: config.LatLon{Lat: 7, Lon: 107}},
		{File: one.write(t)}, {File: two.write(t)},
		{Prefix: prefix("10.20.30.0/24"), At: config.LatLon{Lat: 8, Lon: 108}},
		{Prefix: prefix("2001:db8:5::/48"), At: config.LatLon{Lat: 9, Lon: 109}},
		{Prefix: prefix("::ffff:192.168.1.0/120"), At: config.LatLon{Lat: 10, Lon: 110}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLocate(t *testing.T) {
	l := atlas(t)
	for _, c := range []struct {
		what, addr string
		lat        float64 // 0: not known
		lon        float64
		prefix     string
	}{
		{"in the first file", "192.0.2.7", 1, 101, "192.0.2.0/24"},
		{"mapped into IPv6", "::ffff:192.0.2.7", 1, 101, "192.0.2.0/24"},
		{"in the second file only", "198.51.100.129", 5, -105, "198.51.100.128/26"},
		{"in a half of a network", "198.51.100.1", 2, 102, "198.51.100.0/25"},
		{"configured", "10.20.1.1", 7, 107, "10.20.0.0/20"},
		{"configured inside configured", "10.20.30.1", 8, 108, "10.20.30.0/24"},
		{"around a configured network", "10.21.1.1", 3, 103, "10.21.0.0/16"},
		{"far from the configured network", "10.200.1.1", 3, 103, "10.128.0.0/9"},
		{"IPv6", "2001:db8:9::1", 4, 104, "2001:db8:8::/45"},
		{"IPv6, configured", "2001:db8:5::1", 9, 109, "2001:db8:5::/48"},
		{"configured as mapped", "192.168.1.1", 10, 110, "192.168.1.0/24"},
		{"a record without a place", "203.0.113.1", 0, 0, "203.0.113.0/24"},
		{"a place that is none", "172.16.1.1", 0, 0, "172.16.0.0/12"},
		{"not in any", "64.0.0.1", 0, 0, "64.0.0.0/3"},
	} {
		place, ok := l.Locate(addr(c.addr))
		if ok != (c.lat != 0) || place.At.Lat != c.lat || place.At.Lon != c.lon {
			t.Errorf("%s: %s is at %+v, %v; want %v,%v", c.what, c.addr, place.At, ok, c.lat, c.lon)
		}
		if !place.Prefix.Contains(addr(c.addr).Unmap()) {
			t.Errorf("%s: %v does not contain %s", c.what, place.Prefix, c.addr)
		}
		if c.what != "not in any" && place.Prefix != prefix(c.prefix) {
			t.Errorf("%s: %s is in %v, want %s", c.what, c.addr, place.Prefix, c.prefix)
		}
	}
	if place, ok := l.Locate(addr("100.64.0.1")); !ok || place.At != (config.LatLon{}) {
		t.Errorf("0,0 is a place: %+v, %v", place, ok)
	}
	if _, ok := l.Locate(netip.Addr{}); ok {
		t.Error("no address has a place")
	}
}

// Whoever is inside the prefix of a place is at that place.
func TestPrefixesAreUniform(t *testing.T) {
	l := atlas(t)
	for a := addr("10.20.0.0"); a.Less(addr("10.20.64.0")); a = step(a, 37) {
		place, ok := l.Locate(a)
		for b := place.Prefix.Addr(); place.Prefix.Contains(b) && place.Prefix.Bits() > 16; b = step(b, 101) {
			if other, found := l.Locate(b); found != ok || other != place {
				t.Fatalf("%v is at %+v, but %v inside is at %+v", a, place, b, other)
			}
		}
	}
}

func step(a netip.Addr, n int) netip.Addr {
	b := a.As4()
	v := int(b[1])<<16 | int(b[2])<<8 + int(b[3]) + n
	return netip.AddrFrom4([4]byte{b[0], byte(v >> 16), byte(v >> 8), byte(v)})
}

func TestNothingConfigured(t *testing.T) {
	l, err := geo.New(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if place, ok := l.Locate(addr("192.0.2.1")); ok || place != (routing.Place{}) {
		t.Errorf("%+v, %v", place, ok)
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	country := newMMDB(6, "GeoLite2-Country")
	country.insert(prefix("192.0.2.0/24"), map[string]any{"country": map[string]any{"iso_code": "US"}})
	garbage := filepath.Join(dir, "garbage.mmdb")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("nonsense"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := geo.New([]config.GeoSource{
		{File: filepath.Join(dir, "missing.mmdb")}, {File: garbage}, {File: country.write(t)}, {},
	}, nil)
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{`routing.geo[0]: open "`, "no such file", "routing.geo[1]: open", "routing.geo[2]: open", "a City database is needed", "routing.geo[3]: neither"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in:\n%v", part, err)
		}
	}
}

func TestOpenedFilesAreTold(t *testing.T) {
	var log bytes.Buffer
	db := newMMDB(6, "GeoLite2-City")
	db.insert(prefix("192.0.2.0/24"), city(1.0, 101.0))
	if _, err := geo.New([]config.GeoSource{{File: db.write(t)}}, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	if s := log.String(); !strings.Contains(s, "type=GeoLite2-City") || !strings.Contains(s, "built=2026-01-01") {
		t.Errorf("log: %s", s)
	}
}

// A file cut or changed anywhere may be refused or say less, but never panics.
func FuzzFile(f *testing.F) {
	db := newMMDB(6, "GeoLite2-City")
	db.insert(prefix("192.0.2.0/24"), city(1.0, 101.0))
	db.insert(prefix("2001:db8::/32"), flat(float32(5), float32(-105)))
	f.Add(db.bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		file := filepath.Join(t.TempDir(), "fuzz.mmdb")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := geo.New([]config.GeoSource{{File: file}}, nil)
		if err != nil {
			return
		}
		for _, a := range []string{"192.0.2.1", "2001:db8::1", "0.0.0.0", "ffff::"} {
			place, _ := l.Locate(addr(a))
			if place.Prefix.IsValid() && !place.Prefix.Contains(addr(a)) {
				t.Fatalf("%s is in %v", a, place.Prefix)
			}
		}
	})
}

func BenchmarkLocate(b *testing.B) {
	db := newMMDB(6, "GeoLite2-City")
	db.insert(prefix("192.0.2.0/24"), city(1.0, 101.0))
	file := filepath.Join(b.TempDir(), "bench.mmdb")
	if err := os.WriteFile(file, db.bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
	l, err := geo.New([]config.GeoSource{{File: file}, {Prefix: prefix("10.0.0.0/8")}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	a := addr("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := l.Locate(a); !ok {
			b.Fatal("not located")
		}
	}
}
