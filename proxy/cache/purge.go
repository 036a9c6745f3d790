package cache

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearzone/nearzone/proxy/cache/store"
)

const (
	// maxTags is how many tags of a response count; each is one look-up after a purge.
	maxTags = 64
	// maxRules bounds the purges remembered one by one, some 150 B each. Past it the older half becomes one
	// rule, "whatever left for the origin before", which costs hits and never a wrong answer.
	maxRules = 1 << 16
)

// Purge says what must no longer be served. Exactly one of URL, Prefix, Host and Tag is set. Scheme and port
// of a URL, prefix or host do not matter: what is purged is purged for http and https alike.
type Purge struct {
	URL    string `json:"url,omitempty"`    // with its query, exactly; every variant
	Prefix string `json:"prefix,omitempty"` // the beginning of a URL, host included
	Host   string `json:"host,omitempty"`
	Tag    string `json:"tag,omitempty"`  // of Surrogate-Key, Cache-Tag or xkey
	Soft   bool   `json:"soft,omitempty"` // mark stale instead: stale-while-revalidate and stale-if-error still apply
}

// Validate reports what is wrong with p.
func (p Purge) Validate() error {
	_, err := p.key()
	return err
}

// ruleKey is a purge without its softness: 'u', 'p', 'h' or 't' and what it names.
type ruleKey struct {
	kind byte
	name string
}

func (p Purge) key() (ruleKey, error) {
	set := 0
	for _, s := range []string{p.URL, p.Prefix, p.Host, p.Tag} {
		if s != "" {
			set++
		}
	}
	switch {
	case set != 1:
		return ruleKey{}, errors.New("purge: give exactly one of url, prefix, host and tag")
	case p.URL != "":
		return purgeURL('u', "url", p.URL)
	case p.Prefix != "":
		return purgeURL('p', "prefix", p.Prefix)
	case p.Tag != "":
		if strings.ContainsAny(p.Tag, " ,\t\r\n") {
			return ruleKey{}, fmt.Errorf("purge: tag %q: one tag, without spaces and commas", p.Tag)
		}
		return ruleKey{'t', p.Tag}, nil
	}
	if strings.ContainsAny(p.Host, "/? @") {
		return ruleKey{}, fmt.Errorf("purge: host %q: a host name alone, like play.example.com", p.Host)
	}
	return ruleKey{'h', hostOf(strings.ToLower(p.Host))}, nil
}

func purgeURL(kind byte, what, s string) (ruleKey, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return ruleKey{}, fmt.Errorf("purge: %s %q: want an absolute URL like https://play.example.com/a", what, s)
	}
	u.Fragment = ""
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	if u.RawQuery != "" || u.ForceQuery {
		path += "?" + u.RawQuery
	}
	return ruleKey{kind, hostOf(strings.ToLower(u.Host)) + path}, nil
}

// hostOf takes the port off.
func hostOf(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		return host[:i]
	}
	return host
}

// everything is the key of RevalidateAll's rule.
var everything = ruleKey{'*', ""}

// rule is the last purge of one thing, hard and soft.
type rule struct {
	hard, soft uint64
	at         time.Time // of the soft one
}

// purges is the memory of what was purged. An object is valid only if the request that produced it left for
// the origin after the last purge that concerns it; so a purge walks nothing, and a fill under way when the
// purge came does not bring the purged back.
type purges struct {
	position atomic.Uint64 // of the last purge applied; written with mu held

	mu      sync.RWMutex // guards everything below
	rules   map[ruleKey]rule
	lengths []int  // of the prefixes in rules, ascending
	floor   uint64 // whatever left for the origin before this position is purged
}

func (p *purges) add(k ruleKey, soft bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rules == nil {
		p.rules = map[ruleKey]rule{}
	}
	if len(p.rules) >= maxRules {
		p.fold()
	}
	position := p.position.Load() + 1
	r := p.rules[k]
	if soft {
		r.soft, r.at = position, now
	} else {
		r.hard = position
	}
	p.rules[k] = r
	if k.kind == 'p' {
		if i, found := slices.BinarySearch(p.lengths, len(k.name)); !found {
			p.lengths = slices.Insert(p.lengths, i, len(k.name))
		}
	}
	p.position.Store(position)
}

// fold forgets the older half of the rules and purges everything they could have concerned.
func (p *purges) fold() {
	positions := make([]uint64, 0, len(p.rules))
	for _, r := range p.rules {
		positions = append(positions, max(r.hard, r.soft))
	}
	slices.Sort(positions)
	p.floor = positions[len(positions)/2]
	p.lengths = p.lengths[:0]
	for k, r := range p.rules {
		if max(r.hard, r.soft) <= p.floor {
			delete(p.rules, k)
		} else if k.kind == 'p' {
			p.lengths = append(p.lengths, len(k.name))
		}
	}
	slices.Sort(p.lengths)
	p.lengths = slices.Compact(p.lengths)
}

// gone reports whether o was purged, and marks it stale when it was softly. An object that nothing concerned
// is not looked at again before the next purge.
func (p *purges) gone(o *store.Object) bool {
	since := o.Cleared.Load()
	if since >= p.position.Load() {
		return false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if since < p.floor {
		return true
	}
	var last rule
	for k := range p.concerning(o) {
		r := p.rules[k]
		last.hard = max(last.hard, r.hard)
		if r.soft > last.soft {
			last.soft, last.at = r.soft, r.at
		}
	}
	if last.hard > since {
		return true
	}
	if last.soft > since {
		o.StaleAt.Store(last.at.UnixNano())
	}
	raise(&o.Cleared, p.position.Load())
	return false
}

// concerning yields every rule there could be about o. p.mu is held.
func (p *purges) concerning(o *store.Object) func(func(ruleKey) bool) {
	return func(yield func(ruleKey) bool) {
		_, name, _ := strings.Cut(o.Key, "://")
		host, path := name, ""
		if i := strings.IndexAny(name, "/?"); i >= 0 {
			host, path = name[:i], name[i:]
		}
		host = hostOf(host)
		name = host + path
		if !yield(everything) || !yield(ruleKey{'u', name}) || !yield(ruleKey{'h', host}) {
			return
		}
		for _, n := range p.lengths {
			if n <= len(name) && !yield(ruleKey{'p', name[:n]}) {
				return
			}
		}
		for _, t := range o.Tags {
			if !yield(ruleKey{'t', t}) {
				return
			}
		}
	}
}

func (p *purges) count() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.rules)
}

func raise(v *atomic.Uint64, to uint64) {
	for old := v.Load(); old < to && !v.CompareAndSwap(old, to); old = v.Load() {
	}
}
