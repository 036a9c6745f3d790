package config

import (
	"strings"

	"github.com/goccy/go-yaml/token"
)

// bareStars makes text of what begins with a star and is no alias, such as the host names * and *.example.com
// without quotes, and notes where each stood: the file is refused, with everything else that is wrong with it.
func (d *decoder) bareStars(tokens token.Tokens) token.Tokens {
	out := make(token.Tokens, 0, len(tokens))
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		end := i + 1
		for end < len(tokens) && t.Type == token.AliasType && touches(tokens[end-1], tokens[end]) && isStarred(tokens[end]) {
			end++
		}
		text := ""
		for _, part := range tokens[i:end] {
			text += part.Value
		}
		if t.Type != token.AliasType || isAlias(text) {
			out = append(out, t)
			continue
		}
		if d.bare == nil {
			d.bare = map[position]bool{}
		}
		d.bare[position{t.Position.Line, t.Position.Column}] = true
		out = append(out, starText(t, text)...)
		i = end - 1
	}
	return relinked(out)
}

// isStarred reports whether the token can go on a word that begins with a star.
func isStarred(t *token.Token) bool { return isWord(t) || t.Type == token.AliasType }

// isAlias reports whether text is a star and a name that an anchor may have.
func isAlias(text string) bool {
	name := strings.TrimSuffix(text[1:], ":")
	return name != "" && strings.Trim(name, "-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// starText is text as a plain value, or as a key, whose colon the lexer has taken for a part of the name.
func starText(star *token.Token, text string) token.Tokens {
	name, isKey := strings.CutSuffix(text, ":")
	word := *star
	word.Type, word.CharacterType, word.Indicator = token.StringType, token.CharacterTypeMiscellaneous, token.NotIndicator
	word.Value, word.Origin = name, strings.TrimSuffix(star.Origin, "*")+name
	if !isKey {
		return token.Tokens{&word}
	}
	at := *star.Position
	at.Column += len(name)
	return token.Tokens{&word, token.MappingValue(&at)}
}

// unquoted is what to say of such a text.
func unquoted(text string) string {
	return "a star begins an alias in YAML: put quotes around it, " + quote(text)
}
