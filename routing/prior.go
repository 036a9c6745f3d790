package routing

import (
	"math"
	"time"

	"github.com/nearzone/nearzone/config"
)

// The prior is a straight line over the great circle: 12 ms of access network and 0.016 ms a kilometre (light in
// fibre needs 0.010 there and back, and real paths are 1.6 times as long). A place that is not known is 60 ms from
// every zone; a Region's edge is given 1 ms less, so that strangers go home.
const (
	priorBase    = 12.0
	priorPerKM   = 0.016
	priorUnknown = 60.0
	homeBonus    = 1.0
)

// Prior is the round trip in ms to expect between a place and a zone before anything is measured. known says
// whether place means anything; a zone without coordinates is as far as an unknown place.
func Prior(zone Zone, place Place, known bool) float64 {
	if known && zone.Located {
		return priorBase + priorPerKM*Distance(zone.At, place.At)
	}
	if zone.Region {
		return priorUnknown - homeBonus
	}
	return priorUnknown
}

// An estimate from n samples moves n/(n+4) of the way from the prior
// to the mean of the samples, and is uncertain by 12/√(n+4) ms.
const (
	shrink = 4.0
	spread = 12.0
)

// Shrink is the estimate in ms that a prior and the mean of n samples make together, and its standard deviation.
func Shrink(prior, mean, n float64) (est, sd float64) {
	return prior + n/(n+shrink)*(mean-prior), spread / math.Sqrt(n+shrink)
}

const earthKM = 6371.0

// Distance is the great-circle distance in km.
func Distance(a, b config.LatLon) float64 {
	return vectorOf(a).km(vectorOf(b))
}

// vector is a place as a point on the unit sphere, which makes distances cheap to compare.
type vector struct{ x, y, z float64 }

func vectorOf(p config.LatLon) vector {
	lat, lon := p.Lat*math.Pi/180, p.Lon*math.Pi/180
	return vector{math.Cos(lat) * math.Cos(lon), math.Cos(lat) * math.Sin(lon), math.Sin(lat)}
}

// km uses the chord, which unlike the dot product keeps its precision at small distances.
func (v vector) km(w vector) float64 {
	dx, dy, dz := v.x-w.x, v.y-w.y, v.z-w.z
	half := math.Sqrt(dx*dx+dy*dy+dz*dz) / 2
	return 2 * earthKM * math.Asin(min(half, 1))
}

func toMS(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
