// Package geo says where addresses are: first by networks given in the configuration, then by MMDB files.
//
// A file may have MaxMind's City layout (`location.latitude`), which DB-IP and others share, or latitude and
// longitude at the top of each record. It is mapped into memory: replace it by renaming a new file over it, never by
// writing into it, and reload.
//
//	l, err := geo.New(cfg.Routing.Geo, log)
//	place, ok := l.Locate(netip.MustParseAddr("198.51.100.7"))
package geo

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"

	"github.com/gaissmai/bart"
	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/routing"
)

// Locator knows places. It is never changed, and safe for concurrent use.
type Locator struct {
	static bart.Table[network]
	files  []*maxminddb.Reader
}

// network is one configured prefix.
type network struct {
	prefix netip.Prefix
	at     config.LatLon
	split  bool // a smaller configured network is inside
}

var errNoPlaces = errors.New("no coordinates in it: a City database is needed, not a Country or ASN one")

// New opens the sources, all or none. A static prefix given twice keeps its last place.
func New(sources []config.GeoSource, log *slog.Logger) (*Locator, error) {
	l := &Locator{}
	var problems []error
	for i, s := range sources {
		if s.File == "" {
			p := unmapped(s.Prefix)
			if !p.IsValid() {
				problems = append(problems, fmt.Errorf("routing.geo[%d]: neither file nor prefix", i))
				continue
			}
			l.static.Insert(p, network{prefix: p, at: s.At})
			continue
		}
		db, err := open(s.File)
		if err != nil {
			problems = append(problems, fmt.Errorf("routing.geo[%d]: open %q: %w", i, s.File, err))
			continue
		}
		l.files = append(l.files, db)
		if log != nil {
			log.Info("geography file opened", "file", s.File, "type", db.Metadata.DatabaseType, "built", db.Metadata.BuildTime())
		}
	}
	l.markSplit()
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return l, nil
}

func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

// markSplit notes which networks are not uniform, to keep Locate quick for those that are.
func (l *Locator) markSplit() {
	var split []netip.Prefix
	for p := range l.static.All() {
		for q := range l.static.Supernets(p) {
			if q != p {
				split = append(split, q)
			}
		}
	}
	for _, q := range split {
		l.static.Modify(q, func(n network, _ bool) (network, bool) {
			n.split = true
			return n, false
		})
	}
}

// open opens a file and makes sure that there are places in it.
func open(file string) (*maxminddb.Reader, error) {
	db, err := maxminddb.Open(file)
	if err != nil {
		return nil, err
	}
	// In a City database nearly each network has a place. The gaps between them are counted too, so that a broken
	// tree is not walked for ever.
	const enough = 10_000
	seen := 0
	for result := range db.Networks(maxminddb.IncludeNetworksWithoutData()) {
		if _, ok := place(result); ok {
			return db, nil
		}
		if err = result.Err(); err != nil {
			break
		}
		if seen++; seen == enough {
			break
		}
	}
	db.Close()
	if err == nil {
		err = errNoPlaces
	}
	return nil, err
}

// record has both layouts.
type record struct {
	Location struct {
		Latitude  float64 `maxminddb:"latitude"`
		Longitude float64 `maxminddb:"longitude"`
	} `maxminddb:"location"`
	Latitude  float64 `maxminddb:"latitude"`
	Longitude float64 `maxminddb:"longitude"`
}

// place is the coordinates of a record, if it has any that are on Earth.
func place(result maxminddb.Result) (config.LatLon, bool) {
	if !result.Found() {
		return config.LatLon{}, false
	}
	var r record
	nan := math.NaN() // what a record does not have stays so: 0,0 is a place
	r.Latitude, r.Longitude, r.Location.Latitude, r.Location.Longitude = nan, nan, nan, nan
	if result.Decode(&r) != nil {
		return config.LatLon{}, false
	}
	for _, at := range [...]config.LatLon{{Lat: r.Location.Latitude, Lon: r.Location.Longitude}, {Lat: r.Latitude, Lon: r.Longitude}} {
		if math.Abs(at.Lat) <= 90 && math.Abs(at.Lon) <= 180 {
			return at, true
		}
	}
	return config.LatLon{}, false
}

// Locate is where addr is. The prefix it returns is the widest network around addr for which the answer is the
// same, and is valid even if no source has the address, as long as there is any source.
func (l *Locator) Locate(addr netip.Addr) (routing.Place, bool) {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() || l.static.Size() == 0 && len(l.files) == 0 {
		return routing.Place{}, false
	}
	if n, ok := l.static.Lookup(addr); ok {
		bits := n.prefix.Bits()
		if n.split {
			bits = l.uniform(addr, bits, n.prefix)
		}
		return routing.Place{At: n.at, Prefix: around(addr, bits)}, true
	}
	at, bits, found := l.inFiles(addr)
	if l.static.Size() > 0 {
		bits = l.uniform(addr, bits, netip.Prefix{})
	}
	return routing.Place{At: at, Prefix: around(addr, bits)}, found
}

// inFiles asks the files in turn. bits is the length of the network for which all that were asked say the same.
func (l *Locator) inFiles(addr netip.Addr) (at config.LatLon, bits int, found bool) {
	for _, db := range l.files {
		result := db.Lookup(addr)
		if result.Err() != nil {
			continue
		}
		if p := result.Prefix(); p.Addr().Is4() == addr.Is4() { // else IPv4 is one network in an IPv6 tree
			bits = max(bits, p.Bits())
		}
		if at, found = place(result); found {
			return at, bits, true
		}
	}
	return config.LatLon{}, bits, false
}

// around is the network of so many bits that addr is in.
func around(addr netip.Addr, bits int) netip.Prefix {
	p, _ := addr.Prefix(bits) // bits come from prefixes of addr's family
	return p
}

// uniform is the length of the widest network around addr, from bits on, with no configured network inside but
// except, whose place addr has. What has none inside has none when narrowed, so halving finds it.
func (l *Locator) uniform(addr netip.Addr, bits int, except netip.Prefix) int {
	low, high := bits, addr.BitLen()
	for low < high {
		if mid := (low + high) / 2; l.holds(around(addr, mid), except) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

func (l *Locator) holds(p, except netip.Prefix) bool {
	for q := range l.static.Subnets(p) {
		if q != except {
			return true
		}
	}
	return false
}
