package config

import (
	"fmt"
	"strings"
)

// expand puts the environment into a scalar: ${NAME}, ${NAME:-default} where NAME is undefined or empty, and $$ for
// a dollar. What is put in is not looked at again.
func expand(s string, env func(string) (string, bool)) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "$")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		if strings.HasPrefix(rest, "$") {
			b.WriteByte('$')
			s = rest[1:]
			continue
		}
		body, after, closed := strings.Cut(strings.TrimPrefix(rest, "{"), "}")
		if !strings.HasPrefix(rest, "{") || !closed {
			return "", fmt.Errorf("%s has a lone $: want ${NAME}, or $$ for a dollar", quote(s))
		}
		value, err := variable(body, env)
		if err != nil {
			return "", err
		}
		b.WriteString(value)
		s = after
	}
}

// variable is the value of what stands between the braces.
func variable(body string, env func(string) (string, bool)) (string, error) {
	name, fallback, hasFallback := strings.Cut(body, ":-")
	if !isVariable(name) {
		return "", fmt.Errorf("%s is not the name of a variable: want ${NAME} or ${NAME:-default}", quote(name))
	}
	value, defined := env(name)
	if hasFallback && value == "" {
		return fallback, nil
	}
	if !defined {
		return "", fmt.Errorf("${%s} is not defined in the environment: set it, or give a default, ${%s:-…}", name, name)
	}
	return value, nil
}

func isVariable(name string) bool {
	for i, r := range name {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != "" && len(name) <= 128
}
