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
// that means nothing, and in lower case where the field's own rules say that case does not (RFC 9111 §4.1). It
// may never make equal what an origin could tell apart, or one client chooses what another gets: within quotes
// and within a member white space stays.
func selected(request http.Header, name string) string {
	lines := request[name]
	switch {
	case len(lines) == 0:
		return absent
	case name == "Accept-Language":
		// Language tags have no case (RFC 4647 §2). Their order stays: among equal weights "some recipients treat
		// the order [...] as an indication of descending priority" (RFC 9110 §12.5.4).
		return lower(listed(lines))
	case len(lines) == 1 && !strings.ContainsAny(lines[0], " \t"):
		return lines[0]
	}
	return listed(lines)
}

// listed joins lines to one list without the white space around its members.
func listed(lines []string) string {
	all := strings.Join(lines, ",")
	if strings.IndexByte(all, '"') >= 0 {
		return all
	}
	members := strings.Split(all, ",")
	for i, m := range members {
		members[i] = strings.Trim(m, " \t")
	}
	return strings.Join(members, ",")
}

// lower is strings.ToLower for ASCII alone: that one also replaces bytes which are no UTF-8.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
