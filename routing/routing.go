// Package routing decides which zone serves a client.
//
// It holds the nouns of that decision ([Zone], [Node], [Place], [Answer]), a pure function [Build] that turns
// what is known into an immutable [Table], and a [Router] that keeps the current table behind one atomic
// pointer and answers from it. Health and drain are read when a question comes, so a failover never waits for
// a rebuild; estimates, distances and hysteresis are settled when the table is built.
//
// It measures nothing (package latency does), reads no geography files (package geo does) and speaks no DNS
// (package dnsserver does): all of them come in as func values in [Sources].
//
//	r := routing.NewRouter(cfg, routing.Sources{Zones: zones, Estimates: est.Estimates, Locate: geo.Locate, Up: up}, routing.Options{})
//	go r.Run(ctx)
//	a, ok := r.Answer("play.example.com", netip.MustParseAddr("198.51.100.7"))
package routing

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/nearzone/nearzone/config"
)

// Node is one running nearzone as answers name it.
type Node struct {
	ID   string // config.ZoneNode.ID: how health, status and drain call it
	Zone string
	V4   netip.Addr // invalid when the node has none
	V6   netip.Addr // invalid when the node has none
}

// Zone is a Local Zone, or the edge in a Region, with what the catalogue knows of it.
type Zone struct {
	Name    string
	Region  bool          // a Region's own edge; it competes like any zone
	Parent  string        // parent Region; its own name when Region
	At      config.LatLon // meaningful when Located
	Located bool
	Mode    config.Mode // empty is serve
	Nodes   []Node      // never changed once handed over
}

// Place is where an address is. Prefix is the widest network around the address that is known to be at the same
// place; when the address is in no source it may still be valid, and is then the widest network without a place.
type Place struct {
	At     config.LatLon
	Prefix netip.Prefix
}

// Source says how a sample was measured.
type Source uint8

// The sources of samples.
const (
	TCP       Source = iota // smallest round trip of a live TCP connection
	QUIC                    // smallest round trip of a live QUIC connection
	Beacon                  // reported by a client
	Probe                   // measured by us with an echo request
	Simulated               // made up, for demonstrations
)

var sourceNames = [...]string{"tcp", "quic", "beacon", "probe", "simulated"}

// String is the name of the source in metrics.
func (s Source) String() string {
	if int(s) < len(sourceNames) {
		return sourceNames[s]
	}
	return "unknown"
}

// NumSources is the number of sources, for tables indexed by Source.
const NumSources = len(sourceNames)

// Measured is what samples alone say about one prefix and one zone: the mean of N decayed samples. [Shrink] makes an
// estimate of it.
type Measured struct {
	Zone string
	Mean float64 // ms
	N    float64
}

// PrefixEstimate is all that was measured about one prefix.
type PrefixEstimate struct {
	Prefix netip.Prefix // as PrefixOf makes them
	Zones  []Measured   // each zone at most once
}

// Answer is the zone for one client, with the reason.
type Answer struct {
	Name  string // as configured: `*.play.example.com` for a question below it
	Zone  string
	Nodes []Node        // nodes of Zone to name, those that are Up; read-only; empty only if the name has no node at all
	V6    []Node        // nodes to name in AAAA: Nodes if one of them has an IPv6 address, else those of a zone within the band of Zone that has, else empty; read-only
	Scope netip.Prefix  // network around the client for which this answer holds; /0 only if it holds for everybody; invalid if the client's address was
	TTL   time.Duration // as configured for the name
	// Reason says why Zone. FailOpen is set when none of the name's zones could be named by the rules, and this
	// is the best of those that should not have been.
	Reason   Reason
	FailOpen bool
}

// Reason says why a zone was chosen.
type Reason uint8

// The reasons for an answer.
const (
	ReasonMeasured Reason = iota // lowest estimate, from samples of the client's prefix
	ReasonHeld                   // another zone has a lower estimate, but not by enough or not for long enough
	ReasonDistance               // nothing measured for the prefix: nearest by distance
	ReasonUnknown                // nothing measured and no place known: the home Region, unless the way to the origin says otherwise
	ReasonOnly                   // the name has one zone only
	ReasonFailover               // a better zone is down or draining
	ReasonExplored               // a zone with too few samples, tried on purpose
	ReasonFailOpen               // no zone of the name is up
)

var reasonNames = [...]string{"measured", "held", "distance", "unknown_place", "only_zone", "failover", "explored", "fail_open"}

// String is the name of the reason in logs, metrics and explanations.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}

// MarshalText writes the reason's name.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (r *Reason) UnmarshalText(name []byte) error {
	i := slices.Index(reasonNames[:], string(name))
	if i < 0 {
		return fmt.Errorf("unknown reason %q", name)
	}
	*r = Reason(i)
	return nil
}

// PrefixOf is the prefix that addr is measured under: its /24, or its /48 for IPv6. It is invalid if addr is.
func PrefixOf(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
