package config

import (
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"
)

// rejoin mends what the lexer does to plain values with a colon in a list inside braces: in
// {servers: [http://a:80, 2001:db8::1]} it takes each colon for that of a mapping, though none is followed by a
// space (YAML 1.2 §7.3.3). What touches is one word again.
func rejoin(tokens token.Tokens) token.Tokens {
	out := make(token.Tokens, 0, len(tokens))
	var open []token.Type // brackets we are in
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			open = append(open, t.Type)
		case token.SequenceEndType, token.MappingEndType:
			open = open[:max(0, len(open)-1)]
		case token.MappingValueType:
			inList := len(open) > 0 && open[len(open)-1] == token.SequenceStartType
			if inList && i+1 < len(tokens) && isWord(tokens[i+1]) && touches(t, tokens[i+1]) {
				out = joinWord(out, t, tokens[i+1])
				i++
				continue
			}
		}
		out = append(out, t)
	}
	return relinked(out)
}

// joinWord puts a colon and the word that touches it behind the word before, when that touches too.
func joinWord(out token.Tokens, colon, word *token.Token) token.Tokens {
	joined := *colon
	joined.Value, joined.Origin = ":"+word.Value, colon.Origin+word.Origin
	if last := len(out) - 1; last >= 0 && isWord(out[last]) && touches(out[last], colon) {
		joined.Value, joined.Origin = out[last].Value+joined.Value, out[last].Origin+joined.Origin
		joined.Position = out[last].Position
		out = out[:last]
	}
	joined.Type, joined.CharacterType, joined.Indicator = token.StringType, token.CharacterTypeMiscellaneous, token.NotIndicator
	return append(out, &joined)
}

// isWord reports whether the token is a plain value.
func isWord(t *token.Token) bool {
	switch t.Type {
	case token.StringType, token.IntegerType, token.FloatType, token.BoolType, token.NullType,
		token.BinaryIntegerType, token.OctetIntegerType, token.HexIntegerType:
		return true
	}
	return false
}

func touches(a, b *token.Token) bool {
	return a.Position.Line == b.Position.Line && a.Position.Column+utf8.RuneCountInString(a.Value) == b.Position.Column
}

// relinked makes each token know its neighbours again, which the parser asks.
func relinked(tokens token.Tokens) token.Tokens {
	for i, t := range tokens {
		t.Prev, t.Next = nil, nil
		if i > 0 {
			t.Prev, tokens[i-1].Next = tokens[i-1], t
		}
	}
	return tokens
}
