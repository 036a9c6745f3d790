package config

import (
	"github.com/goccy/go-yaml/ast"
)

// converter turns the library's syntax tree into nodes: aliases followed, duplicates and whatever else we do not
// take from YAML reported, the environment put in.
type converter struct {
	d       *decoder
	anchors map[string]ast.Node
	open    []string // anchors whose values we are in
	nodes   int
	full    bool // a bound was reported
}

// convert fills n, whose place in the tree is set, from an AST node.
func (c *converter) convert(from ast.Node, n *node, depth int) *node {
	n.pos = begin(from)
	c.nodes++
	if depth > maxDepth || c.nodes > maxNodes {
		c.refuse(n, depth)
		return n
	}
	switch v := from.(type) {
	case *ast.MappingNode:
		c.mapping(v.Values, n, depth)
	case *ast.MappingValueNode:
		c.mapping([]*ast.MappingValueNode{v}, n, depth)
	case *ast.SequenceNode:
		c.list(v, n, depth)
	case *ast.AnchorNode:
		c.anchor(v, n, depth)
	case *ast.AliasNode:
		c.alias(v, n, depth)
	case *ast.NullNode, nil:
		n.kind = kindNull
	default:
		c.scalar(from, n)
	}
	return n
}

func (c *converter) refuse(n *node, depth int) {
	n.failed = true
	if c.full {
		return
	}
	c.full = true
	if depth > maxDepth {
		c.d.fail(n, "nests deeper than %d levels", maxDepth)
		return
	}
	c.d.fail(n, "the file has more than %d values once its aliases are followed", maxNodes)
}

func (c *converter) mapping(values []*ast.MappingValueNode, n *node, depth int) {
	n.kind = kindMapping
	seen := make(map[string]*node, len(values))
	for _, v := range values {
		child, ok := c.key(v, n)
		if !ok {
			continue
		}
		if first := seen[child.key]; first != nil {
			c.d.failAt(child.keyPos, child.path(), "is given twice, first in line %d", first.keyPos.line)
			continue
		}
		seen[child.key] = child
		n.entries = append(n.entries, child)
		c.convert(v.Value, child, depth+1)
		if c.d.bare[child.keyPos] {
			c.d.failAt(child.keyPos, child.path(), "%s", unquoted(child.key))
			child.failed = true
		}
	}
}

// key makes the child of a mapping, or reports a key that cannot be one.
func (c *converter) key(v *ast.MappingValueNode, n *node) (*node, bool) {
	child := &node{parent: n, keyPos: begin(v.Key)}
	switch k := v.Key.(type) {
	case *ast.StringNode:
		child.key = k.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		child.key = k.GetToken().Value
	case *ast.MergeKeyNode:
		c.d.failAt(child.keyPos, n.path(), "merge keys (<<) are not taken: write the keys out, or lay them over by zones.ZONE.set")
		return nil, false
	default:
		c.d.failAt(child.keyPos, n.path(), "a key must be one word")
		return nil, false
	}
	return child, true
}

func (c *converter) list(v *ast.SequenceNode, n *node, depth int) {
	n.kind = kindList
	for i, item := range v.Values {
		child := &node{parent: n, index: i}
		n.entries = append(n.entries, child)
		c.convert(item, child, depth+1)
	}
}

func (c *converter) anchor(v *ast.AnchorNode, n *node, depth int) {
	name := v.Name.GetToken().Value
	c.anchors[name] = v.Value
	c.within(name, v.Value, n, depth)
}

func (c *converter) alias(v *ast.AliasNode, n *node, depth int) {
	name := v.Value.GetToken().Value
	value, ok := c.anchors[name]
	for _, o := range c.open {
		if o == name {
			n.kind = kindScalar
			c.d.fail(n, "*%s stands inside what it repeats", name)
			return
		}
	}
	if !ok {
		n.kind = kindScalar
		c.d.fail(n, "*%s repeats nothing: no &%s stands before it; as text it needs quotes, %s", name, name, quote("*"+name))
		return
	}
	c.within(name, value, n, depth)
}

// within converts the value of an anchor, one level down so that chains of anchors end.
func (c *converter) within(name string, value ast.Node, n *node, depth int) {
	c.open = append(c.open, name)
	c.convert(value, n, depth+1)
	c.open = c.open[:len(c.open)-1]
}

// scalar takes numbers and booleans by their text, as the key they belong to decides what they mean. Only strings
// have the environment put in.
func (c *converter) scalar(from ast.Node, n *node) {
	n.kind = kindScalar
	switch v := from.(type) {
	case *ast.StringNode:
		if c.d.bare[n.pos] {
			c.d.fail(n, "%s", unquoted(v.Value))
			return
		}
		c.text(v.Value, n)
	case *ast.LiteralNode:
		c.text(v.Value.Value, n)
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		n.text = v.GetToken().Value
	case *ast.TagNode:
		c.d.fail(n, "tags (%s) are not taken", quote(v.Start.Value))
	default:
		c.d.fail(n, "%s is not taken here", from.Type())
	}
}

func (c *converter) text(s string, n *node) {
	text, err := expand(s, c.d.env)
	if err != nil {
		c.d.fail(n, "%v", err)
		return
	}
	n.text = text
}
