package config

import (
	"fmt"
	"strconv"
	"strings"
)

// kind is what a node of the file is.
type kind uint8

const (
	kindNull kind = iota
	kindScalar
	kindMapping
	kindList
)

// String names the kind as an error does.
func (k kind) String() string {
	return [...]string{"nothing", "a single value", "a mapping", "a list"}[k]
}

// position is a place in the file, from 1.
type position struct{ line, column int }

// node is one value of the file. The value of a mapping's key carries that key.
type node struct {
	kind    kind
	text    string  // of a scalar, with the environment put in
	entries []*node // values of a mapping, or items of a list, in the order of the file

	key    string   // when parent is a mapping
	keyPos position // when parent is a mapping
	index  int      // when parent is a list
	parent *node
	pos    position

	byKey map[string]*node // of a large mapping, once it was asked

	failed bool // an error about this very node was reported
}

// get finds the value of a key, or nil.
func (n *node) get(key string) *node {
	if n == nil || n.kind != kindMapping {
		return nil
	}
	const few = 16
	if len(n.entries) <= few {
		e := find(n.entries, func(e **node) bool { return (*e).key == key })
		if e == nil {
			return nil
		}
		return *e
	}
	if n.byKey == nil {
		n.byKey = make(map[string]*node, len(n.entries))
		for _, e := range n.entries {
			n.byKey[e.key] = e
		}
	}
	return n.byKey[key]
}

// at follows keys (string) and indexes (int) down as far as the file goes.
func (n *node) at(path ...any) *node {
	for _, step := range path {
		next := n.step(step)
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

func (n *node) step(step any) *node {
	if i, ok := step.(int); ok {
		if n.kind == kindList && i < len(n.entries) {
			return n.entries[i]
		}
		return nil
	}
	return n.get(step.(string))
}

// where is the position an error about this node points at: a scalar itself, the key of anything larger.
func (n *node) where() position {
	if n.keyPos.line > 0 && n.kind != kindScalar {
		return n.keyPos
	}
	return n.pos
}

// path is the node's key path as the file has it: zones.us-west-2.nodes[1].
func (n *node) path() string {
	var steps []string
	for ; n != nil && n.parent != nil; n = n.parent {
		if n.parent.kind == kindList {
			steps = append(steps, "["+strconv.Itoa(n.index)+"]")
			continue
		}
		steps = append(steps, "."+pathKey(n.key))
	}
	var b strings.Builder
	for i := len(steps) - 1; i >= 0; i-- {
		b.WriteString(steps[i])
	}
	return strings.TrimPrefix(b.String(), ".")
}

// pathKey shows a key as it is, unless it would blur the path.
func pathKey(key string) string {
	if key == "" || len(key) > 60 || strings.ContainsAny(key, " \t\r\n\"[]:") {
		return quote(key)
	}
	return key
}

// broken reports whether an error about this node or anything in it was reported, so that no second one follows
// from it.
func (n *node) broken() bool {
	if n.failed {
		return true
	}
	for _, e := range n.entries {
		if e.broken() {
			return true
		}
	}
	return false
}

// describe shows the node in an error: the value of a scalar, else its kind.
func (n *node) describe() string {
	if n.kind == kindScalar {
		return quote(n.text)
	}
	return n.kind.String()
}

// overlay is base with patch laid over it, as RFC 7396 has it: mappings merge key by key, null takes a key away,
// anything else replaces. Neither argument changes.
func overlay(base, patch *node) *node {
	if base == nil || base.kind != kindMapping || patch.kind != kindMapping {
		return patch
	}
	patches := make(map[string]*node, len(patch.entries))
	for _, p := range patch.entries {
		patches[p.key] = p
	}
	merged := *base
	merged.entries, merged.byKey = nil, nil
	for _, e := range base.entries {
		p, patched := patches[e.key]
		delete(patches, e.key)
		switch {
		case !patched:
			merged.entries = append(merged.entries, e)
		case p.kind != kindNull:
			merged.entries = append(merged.entries, overlay(e, p))
		}
	}
	for _, p := range patch.entries {
		if _, fresh := patches[p.key]; fresh && p.kind != kindNull {
			merged.entries = append(merged.entries, p)
		}
	}
	return &merged
}

// report adds an error about a node unless one was reported for it or anything in it.
func (d *decoder) report(n *node, format string, args ...any) {
	if n.broken() {
		return
	}
	d.fail(n, format, args...)
}

// fail adds an error about a node.
func (d *decoder) fail(n *node, format string, args ...any) {
	n.failed = true
	d.failAt(n.where(), n.path(), format, args...)
}

func (d *decoder) failAt(p position, path, format string, args ...any) {
	d.errs = append(d.errs, &Error{File: d.file, Line: p.line, Column: p.column, Path: path, Message: fmt.Sprintf(format, args...)})
}

// warn adds a finding that stops nothing.
func (d *decoder) warn(n *node, format string, args ...any) {
	d.warnAt(n.where(), n.path(), format, args...)
}

func (d *decoder) warnAt(p position, path, format string, args ...any) {
	d.warnings = append(d.warnings, &Error{File: d.file, Line: p.line, Column: p.column, Path: path, Message: fmt.Sprintf(format, args...)})
}
