package localzone

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nearzone/nearzone/config"
)

//go:embed zones.csv
var zonesCSV string

//go:embed regions.csv
var regionsCSV string

// commonMTU is what AWS documents for most zones' packets to the Region; a larger guess would lose packets.
const commonMTU = 1300

type catalogue struct {
	entries []Entry // sorted by name
	byName  map[string]int
}

// The files are part of the program, so a bad row is a broken build: it panics, and the tests load it.
var loaded = sync.OnceValue(func() catalogue {
	c := catalogue{byName: map[string]int{}}
	for _, row := range table(regionsCSV, "name,metro,country,lat,lon") {
		c.entries = append(c.entries, row.region())
	}
	for _, row := range table(zonesCSV, "name,id,metro,country,parent,parent_zone_id,lat,lon,km,floor_ms,ipv6,mtu,status") {
		c.entries = append(c.entries, row.zone())
	}
	slices.SortFunc(c.entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	for i, e := range c.entries {
		if _, twice := c.byName[e.Name]; twice {
			panic("localzone: " + e.Name + " is twice in the catalogue")
		}
		c.byName[e.Name] = i
	}
	return c
})

// Catalogue lists all Local Zones and Regions we know, sorted by name. The slice is the caller's.
func Catalogue() []Entry { return slices.Clone(loaded().entries) }

// Lookup finds a Local Zone or a Region by name.
func Lookup(name string) (Entry, bool) {
	c := loaded()
	i, ok := c.byName[name]
	if !ok {
		return Entry{}, false
	}
	return c.entries[i], true
}

// row is one line of a table, by column.
type row map[string]string

func table(text, header string) []row {
	lines, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		panic(fmt.Sprintf("localzone: catalogue: %v", err))
	}
	if got := strings.Join(lines[0], ","); got != header {
		panic("localzone: catalogue: unexpected columns " + got)
	}
	rows := make([]row, 0, len(lines)-1)
	for _, line := range lines[1:] {
		r := row{}
		for i, column := range lines[0] {
			r[column] = line[i]
		}
		rows = append(rows, r)
	}
	return rows
}

func (r row) region() Entry {
	return Entry{
		Name: r["name"], Metro: r["metro"], Country: r["country"], Region: true, Parent: r["name"],
		At: r.at(), IPv6: true, MTU: 9001, Status: Available,
	}
}

func (r row) zone() Entry {
	mtu := commonMTU
	if r["mtu"] != "" {
		mtu = int(r.number("mtu"))
	}
	return Entry{
		Name: r["name"], ID: r["id"], Metro: r["metro"], Country: r["country"],
		Parent: r["parent"], ParentID: r["parent_zone_id"],
		At: r.at(), Km: int(r.number("km")), Floor: time.Duration(r.number("floor_ms") * float64(time.Millisecond)),
		IPv6: r["ipv6"] == "yes", MTU: mtu, Status: Status(r["status"]),
	}
}

func (r row) at() config.LatLon { return config.LatLon{Lat: r.number("lat"), Lon: r.number("lon")} }

func (r row) number(column string) float64 {
	v, err := strconv.ParseFloat(r[column], 64)
	if err != nil {
		panic(fmt.Sprintf("localzone: catalogue: %s: %s: %v", r["name"], column, err))
	}
	return v
}
