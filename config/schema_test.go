package config_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/nearzone/nearzone/config"
)

func schema(t *testing.T) map[string]any {
	t.Helper()
	var s map[string]any
	if err := json.Unmarshal(config.Schema(), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// schemaKeys lists the paths of every key, `*` for names of the operator's choosing.
func schemaKeys(t *testing.T) []string {
	t.Helper()
	keys := map[string]bool{}
	walkSchema(schema(t), "", keys)
	var out []string
	for k := range keys {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func walkSchema(s map[string]any, path string, keys map[string]bool) {
	for k, p := range properties(s) {
		keys[join(path, k)] = true
		walkSchema(p.(map[string]any), join(path, k), keys)
	}
	if more, ok := s["additionalProperties"].(map[string]any); ok {
		walkSchema(more, join(path, "*"), keys)
	}
	if items, ok := s["items"].(map[string]any); ok {
		walkSchema(items, path, keys)
	}
	for _, member := range members(s) {
		walkSchema(member.(map[string]any), path, keys)
	}
}

func properties(s map[string]any) map[string]any { p, _ := s["properties"].(map[string]any); return p }
func members(s map[string]any) []any             { m, _ := s["anyOf"].([]any); return m }

// fits checks a value against the part of JSON Schema that we use, and says where it does not fit.
func fits(root, s map[string]any, v any, path string) error {
	if ref, ok := s["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/definitions/")
		return fits(root, root["definitions"].(map[string]any)[name].(map[string]any), v, path)
	}
	if union := members(s); union != nil && !slices.ContainsFunc(union, func(m any) bool { return fits(root, m.(map[string]any), v, path) == nil }) {
		return fmt.Errorf("%s: %v fits none of its members", path, v)
	}
	if words, ok := s["enum"].([]any); ok && !slices.Contains(words, v) {
		return fmt.Errorf("%s: %v is not in %v", path, v, words)
	}
	if kinds := kindsOf(s); kinds != nil && !slices.ContainsFunc(kinds, func(k string) bool { return isKind(k, v) }) {
		return fmt.Errorf("%s: %v is not %v", path, v, kinds)
	}
	switch v := v.(type) {
	case string:
		if p, ok := s["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(v) {
			return fmt.Errorf("%s: %q does not match %s", path, v, p)
		}
	case map[string]any:
		return fitsObject(root, s, v, path)
	case []any:
		items, _ := s["items"].(map[string]any)
		for i, x := range v {
			if err := fits(root, items, x, fmt.Sprintf("%s[%d]", path, i)); items != nil && err != nil {
				return err
			}
		}
	}
	return nil
}

func fitsObject(root, s, v map[string]any, path string) error {
	required, _ := s["required"].([]any)
	for _, r := range required {
		if _, ok := v[r.(string)]; !ok {
			return fmt.Errorf("%s: %v is missing", path, r)
		}
	}
	for k, x := range v {
		part, ok := properties(s)[k].(map[string]any)
		if more, isSchema := s["additionalProperties"].(map[string]any); !ok && isSchema {
			part, ok = more, true
		}
		if !ok && s["additionalProperties"] == false {
			return fmt.Errorf("%s: unknown key %s", path, k)
		}
		if err := fits(root, part, x, join(path, k)); ok && err != nil {
			return err
		}
	}
	return nil
}

func kindsOf(s map[string]any) []string {
	switch k := s["type"].(type) {
	case string:
		return []string{k}
	case []any:
		var out []string
		for _, x := range k {
			out = append(out, x.(string))
		}
		return out
	}
	return nil
}

func isKind(kind string, v any) bool {
	switch v.(type) {
	case nil:
		return kind == "null"
	case string:
		return kind == "string"
	case bool:
		return kind == "boolean"
	case float64:
		return kind == "number"
	case uint64, int64:
		return kind == "integer" || kind == "number"
	case map[string]any:
		return kind == "object"
	case []any:
		return kind == "array"
	}
	return false
}

func document(t *testing.T, data string) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(data), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSchemaTakesWhatLoadTakes(t *testing.T) {
	root := schema(t)
	files, _ := filepath.Glob("testdata/good/*.yaml")
	for _, file := range append(files, "reference.yaml") {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// The plain decoder of the library splits these as rejoin.go says, so they are quoted for it.
		text := regexp.MustCompile(`([\[ ])(h2c://[^\],]+|2001:DB8::1)`).ReplaceAllString(string(b), `$1"$2"`)
		if err := fits(root, root, document(t, text), ""); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestSchemaRefusesWhatIsPlainlyWrong(t *testing.T) {
	root := schema(t)
	for _, name := range []string{
		"unknown-key", "unknown-key-deep", "not-in-this-version", "durations", "sizes", "kinds", "null-values",
		"balance", "cache", "streams", "tls", "overlay", "secrets-in-file", "own-zone", "geo",
	} {
		b, err := os.ReadFile("testdata/bad/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		got := fits(root, root, document(t, string(b)), "")
		if name == "own-zone" { // wrong only for one node
			if got != nil {
				t.Errorf("%s: got %v, want it taken", name, got)
			}
			continue
		}
		if got == nil {
			t.Errorf("%s: is taken, want it refused", name)
		}
	}
}
