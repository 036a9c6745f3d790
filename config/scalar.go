package config

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// scalar is a single value, parsed from its text.
type scalar struct {
	want  string // what would be right
	store func(text string) error
	json  object
}

func (s scalar) read(d *decoder, n *node) {
	switch n.kind {
	case kindScalar:
		if err := s.store(n.text); err != nil {
			d.report(n, "%s %v: want %s", quote(n.text), err, s.want)
		}
	case kindNull:
		d.report(n, "has no value: want %s", s.want)
	default:
		d.report(n, "%s does not fit: want %s", n.describe(), s.want)
	}
}

func (s scalar) schema() object {
	o := object{}
	for k, v := range s.json {
		o[k] = v
	}
	return o
}

// value is a scalar that parse turns into T.
func value[T any](into *T, want string, json object, parse func(string) (T, error)) scalar {
	return scalar{want, func(text string) error {
		v, err := parse(text)
		if err == nil {
			*into = v
		}
		return err
	}, json}
}

// matching is a string of the schema that follows a pattern, or holds a variable.
func matching(pattern string) object {
	return object{"type": "string", "pattern": `^(` + pattern + `)$|\$\{`}
}

// text is any string but the empty one.
func text(into *string, want string) scalar {
	return value(into, want, object{"type": []string{"string", "number", "boolean"}}, func(s string) (string, error) {
		if strings.TrimSpace(s) == "" {
			return "", errors.New("is empty")
		}
		return s, nil
	})
}

// hasOr lets a word of its own stand for a value: auto, off.
func (s scalar) hasOr(words ...string) scalar {
	store := s.store
	s.store = func(text string) error {
		if slices.Contains(words, text) {
			return nil
		}
		return store(text)
	}
	s.want = strings.Join(words, ", ") + " or " + s.want
	s.json = object{"anyOf": []object{{"enum": words}, s.json}}
	return s
}

// boolean is true or false; on and off are the same.
func boolean(into *bool) scalar {
	json := object{"enum": []any{true, false, "on", "off"}}
	return value(into, "true or false", json, func(s string) (bool, error) {
		switch s {
		case "true", "on":
			return true, nil
		case "false", "off":
			return false, nil
		}
		return false, errors.New("is neither")
	})
}

// integer is a whole number within bounds.
func integer(into *int, low, high int) scalar {
	json := object{"type": []string{"integer", "string"}, "minimum": low, "maximum": high, "pattern": `\$\{|^[0-9]+$`}
	return value(into, fmt.Sprintf("a whole number from %d to %d", low, high), json, func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		switch {
		case err != nil:
			return 0, errors.New("is not a whole number")
		case n < low || n > high:
			return 0, errors.New("is out of bounds")
		}
		return n, nil
	})
}

// choice is one of several words; those in later belong to the design and not to this version.
type choice[T ~string] struct {
	into  *T
	words []T
	later []T
}

func (c choice[T]) read(d *decoder, n *node) {
	word := T(n.text)
	switch {
	case n.kind == kindNull:
		d.report(n, "has no value: want one of %s", strings.Join(c.strings(), ", "))
	case n.kind != kindScalar:
		d.report(n, "%s does not fit: want one of %s", n.describe(), strings.Join(c.strings(), ", "))
	case slices.Contains(c.words, word):
		*c.into = word
	case slices.Contains(c.later, word):
		d.report(n, "%s is not in this version (have: %s)", quote(n.text), strings.Join(c.strings(), ", "))
	default:
		d.report(n, "%s is none of its values%s", quote(n.text), instead(n.text, c.strings()))
	}
}

func (c choice[T]) strings() []string {
	out := make([]string, len(c.words))
	for i, w := range c.words {
		out[i] = string(w)
	}
	return out
}

func (c choice[T]) schema() object {
	words := make([]any, 0, len(c.words)+1)
	for _, w := range c.words {
		words = append(words, string(w))
		if w == "off" {
			words = append(words, false)
		}
	}
	return object{"anyOf": []object{{"enum": words}, {"type": "string", "pattern": `\$\{`}}}
}

// duration is a time within bounds.
func duration(into *time.Duration, low, high time.Duration) scalar {
	json := matching(`0|([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+`)
	want := fmt.Sprintf("a time from %s to %s, such as 500ms, 20s, 1h30m or 365d", showDuration(low), showDuration(high))
	return value(into, want, json, func(s string) (time.Duration, error) {
		t, err := parseDuration(s)
		if err == nil && (t < low || t > high) {
			err = errors.New("is out of bounds")
		}
		return t, err
	})
}

// size is bytes, at least one.
func size(into *Size) scalar {
	json := matching(`[0-9]+(\.[0-9]+)?([kKMGT]i?)?B`)
	return value(into, "a size such as 64MiB (2^20) or 118MB (10^6)", json, func(s string) (Size, error) {
		n, err := parseUnits(s, sizeUnits)
		return Size(n), err
	})
}

// rate is bits a second.
func rate(into *Rate) scalar {
	return value(into, "a rate such as 5Gbps or 800Mbps", matching(`[0-9]+(\.[0-9]+)?[kMGT]?bps`), func(s string) (Rate, error) {
		n, err := parseUnits(s, rateUnits)
		return Rate(n), err
	})
}

// percent is a share of a hundred.
func percent(into *Percent) scalar {
	return value(into, "a share from 0% to 100%, such as 10%", matching(`[0-9]+(\.[0-9]+)?%`), parsePercent)
}

// number is a decimal number.
func number(into *float64) scalar {
	json := object{"type": []string{"number", "string"}, "pattern": `\$\{|^-?[0-9.]+$`}
	return value(into, "a number such as 34.05", json, func(s string) (float64, error) {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return 0, errors.New("is not a number")
		}
		return f, nil
	})
}
