package config

import (
	"slices"
	"strings"
)

// instead says what would have been right: the nearest of names, when one is near, and what there is.
func instead(got string, names []string) string {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "" })
	if len(names) == 0 {
		return " (have: none)"
	}
	hint := ""
	if near := nearest(got, names); near != "" {
		hint = ", did you mean " + quote(near) + "?"
	}
	const most = 24
	have := strings.Join(names[:min(len(names), most)], ", ")
	if len(names) > most {
		have += ", …"
	}
	return hint + " (have: " + have + ")"
}

// nearest is the name that got was likely meant to be, or nothing: at most a third of its letters differ.
func nearest(got string, names []string) string {
	got = strings.ToLower(got)
	best, bestDistance := "", max(1, len(got)/3)+1
	for _, name := range names {
		if len(got) > 64 || len(name) > 64 {
			continue
		}
		if d := distance(got, strings.ToLower(name)); d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// distance counts the letters to change, add, drop or swap with a neighbour to get from a to b.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// names lists what a collection holds, in its order.
func names[T any](list []T, name func(*T) string) []string {
	var out []string
	for i := range list {
		out = append(out, name(&list[i]))
	}
	return out
}
