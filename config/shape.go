package config

import "fmt"

// shape is one kind of value a key may have: how it is read, and how the JSON Schema says it. A shape is bound to
// the place its value goes to.
type shape interface {
	read(d *decoder, n *node)
	schema() object
}

// object is a JSON object of the schema.
type object = map[string]any

// decoder is what one reading of a file collects.
type decoder struct {
	file     string
	env      func(string) (string, bool)
	secrets  bool // read them: this is the configuration of this very node
	errs     Errors
	warnings Errors
	records  map[recordKey]*node // where each static record set stands
	files    []namedFile         // to open later
	bare     map[position]bool   // of words that begin with a star and lack quotes

	domainsBroken bool // an error about dns.domains was reported, so that no name is looked for in them
}

// recordKey names a static record set.
type recordKey struct{ name, kind string }

// field is one key of a mapping.
type field struct {
	key      string
	shape    shape
	doc      string
	required bool
}

func key(name string, s shape, doc string) field { return field{name, s, doc, false} }

func must(name string, s shape, doc string) field { return field{name, s, doc, true} }

// notYet is a key of the design that does not work in this version.
func notYet(name string) field { return field{key: name} }

// mapping is a fixed set of keys, read in this order.
type mapping []field

func (m mapping) read(d *decoder, n *node) {
	if n.kind != kindMapping && n.kind != kindNull {
		d.report(n, "%s is not a mapping: want keys%s", n.describe(), instead("", m.keys()))
		return
	}
	m.unknown(d, n)
	for _, f := range m {
		value := n.get(f.key)
		switch {
		case f.shape == nil || value != nil && value.failed:
		case value != nil:
			f.shape.read(d, value)
		case f.required:
			d.failAt(n.where(), n.path(), "%s is missing", f.key)
			n.failed = true
		}
	}
}

func (m mapping) unknown(d *decoder, n *node) {
	for i, e := range n.entries {
		if e.failed {
			continue
		}
		f := m.field(e.key)
		switch {
		case f == nil && m.parent(n, i) != "":
			d.failAt(e.keyPos, e.path(), "is not a key here: indent it, below %s", m.parent(n, i))
			e.failed = true
		case f == nil:
			d.failAt(e.keyPos, e.path(), "unknown key%s", instead(e.key, m.keys()))
			e.failed = true
		case f.shape == nil:
			d.failAt(e.keyPos, e.path(), "is not in this version")
			e.failed = true
		}
	}
}

func (m mapping) field(key string) *field {
	return find(m, func(f *field) bool { return f.key == key })
}

// parent is the key that entry i, which is unknown, was likely meant to stand under: the one before it, when that is
// empty and takes it.
func (m mapping) parent(n *node, i int) string {
	j := i - 1
	for j >= 0 && n.entries[j].failed {
		j--
	}
	if j < 0 || n.entries[j].kind != kindNull {
		return ""
	}
	if f := m.field(n.entries[j].key); f != nil && holds(f.shape, n.entries[i]) {
		return f.key
	}
	return ""
}

// holder is a shape whose values are mappings.
type holder interface{ holds(child *node) bool }

// holds reports whether a value of this shape has room for child.
func holds(s shape, child *node) bool {
	switch s := s.(type) {
	case then:
		return holds(s.shape, child)
	case holder:
		return s.holds(child)
	}
	return false
}

func (m mapping) holds(child *node) bool { return m.field(child.key) != nil }

// holds knows no names; a single value is none of what has one.
func (s named[T]) holds(child *node) bool { return child.kind != kindScalar }

func (m mapping) keys() []string {
	var keys []string
	for _, f := range m {
		if f.shape != nil {
			keys = append(keys, f.key)
		}
	}
	return keys
}

func (m mapping) schema() object {
	properties, required := object{}, []string{}
	for _, f := range m {
		if f.shape == nil {
			continue
		}
		s := f.shape.schema()
		if f.doc != "" {
			s["description"] = f.doc
		}
		properties[f.key] = s
		if f.required {
			required = append(required, f.key)
		}
	}
	s := object{"type": []string{"object", "null"}, "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["type"], s["required"] = "object", required
	}
	return s
}

// then runs a check or a resolution after a shape has been read without an error.
type then struct {
	shape
	do func(d *decoder, n *node)
}

func (t then) read(d *decoder, n *node) {
	t.shape.read(d, n)
	if !n.broken() {
		t.do(d, n)
	}
}

// byKind is a union whose members differ in kind. A missing member is refused.
type byKind struct {
	want    string
	scalar  shape
	mapping shape
	list    shape
}

func (b byKind) read(d *decoder, n *node) {
	member := map[kind]shape{kindScalar: b.scalar, kindMapping: b.mapping, kindList: b.list}[n.kind]
	if member == nil {
		d.report(n, "%s does not fit: want %s", n.describe(), b.want)
		return
	}
	member.read(d, n)
}

func (b byKind) schema() object {
	var members []object
	for _, s := range []shape{b.scalar, b.mapping, b.list} {
		if s != nil {
			members = append(members, s.schema())
		}
	}
	return object{"anyOf": members}
}

// named is a mapping from names of the operator's choosing to one kind of thing, kept in the order of the file.
type named[T any] struct {
	into  *[]T
	name  func(string) error // checks a name
	fresh func(name string) T
	item  func(*T) shape
}

func (s named[T]) read(d *decoder, n *node) {
	if n.kind == kindNull {
		return
	}
	if n.kind != kindMapping {
		d.report(n, "%s is not a mapping: want a name for each, and what it is under it", n.describe())
		return
	}
	for _, e := range n.entries {
		if err := s.name(e.key); err != nil {
			d.failAt(e.keyPos, e.path(), "%v", err)
			continue
		}
		item := s.fresh(e.key)
		if !e.failed {
			s.item(&item).read(d, e)
		}
		*s.into = append(*s.into, item)
	}
}

func (s named[T]) schema() object {
	item := s.fresh("")
	return object{"type": []string{"object", "null"}, "additionalProperties": s.item(&item).schema()}
}

// list is a list of one kind of thing.
type list[T any] struct {
	into  *[]T
	fresh func() T // nil: the zero value
	item  func(*T) shape
	least int
}

func (s list[T]) read(d *decoder, n *node) {
	if n.kind == kindScalar || n.kind == kindMapping {
		d.report(n, "%s is not a list: want [ ] around what it holds", n.describe())
		return
	}
	if len(n.entries) < s.least {
		d.report(n, "is empty: want at least %s", count(s.least))
		return
	}
	*s.into = nil
	for _, e := range n.entries {
		item := s.make()
		if !e.failed {
			s.item(&item).read(d, e)
		}
		*s.into = append(*s.into, item)
	}
}

func (s list[T]) make() T {
	if s.fresh != nil {
		return s.fresh()
	}
	var zero T
	return zero
}

func (s list[T]) schema() object {
	item := s.make()
	o := object{"type": []string{"array", "null"}, "items": s.item(&item).schema()}
	if s.least > 0 {
		o["type"], o["minItems"] = "array", s.least
	}
	return o
}

func count(n int) string {
	if n == 1 {
		return "one"
	}
	return fmt.Sprint(n)
}
