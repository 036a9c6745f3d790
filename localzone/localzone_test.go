package localzone_test

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/localzone"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEveryEntryIsWhole(t *testing.T) {
	entries := localzone.Catalogue()
	if !slices.IsSortedFunc(entries, func(a, b localzone.Entry) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("not sorted by name")
	}
	zones, regions := 0, 0
	for _, e := range entries {
		parent, ok := localzone.Lookup(e.Parent)
		if !ok || !parent.Region {
			t.Errorf("%s: parent %q is no Region of the catalogue", e.Name, e.Parent)
		}
		if e.Metro == "" || e.Country == "" || e.MTU < 1300 || (e.At == config.LatLon{}) || (e.Status != localzone.Available && e.Status != localzone.SupportOnly) {
			t.Errorf("%s is incomplete: %+v", e.Name, e)
		}
		if math.Abs(e.At.Lat) > 90 || math.Abs(e.At.Lon) > 180 {
			t.Errorf("%s lies nowhere: %v", e.Name, e.At)
		}
		if e.Region {
			regions++
			continue
		}
		zones++
		if e.ID == "" || e.ParentID == "" || e.Km <= 0 || !strings.HasPrefix(e.Name, e.Parent+"-") || !strings.HasPrefix(e.Name, e.Group()) {
			t.Errorf("%s is incomplete: %+v", e.Name, e)
		}
		if want := time.Duration(e.Km) * time.Millisecond / 100; (e.Floor - want).Abs() > 100*time.Microsecond {
			t.Errorf("%s: floor %v, but %d km of fibre and back take %v", e.Name, e.Floor, e.Km, want)
		}
	}
	if zones != 47 || regions != 39 {
		t.Errorf("%d Local Zones and %d Regions, want 47 and 39", zones, regions)
	}
}

func TestCatalogueIsTheCallersOwn(t *testing.T) {
	localzone.Catalogue()[0].Name = "changed"
	if localzone.Catalogue()[0].Name == "changed" {
		t.Error("a caller can change the catalogue")
	}
}

func TestLookup(t *testing.T) {
	lax, ok := localzone.Lookup("us-west-2-lax-1a")
	if !ok || lax.Metro != "Los Angeles" || lax.Parent != "us-west-2" || lax.Km != 1317 || lax.Floor != 13200*time.Microsecond || !lax.IPv6 || lax.MTU != 9001 || lax.Group() != "us-west-2-lax-1" || lax.ID != "usw2-lax1-az1" {
		t.Errorf("got %+v, %v", lax, ok)
	}
	if atl, _ := localzone.Lookup("us-east-1-atl-2b"); atl.MTU != 1300 || atl.IPv6 {
		t.Errorf("what AWS does not list must not be assumed: %+v", atl)
	}
	if _, ok := localzone.Lookup("us-west-2a"); ok {
		t.Error("an Availability Zone is not in the catalogue")
	}
}

func TestRegionAndZoneOfNames(t *testing.T) {
	for _, c := range []struct{ name, region, zone string }{
		{"us-west-2-lax-1a", "us-west-2", "us-west-2-lax-1a"},
		{"ap-southeast-1-han-1a", "ap-southeast-1", "ap-southeast-1-han-1a"},
		{"us-west-2", "us-west-2", "us-west-2"},
		{"us-west-2a", "us-west-2", "us-west-2"},
		{"us-gov-west-1b", "us-gov-west-1", "us-gov-west-1"},
		{"us-isob-east-1a", "us-isob-east-1", "us-isob-east-1"},
		{"eusc-de-east-1a", "eusc-de-east-1", "eusc-de-east-1"},
		{"cn-northwest-1c", "cn-northwest-1", "cn-northwest-1"},
		{"us-east-2-sbn-1a", "us-east-2", "us-east-2-sbn-1a"},               // not in the list
		{"us-east-1-wl1-bos-wlz-1", "us-east-1", "us-east-1-wl1-bos-wlz-1"}, // Wavelength
		{"eu-west-3-cmn-wlz-1a", "eu-west-3", "eu-west-3-cmn-wlz-1a"},
		{"mx-central-9", "mx-central-9", "mx-central-9"}, // a Region of the future
		{"rack-7", "", "rack-7"},
		{"us-west-2-", "", "us-west-2-"},
		{"us-west-2ab", "", "us-west-2ab"},
		{"", "", ""},
	} {
		region, ok := localzone.RegionOf(c.name)
		if region != c.region || ok != (c.region != "") {
			t.Errorf("RegionOf(%q) = %q, %v; want %q", c.name, region, ok, c.region)
		}
		if zone := localzone.ZoneOf(c.name); zone != c.zone {
			t.Errorf("ZoneOf(%q) = %q, want %q", c.name, zone, c.zone)
		}
	}
}

func TestZonesJoinTheConfiguration(t *testing.T) {
	v4, v6 := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:a::10")
	cfg := &config.Config{Zones: []config.Zone{
		{Name: "us-west-2", Nodes: []config.ZoneNode{{Addrs: []netip.Addr{netip.MustParseAddr("198.51.100.5")}}}},
		{Name: "us-west-2-lax-1a", Mode: config.ModeShadow, Nodes: []config.ZoneNode{{Addrs: []netip.Addr{v4, v6}, Port: 8080}}},
		{Name: "rack-7", Parent: "us-west-2", Coordinates: &config.LatLon{Lat: 1, Lon: 2}},
	}}
	zones, warnings := localzone.Zones(cfg)
	if len(warnings) != 0 {
		t.Errorf("warnings: %q", warnings)
	}
	if z := zones[0]; !z.Region || z.Parent != "us-west-2" || !z.Located || z.Nodes[0].ID != "198.51.100.5" || z.Nodes[0].Zone != "us-west-2" {
		t.Errorf("Region: %+v", z)
	}
	if z := zones[1]; z.Region || z.Parent != "us-west-2" || !z.Located || z.Mode != config.ModeShadow || z.At.Lat != 34.0522 || z.Nodes[0].V4 != v4 || z.Nodes[0].V6 != v6 || z.Nodes[0].ID != "203.0.113.10:8080" {
		t.Errorf("Local Zone: %+v", z)
	}
	if z := zones[2]; z.Region || z.Parent != "us-west-2" || z.At != (config.LatLon{Lat: 1, Lon: 2}) || !z.Located {
		t.Errorf("a zone of our own: %+v", z)
	}
}

func TestZonesWarn(t *testing.T) {
	global6 := []config.ZoneNode{{Addrs: []netip.Addr{netip.MustParseAddr("2001:db8::1")}}}
	for _, c := range []struct {
		zone config.Zone
		want string
	}{
		{config.Zone{Name: "us-west-2a"}, "name the zone us-west-2"},
		{config.Zone{Name: "us-east-2-sbn-1a"}, "add `coordinates: [lat, lon]`"},
		{config.Zone{Name: "us-west-2-pdx-1a"}, "on request only"},
		{config.Zone{Name: "us-west-2-sea-1a", Nodes: global6}, "no IPv6"},
	} {
		zones, warnings := localzone.Zones(&config.Config{Zones: []config.Zone{c.zone}})
		if len(zones) != 1 || len(warnings) != 1 || !strings.Contains(warnings[0], c.want) || !strings.HasPrefix(warnings[0], "zones."+c.zone.Name+": ") {
			t.Errorf("%s: warnings %q, want one with %q", c.zone.Name, warnings, c.want)
		}
	}
}
