package config

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// line is one line of the file that has something on it.
type line struct {
	number, column int // of its first word, from 1
	text           string
}

// word is the key that the line begins with, or its first word.
func (l line) word() string {
	text, _, _ := strings.Cut(strings.TrimPrefix(l.text, "- "), " ")
	return strings.TrimSuffix(text, ":")
}

// isKey reports whether a key and a colon are on the line.
func (l line) isKey() bool { return strings.Contains(l.text, ": ") || strings.HasSuffix(l.text, ":") }

// isItem reports whether the line begins an item of a list.
func (l line) isItem() bool { return l.text == "-" || strings.HasPrefix(l.text, "- ") }

// begins is the column to compare with that of another line: of the key behind the `- ` of an item, unless that line
// is an item too.
func (l line) begins(item bool) int {
	rest := strings.TrimLeft(strings.TrimPrefix(l.text, "-"), " ")
	if item || !l.isItem() || !(line{text: rest}).isKey() {
		return l.column
	}
	return l.column + len(l.text) - len(rest)
}

// linesOf are the lines of the text with something on them but a comment.
func linesOf(text string) []line {
	var out []line
	for i, s := range strings.Split(text, "\n") {
		content := strings.TrimLeft(s, " ")
		column := len(s) - len(content) + 1
		content = strings.TrimRight(content, " \t\r")
		if content != "" && content[0] != '#' {
			out = append(out, line{i + 1, column, content})
		}
	}
	return out
}

// mistake turns what the parser says of a place into what the operator likely did there, and what to do about it.
func mistake(text string, p position, said string) (position, string) {
	lines := linesOf(text)
	i := 0
	for i < len(lines)-1 && lines[i].number < p.line {
		i++
	}
	if len(lines) == 0 || lines[i].number != p.line {
		return p, said
	}
	l := lines[i]
	switch {
	case strings.Contains(said, "'\t'") || strings.Contains(said, "tab character"):
		return p, "a tab stands here, which YAML does not take: indent with spaces"
	case strings.Contains(l.text, "${"):
		return p, said + `; inside [ ] and { } a variable needs quotes: "${NAME}"`
	case strings.Contains(said, "reserved character"):
		return p, said + ": put quotes around the value"
	case strings.Contains(said, "invalid key"):
		return p, said + "; a value with a colon may need quotes"
	case strings.HasPrefix(said, "mapping value"):
		if strings.Count(l.text, ": ") == 1 && i+1 < len(lines) && lines[i+1].column > l.column && !l.inFlow() {
			next := lines[i+1]
			return position{next.number, next.column}, misplaced(lines, i+1)
		}
		return p, said + "; a value with a colon may need quotes"
	case !l.inFlow() && misreads(said):
		return p, misplaced(lines, i)
	}
	return p, said
}

// inFlow reports whether the line opens a bracket, inside which columns do not count.
func (l line) inFlow() bool { return strings.ContainsAny(l.text[:1], "[{") }

// misreads reports whether the parser found a line where its column lets nothing stand.
func misreads(said string) bool {
	for _, s := range []string{"value is not allowed in this context", "non-map value", "unexpected key name"} {
		if strings.HasPrefix(said, s) {
			return true
		}
	}
	return false
}

// misplaced says what is wrong with where line i begins.
func misplaced(lines []line, i int) string {
	l := lines[i]
	if !l.isKey() && !l.isItem() {
		return fmt.Sprintf("%s is neither a key, which a colon and a space follow, nor an item of a list, which \"- \" begins", quote(l.text))
	}
	msg := fmt.Sprintf("%s begins in column %d, where nothing can: check the indentation: keys of one mapping begin in the same column", quote(l.text), l.column)
	if near := neighbours(lines, i); near != "" {
		msg += " (" + near + ")"
	}
	return msg
}

// neighbours names the columns that were likely meant: of the next line above that stands further left than line i,
// and of the last one of those below it that stand further right.
func neighbours(lines []line, i int) string {
	var near []string
	item, right := lines[i].isItem(), -1
	column := lines[i].column
	for j := i - 1; j >= 0; j-- {
		here := lines[j].begins(item)
		if here > column && (right < 0 || here <= lines[right].begins(item)) {
			right = j
		}
		if here < column {
			near = append(near, lines[j].place(item))
		}
		if lines[j].column <= column {
			break
		}
	}
	if right >= 0 {
		near = append(near, lines[right].place(item))
	}
	return strings.Join(near, ", ")
}

func (l line) place(item bool) string {
	return fmt.Sprintf("%s of line %d in column %d", shorten(l.word(), 30), l.number, l.begins(item))
}

// shorten cuts what is longer than most characters.
func shorten(s string, most int) string {
	if utf8.RuneCountInString(s) > most {
		return string([]rune(s)[:most]) + "…"
	}
	return s
}
