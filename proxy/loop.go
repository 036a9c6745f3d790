package proxy

import (
	"net/http"
	"strings"
)

// loopName is our cdn-id in CDN-Loop (RFC 8586). A request may pass two nodes on purpose (an origin's via), so
// the node is told as a parameter.
const loopName = "nearzone"

// mostNodes is how many of our nodes a request may pass: its zone's and the one its origin is asked via, and one
// more for a change of configuration under way.
const mostNodes = 3

// loopMember is this node in CDN-Loop.
func (p *Proxy) loopMember() string { return loopName + `; node="` + quotable(p.deps.Node) + `"` }

// loops reports whether a request has been here before, or goes in circles among our nodes.
func (p *Proxy) loops(h http.Header) bool {
	lines := h["Cdn-Loop"]
	if len(lines) == 0 {
		return false
	}
	self, nodes := p.loopMember(), 0
	for _, line := range lines {
		for member := range strings.SplitSeq(line, ",") {
			member = strings.TrimSpace(member)
			if member == self {
				return true
			}
			if name, _, _ := strings.Cut(member, ";"); strings.EqualFold(strings.TrimSpace(name), loopName) {
				nodes++
			}
		}
	}
	return nodes >= mostNodes
}

// quotable keeps a name whole inside a quoted string and a list.
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`",;\`, r) {
			return '_'
		}
		return r
	}, s)
}
