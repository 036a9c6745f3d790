package config_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/nearzone/nearzone/config"
)

func reference(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What the reference sets is what Default has.
func TestReferenceIsDefault(t *testing.T) {
	got, err := config.Load("reference.yaml", config.Options{Env: environment})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "warnings", got.Warnings, []string{"reference.yaml: nothing to do: want listen, origins and sites (or streams, or dns)"})
	got.Warnings = nil
	got.Hash = ""
	want := config.Default()
	want.Fleet.Listen = "127.0.0.1:7422" // no key, so that Load keeps it on loopback
	same(t, "reference.yaml", got, want)
}

// examples are the commented blocks of the reference, each a key at the top and what is under it.
func examples(t *testing.T) []string {
	t.Helper()
	begin := regexp.MustCompile(`^#[a-z]`)
	var blocks []string
	for _, line := range strings.Split(reference(t), "\n") {
		switch {
		case begin.MatchString(line):
			blocks = append(blocks, line[1:]+"\n")
		case strings.HasPrefix(line, "#  ") && len(blocks) > 0:
			blocks[len(blocks)-1] += line[1:] + "\n"
		}
	}
	return blocks
}

// The examples of the reference, taken together, load; and there every key stands that the schema knows.
func TestReferenceNamesEveryKey(t *testing.T) {
	seen := map[string]bool{}
	var together, apart []string
	for _, block := range examples(t) {
		top, _, _ := strings.Cut(block, ":")
		if seen[top] {
			apart = append(apart, block)
			continue
		}
		seen[top] = true
		together = append(together, block)
	}
	file := strings.Join(together, "")
	parse(t, file, "us-west-2")
	mentioned := keysOf(t, reference(t))
	for key := range keysOf(t, file) {
		mentioned[key] = true
	}
	for _, block := range apart {
		top, _, _ := strings.Cut(block, ":")
		others := strings.Join(without(together, top+":"), "")
		parse(t, others+block, "us-west-2")
		for key := range keysOf(t, block) {
			mentioned[key] = true
		}
	}
	for _, only := range []string{"fleet.key.file"} { // stands in a comment, as one secret has one source
		mentioned[only] = true
	}
	for _, key := range schemaKeys(t) {
		if !mentioned[key] && !mentioned[alike(key)] {
			t.Errorf("reference.yaml: lacks %s", key)
		}
	}
}

// alike is the key that stands for others of its kind: a route has the keys of its site, every type of record has
// those of CNAME.
func alike(key string) string {
	key = strings.Replace(key, ".routes.", ".", 1)
	return regexp.MustCompile(`^(dns\.records\.\*)\.[A-Z]+\.`).ReplaceAllString(key, "$1.CNAME.")
}

func without(blocks []string, prefix string) []string {
	var out []string
	for _, b := range blocks {
		if !strings.HasPrefix(b, prefix) {
			out = append(out, b)
		}
	}
	return out
}

// keysOf lists the paths of a file's keys, list items left out.
func keysOf(t *testing.T, file string) map[string]bool {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(file), &v); err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	collect(v, "", keys)
	return keys
}

func collect(v any, path string, keys map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			keys[join(path, k)] = true
			keys[join(path, "*")] = true // as a name of the operator's choosing
			collect(x, join(path, k), keys)
			collect(x, join(path, "*"), keys)
		}
	case []any:
		for _, x := range v {
			collect(x, path, keys)
		}
	}
}

func join(path, key string) string { return strings.TrimPrefix(path+"."+key, ".") }
