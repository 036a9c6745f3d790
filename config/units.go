package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// unit is one ending of a number.
type unit struct {
	name  string
	times float64
}

const day = 24 * time.Hour

// The longer of two endings comes first, as `5MiB` ends in B too.
var (
	sizeUnits = []unit{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
		{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
	}
	rateUnits     = []unit{{"kbps", 1e3}, {"Mbps", 1e6}, {"Gbps", 1e9}, {"Tbps", 1e12}, {"bps", 1}}
	durationUnits = []unit{
		{"ms", float64(time.Millisecond)}, {"s", float64(time.Second)}, {"m", float64(time.Minute)},
		{"h", float64(time.Hour)}, {"d", float64(day)},
	}
)

// parseUnits reads one positive number with its unit.
func parseUnits(s string, units []unit) (int64, error) {
	number, u, err := cutUnit(s, units)
	if err != nil {
		return 0, err
	}
	n, err := scaled(number, u)
	if err == nil && n == 0 {
		err = errors.New("is nothing")
	}
	return n, err
}

// parseDuration reads times such as 1h30m, and 0.
func parseDuration(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	var total int64
	for rest := s; rest != "" || s == ""; {
		part, after := firstPart(rest)
		number, u, err := cutUnit(part, durationUnits)
		if err != nil {
			return 0, err
		}
		n, err := scaled(number, u)
		if err == nil && total > math.MaxInt64-n {
			err = errors.New("is too large")
		}
		if err != nil {
			return 0, err
		}
		total, rest = total+n, after
	}
	return time.Duration(total), nil
}

// firstPart cuts off a number and the letters after it.
func firstPart(s string) (part, rest string) {
	letters := strings.IndexFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if letters < 0 {
		return s, ""
	}
	digits := strings.IndexAny(s[letters:], "0123456789.")
	if digits < 0 {
		return s, ""
	}
	return s[:letters+digits], s[letters+digits:]
}

func cutUnit(s string, units []unit) (number string, u unit, err error) {
	for _, u := range units {
		if number, ok := strings.CutSuffix(s, u.name); ok && isNumber(number) {
			return number, u, nil
		}
	}
	if isNumber(s) {
		return "", unit{}, errors.New("has no unit")
	}
	return "", unit{}, errors.New("is no number with a unit")
}

func isNumber(s string) bool {
	digits := strings.Replace(s, ".", "", 1)
	return digits != "" && !strings.HasPrefix(s, ".") && !strings.HasSuffix(s, ".") && strings.Trim(digits, "0123456789") == ""
}

func scaled(number string, u unit) (int64, error) {
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f*u.times >= math.MaxInt64 {
		return 0, errors.New("is too large")
	}
	return int64(math.Round(f * u.times)), nil
}

func parsePercent(s string) (Percent, error) {
	number, ok := strings.CutSuffix(s, "%")
	if !ok || !isNumber(number) {
		return 0, errors.New("is no percentage")
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f > 100 {
		return 0, errors.New("is out of bounds")
	}
	return Percent(f / 100), nil
}

// showDuration writes a time as a file would.
func showDuration(d time.Duration) string {
	if d >= day && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}
