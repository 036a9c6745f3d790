package healthcheck

import "time"

const (
	// holdFor is how long real traffic keeps an ejected target out at least, whatever its probes say: a probe
	// that passes beside requests that fail (a TCP check on a broken application) would let it in each round.
	// Each ejection in a row holds that much longer, up to holdMax.
	holdFor = 5 * time.Second
	holdMax = time.Minute
	// calmAfter is how long a target must stay up for its earlier ejections to be forgotten.
	calmAfter = time.Minute
)

// judge is the rise/fall rule of one target: no lock, no clock. It starts up.
//
// Probes and real traffic count apart, each in a row, so that neither hides the other: Fall failures of one
// kind take the target down, Rise passed probes bring it back. A target that traffic took down comes back
// half-open: the first failed request ejects it again, the first good one makes it whole.
type judge struct {
	rise, fall int

	down      bool
	passes    int // probes in a row, while down
	failed    int // probes in a row, while up
	reported  int // failures of traffic in a row, while up
	ejections int
	heldUntil time.Time
	since     time.Time
}

// probe takes the outcome of a probe and reports whether the verdict changed.
func (j *judge) probe(ok bool, now time.Time) bool {
	switch {
	case ok && !j.down:
		j.failed = 0
		return false
	case ok:
		j.passes++
		return j.passes >= j.rise && !now.Before(j.heldUntil) && j.turn(false, now)
	case j.down:
		j.passes = 0
		return false
	}
	j.failed++
	return j.failed >= j.fall && j.turn(true, now)
}

// report takes the outcome of a real request and reports whether the verdict changed.
func (j *judge) report(ok bool, now time.Time) bool {
	if j.down {
		return false // requests that were under way, or a desperate try: the probes decide
	}
	if ok {
		j.reported = 0
		return false
	}
	if j.reported++; j.reported < j.fall {
		return false
	}
	if now.Sub(j.since) > calmAfter {
		j.ejections = 0
	}
	j.ejections++
	j.heldUntil = now.Add(min(time.Duration(j.ejections)*holdFor, holdMax))
	return j.turn(true, now)
}

func (j *judge) turn(down bool, now time.Time) bool {
	j.down, j.since = down, now
	j.passes, j.failed = 0, 0
	if down || now.Sub(j.heldUntil) > calmAfter {
		j.reported = 0
	} else {
		j.reported = j.fall - 1 // half-open
	}
	return true
}
