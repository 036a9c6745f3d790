// Package localzone knows AWS: which Local Zones and Regions there are and where they lie, and in which of them
// this process runs.
//
// The catalogue is embedded and needs no network; [Zones] joins it with the zones of a configuration. [Identity]
// asks the EC2 instance metadata service, version 2 only, in the background. Nothing here needs AWS to be there:
// off EC2 the catalogue works the same and an Identity keeps saying that it does not know.
//
//	e, ok := localzone.Lookup("us-west-2-lax-1a") // Los Angeles, parent us-west-2, 1317 km, at least 13.2 ms
//	zones, warnings := localzone.Zones(cfg)
//	id := localzone.NewIdentity(localzone.Options{Log: log})
//	go id.Run(ctx)
package localzone

import (
	"regexp"
	"time"

	"github.com/nearzone/nearzone/config"
)

// Entry is one Local Zone or Region of the catalogue.
type Entry struct {
	Name     string        `json:"name"`         // us-west-2-lax-1a, or us-west-2
	ID       string        `json:"id,omitempty"` // usw2-lax1-az1, the same in every account; empty for a Region
	Metro    string        `json:"metro"`        // Los Angeles
	Country  string        `json:"country"`
	Region   bool          `json:"region"`              // a Region, not a Local Zone
	Parent   string        `json:"parent"`              // parent Region; its own name for a Region
	ParentID string        `json:"parent_id,omitempty"` // id of the Availability Zone that runs its control plane; empty for a Region
	At       config.LatLon `json:"at"`                  // of the city: AWS publishes no coordinates
	Km       int           `json:"km"`                  // great circle to the parent Region; 0 for a Region
	Floor    time.Duration `json:"rtt_floor_ns"`        // no round trip to the parent can be shorter: light in fibre along the great circle
	IPv6     bool          `json:"ipv6"`                // instances can have IPv6 addresses; false where AWS does not say
	MTU      int           `json:"mtu"`                 // bytes of a packet between an instance in the zone and one in the Region; 1300, the common case, where AWS does not say
	Status   Status        `json:"status"`
}

// Status says whether a zone can be had.
type Status string

// The statuses of a zone.
const (
	Available   Status = "available"
	SupportOnly Status = "support-only" // AWS opens it on request only; new accounts may not get it
)

// Group is the name of the zone group, which is also its network border group and what Route 53 calls a Local Zone
// group: the zone's name without its letter. For a Region it is the Region.
func (e Entry) Group() string {
	if e.Region {
		return e.Name
	}
	return e.Name[:len(e.Name)-1]
}

// The Region is found from the front: cutting the letter off a Local Zone's name gives us-west-2-lax-1, which is no
// Region, and every endpoint made of it is wrong. The pattern covers the commercial, China, GovCloud, isolated and
// European sovereign partitions.
var (
	regionPrefix = regexp.MustCompile(`^(?:[a-z]{2}(?:-gov|-iso[a-z]?)?|eusc-[a-z]{2})-[a-z]+-\d+`)
	afterRegion  = regexp.MustCompile(`^(?:[a-z]|(?:-[a-z0-9]+)+)?$`)
)

// RegionOf is the parent Region of a Local Zone, Wavelength Zone or Availability Zone, and a Region's own name. It
// asks the catalogue first and reads the name of what is not in it; false means that it is no name of AWS's.
func RegionOf(zone string) (string, bool) {
	if e, ok := Lookup(zone); ok {
		return e.Parent, true
	}
	region := regionPrefix.FindString(zone)
	if region == "" || !afterRegion.MatchString(zone[len(region):]) {
		return "", false
	}
	return region, true
}

// ZoneOf is the name by which the fleet knows the place called zone in AWS: an ordinary Availability Zone
// (us-west-2a) belongs to the zone named by its Region (us-west-2), every other name is its own.
func ZoneOf(zone string) string {
	region, ok := RegionOf(zone)
	if ok && len(zone) == len(region)+1 {
		return region
	}
	return zone
}

func isRegion(name string) bool {
	region, ok := RegionOf(name)
	return ok && region == name
}
