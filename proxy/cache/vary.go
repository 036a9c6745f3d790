package cache

import (
	"net/http"
	"slices"
	"strings"

	"github.com/nearzone/nearzone/proxy/cache/store"
)

const (
	// maxSelectors is how many fields a Vary may name. More would make each request its own variant.
	maxSelectors = 16
	// absent is the value of a field the request does not have: in no header, so it equals nothing else.
	absent = "\x00"
)

// selectors reads Vary off a response and the values off the request that got it. It reports false when no
// other request can be known to match: `*` anywhere in the lists, or more fields than anyone can mean.
func selectors(response, request http.Header) ([]store.Selector, bool) {
	var names []string
	for _, line := range response["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			switch name = strings.TrimSpace(name); name {
			case "":
			case "*":
				return nil, false
			default:
				names = append(names, http.CanonicalHeaderKey(name))
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxSelectors {
		return nil, false
	}
	return selectorsOf(names, request), true
}

func selectorsOf(names []string, request http.Header) []store.Selector {
	if len(names) == 0 {
		return nil
	}
	vary := make([]store.Selector, len(names))
	for i, name := range names {
		vary[i] = store.Selector{Name: name, Value: selected(request, name)}
	}
	return vary
}

// selects reports whether a request chooses the variant with these selectors.
func selects(vary []store.Selector, request http.Header) bool {
	for i := range vary {
		if selected(request, vary[i].Name) != vary[i].Value {
			return false
		}
	}
	return true
}

// selected is a request field's value as variants compare it: all lines as one list, without the white space
// that means nothing (RFC 9111 §4.1).
func selected(request http.Header, name string) string {
	lines := request[name]
	switch {
	case len(lines) == 0:
		return absent
	case len(lines) == 1 && !strings.ContainsAny(lines[0], " \t"):
		return lines[0]
	}
	var b strings.Builder
	for i, line := range lines {
		if i > 0 {
			b.WriteByte(',')
		}
		for j, member := range strings.Split(line, ",") {
			if j > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strings.TrimSpace(member))
		}
	}
	return b.String()
}
