package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds on a file. The parser needs time that grows with the square of tokens and depth, and a node costs some
// hundred bytes, so that a file at every bound at once is still refused or read within seconds. A fleet of every
// zone there is, with a hundred sites, needs a tenth of them.
const (
	maxFile   = 4 << 20
	maxMarks  = 256 << 10 // punctuation of YAML in the file, an upper bound of tokens that costs nothing to count
	maxTokens = 32 << 10
	maxNodes  = 64 << 10 // after aliases are followed
	maxDepth  = 32
	maxZones  = 256  // the whole file is read once for each that overlays it; AWS has 47 Local Zones and 34 Regions
	maxColumn = 2048 // of the first word in a line: depth in block style
)

// parseTree reads the file into nodes. It reports to d and returns nil when there is nothing to go on with.
func (d *decoder) parseTree(data []byte) *node {
	text := strings.TrimPrefix(string(data), "\ufeff")
	if msg := unreadable(text); msg != "" {
		d.failAt(position{}, "", "%s", msg)
		return nil
	}
	tokens := lexer.Tokenize(text)
	if p, msg := tooMuch(tokens); msg != "" {
		d.failAt(p, "", "%s", msg)
		return nil
	}
	file, err := parseTokens(d.bareStars(rejoin(tokens)))
	if err != nil {
		d.syntaxError(text, err)
		return nil
	}
	return d.document(file)
}

// unreadable says why the text cannot be looked at.
func unreadable(text string) string {
	switch {
	case len(text) > maxFile:
		return fmt.Sprintf("has more than %d MiB", maxFile>>20)
	case !utf8.ValidString(text):
		return "is not UTF-8 text"
	case strings.ContainsRune(text, 0):
		return "has a NUL byte: want UTF-8 text"
	}
	marks := 0
	for i := range len(text) {
		if strings.IndexByte("[]{},:-?&*!|>%@`\"'\n", text[i]) >= 0 {
			marks++
		}
	}
	if marks > maxMarks {
		return fmt.Sprintf("has more than %d signs of YAML", maxMarks)
	}
	return ""
}

// tooMuch finds what the parser, which calls itself for each level, must not be given.
func tooMuch(tokens token.Tokens) (position, string) {
	flow, run, line := 0, 0, 0
	for i, t := range tokens {
		p := position{t.Position.Line, t.Position.Column}
		first := p.line != line
		line = p.line
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		}
		// `- - -`, `? ? ?` and `&a &b` nest within one line.
		if first || t.Type != tokens[i-1].Type {
			run = 0
		}
		run++
		if flow > maxDepth || run > 2*maxDepth || first && p.column > maxColumn {
			return p, fmt.Sprintf("nests deeper than %d levels", maxDepth)
		}
		if i >= maxTokens {
			return p, fmt.Sprintf("has more than %d words", maxTokens)
		}
	}
	return position{}, ""
}

// parseTokens keeps a panic of the library, which a fuzzer can provoke, from ending a node that reloads.
func parseTokens(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("is no YAML that can be read (%v)", r)
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

func (d *decoder) syntaxError(text string, err error) {
	for p := range d.bare { // which may be all that is wrong
		d.failAt(p, "", "%s", unquoted("*"))
	}
	if len(d.bare) > 0 {
		return
	}
	var syntax *yaml.SyntaxError
	if !errors.As(err, &syntax) || syntax.Token == nil {
		d.failAt(position{}, "", "%v", err)
		return
	}
	p, msg := mistake(text, position{syntax.Token.Position.Line, syntax.Token.Position.Column}, syntax.Message)
	d.failAt(p, "", "%s", msg)
}

// document is the one document of the file.
func (d *decoder) document(file *ast.File) *node {
	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil {
			bodies = append(bodies, doc.Body)
		}
	}
	if len(bodies) == 0 {
		d.failAt(position{}, "", "is empty: want at least listen, origins and sites (try `nearzone demo`, or examples/quickstart.yaml)")
		return nil
	}
	if len(bodies) > 1 {
		d.failAt(begin(bodies[1]), "", "a second document begins here: want one document in a file")
		return nil
	}
	c := converter{d: d, anchors: map[string]ast.Node{}}
	root := c.convert(bodies[0], &node{}, 0)
	if root.kind != kindMapping && !root.broken() {
		d.fail(root, "%s is not a configuration: want a mapping of keys such as listen, origins and sites", root.describe())
	}
	if root.kind != kindMapping {
		return nil
	}
	return root
}

// begin is where a node begins in the file.
func begin(n ast.Node) position {
	switch v := n.(type) {
	case *ast.MappingNode: // whose own token is a colon
		if !v.IsFlowStyle && len(v.Values) > 0 {
			return begin(v.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return begin(v.Key)
	}
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return position{}
	}
	p := n.GetToken().Position
	return position{p.Line, p.Column}
}
