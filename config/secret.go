package config

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// minSecret is the shortest secret taken: keys are derived from it, and what can be guessed protects nothing.
const minSecret = 16

// maxSecret bounds the read of a secret's file.
const maxSecret = 64 << 10

// String never shows the secret.
func (s Secret) String() string { return "[secret]" }

// GoString never shows the secret.
func (s Secret) GoString() string { return "config.Secret([secret])" }

// Value is the secret itself; empty when none was given.
func (s Secret) Value() string { return s.value }

// IsSet reports whether a secret was given.
func (s Secret) IsSet() bool { return s.value != "" }

// NewSecret makes a secret from a value, for callers that have no file.
func NewSecret(v string) Secret { return Secret{value: v} }

// secretShape is {file: …} or {env: …}. A secret that cannot be read refuses the configuration.
type secretShape struct{ into *Secret }

func (s secretShape) keys() mapping {
	return mapping{
		key("file", text(&s.into.File, "a file"), "File with the secret; white space around it does not count."),
		key("env", text(&s.into.Env, "the name of a variable"), "Variable of the environment with the secret."),
		notYet("ssm"),
	}
}

func (s secretShape) read(d *decoder, n *node) {
	if n.kind == kindScalar {
		d.report(n, "a secret does not stand in the file: want {file: …} or {env: …}")
		return
	}
	s.keys().read(d, n)
	if n.broken() {
		return
	}
	if (s.into.File == "") == (s.into.Env == "") {
		d.report(n, "want one of {file: …} and {env: …}")
		return
	}
	if !d.secrets {
		return
	}
	v, err := s.into.load(d.env)
	if err == nil && len(v) < minSecret {
		err = fmt.Errorf("has %d characters: want at least %d (openssl rand -hex 32)", len(v), minSecret)
	}
	if err != nil {
		d.report(n.entries[0], "%v", err)
		return
	}
	s.into.value = v
}

func (s secretShape) schema() object { return s.keys().schema() }

// load reads the secret. No error shows any of it.
func (s *Secret) load(env func(string) (string, bool)) (string, error) {
	v, err := s.raw(env)
	if v = strings.TrimSpace(v); err == nil && v == "" {
		err = fmt.Errorf("%s is empty: want the secret in it", quote(s.File+s.Env))
	}
	return v, err
}

func (s *Secret) raw(env func(string) (string, bool)) (string, error) {
	if s.Env != "" {
		v, ok := env(s.Env)
		if !ok {
			return "", fmt.Errorf("%s is not defined in the environment: want the secret in it", quote(s.Env))
		}
		return v, nil
	}
	f, err := os.Open(s.File)
	if err != nil {
		return "", fmt.Errorf("cannot read the secret: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return "", fmt.Errorf("cannot read the secret: %w", err)
	}
	return string(b), nil
}
