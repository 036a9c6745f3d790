package routing

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Sources is where a Router learns what it decides from. Each func may be called from any goroutine. Zones is
// required; a nil func of the others means: nothing measured, no way to an origin known, no place known, every
// node up, nothing drained.
type Sources struct {
	Zones     func() []Zone           // read at each build
	Home      string                  // the Region that wins when nothing else tells zones apart, if the configuration names none
	Estimates func() []PrefixEstimate // read at each build; the slice is the caller's, its contents are not changed
	Onward    func(zone, origin string) (time.Duration, bool)
	Locate    func(netip.Addr) (Place, bool)           // read at each build and each question
	Up        func(node string, origins []string) bool // read at each question
	Drained   func(zone, node string) bool             // read at each question
}

// Options of a Router. The zero value works.
type Options struct {
	Log  *slog.Logger          // default: discards
	Reg  prometheus.Registerer // default: metrics that nobody collects
	Rand func() float64        // in [0, 1), for explored answers; default math/rand/v2
}
