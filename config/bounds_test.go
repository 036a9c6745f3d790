package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
)

// Files at or past every bound are refused within seconds.
func TestBounds(t *testing.T) {
	var aliases strings.Builder
	aliases.WriteString("a: &a [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 25 {
		fmt.Fprintf(&aliases, "%c: &%c [*%c,*%c]\n", 'b'+i, 'b'+i, 'a'+i, 'a'+i)
	}
	tests := map[string]struct{ yaml, want string }{
		"size":       {"a: " + strings.Repeat("x", 5<<20), "f: has more than 4 MiB"},
		"brackets":   {strings.Repeat("[", 4<<20), "f: has more than 262144 signs of YAML"},
		"words":      {strings.Repeat("- a\n", 60_000), "f:16385:1: has more than 32768 words"},
		"flow depth": {strings.Repeat("[", 20_000), "nests deeper than 32 levels"},
		"map depth":  {strings.Repeat("{a: ", 20_000), "nests deeper than 32 levels"},
		"dash depth": {strings.Repeat("- ", 20_000), "nests deeper than 32 levels"},
		"question":   {strings.Repeat("? ", 20_000), "nests deeper than 32 levels"},
		"anchors":    {"a: " + strings.Repeat("&a ", 20_000), "f:1:"},
		"aliases":    {aliases.String(), "values once its aliases are followed"},
		"keys":       {repeated("k%d: a\n", 10_000), "k0: unknown key"},
		"zones":      {"zones:\n" + repeated("  z%d: {set: {log: {}}}\n", 2_000), "zones: has"},
		"sites":      {"sites:\n" + repeated("  s%d: {hosts: [a%d.example.com]}\n", 2_500), "sites.s0: origin is missing"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := config.Parse("f", []byte(tt.yaml), config.Options{Env: environment})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error: got %.200v, want %q in it", err, tt.want)
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %v, want under 30s", took)
			}
		})
	}
}

func repeated(format string, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(format, "%d", fmt.Sprint(i)))
	}
	return b.String()
}

func TestUnreadableFiles(t *testing.T) {
	if _, err := config.Load("testdata/none.yaml", config.Options{}); err == nil || !strings.Contains(err.Error(), "testdata/none.yaml") {
		t.Errorf("missing file: got %v, want an error that names it", err)
	}
	if _, err := config.Load("testdata", config.Options{}); err == nil {
		t.Error("directory: got no error")
	}
}

func TestByteOrderMarkAndCRLF(t *testing.T) {
	c := parse(t, "\ufeffnode:\r\n  name: edge-1\r\nlog:\r\n  level: debug\r\n", "")
	same(t, "name", c.Node.Name, "edge-1")
	same(t, "level", c.Log.Level, "debug")
}

// Plain values with colons need no quotes, wherever they stand.
func TestColonsInLists(t *testing.T) {
	c := parse(t, `origins: {a: {servers: [http://10.0.0.1:80, h2c://a.b:8080, "https://c:1"]}, b: {servers: [10.0.0.1:7777, d:1]}}
sites: {s: {hosts: ["*"], origin: a}}
streams: {t: {listen: tcp://:7777, origin: b}}
zones: {us-west-2: {nodes: [[2001:db8::1, 10.0.0.1], 10.0.0.2:8080]}}
listen: {http: :8080, trust: {proxies: [::1, fc00::/7, 2001:db8::/32, ::ffff:10.0.0.1]}}
`, "")
	same(t, "a", fmt.Sprint(c.Origin("a").Servers), "[{http 10.0.0.1 80 } {h2c a.b 8080 } {https c 1 }]")
	same(t, "b", fmt.Sprint(c.Origin("b").Servers), "[{ 10.0.0.1 7777 } { d 1 }]")
	same(t, "nodes", fmt.Sprint(c.Zones[0].Nodes), "[{[2001:db8::1 10.0.0.1] 0} {[10.0.0.2] 8080}]")
	same(t, "proxies", fmt.Sprint(c.Listen.Trust.Proxies), "[::1/128 fc00::/7 2001:db8::/32 10.0.0.1/32]")
}
