package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/nearzone/nearzone/"

// floors is the map of the house: what of ours each package may import. Imports point down only; change it on
// purpose, and say why in docs/decisions. cmd/nearzone may import everything.
var floors = map[string][]string{
	"config":            {},
	"proxy/rtt":         {},
	"healthcheck":       {"config"},
	"fleet":             {"config"},
	"routing":           {"config"},
	"proxy/cache/store": {"config"},
	"proxy/certs":       {"config"},
	"admin":             {"config"},
	"proxy/cache":       {"config", "proxy/cache/store"},
	"routing/latency":   {"config", "routing"},
	"routing/geo":       {"config", "routing"},
	"routing/dnsserver": {"config", "routing"},
	"localzone":         {"config", "routing"},
	"proxy/origin":      {"config", "healthcheck"},
	"proxy/lane":        {"config", "proxy/cache"},
	"proxy/stream":      {"config", "proxy/origin", "proxy/rtt"},
	"proxy":             {"config", "proxy/cache", "proxy/certs", "proxy/lane", "proxy/origin", "proxy/rtt"},
	"demo":              {"config"},
	"lab":               {},
}

// doors are the heavy libraries and the packages that may import them.
var doors = map[string][]string{
	"github.com/goccy/go-yaml":                                {"config"},
	"github.com/nats-io/":                                     {"fleet"},
	"github.com/gaissmai/bart":                                {"routing", "routing/geo"},
	"github.com/hashicorp/golang-lru":                         {"proxy/cache/store", "proxy/cache"},
	"github.com/caddyserver/certmagic":                        {"proxy/certs"},
	"github.com/mholt/acmez":                                  {"proxy/certs"},
	"github.com/prometheus/client_golang/prometheus/promhttp": {"admin"},
	"github.com/dunglas/httpsfv":                              {"proxy/cache"},
	"github.com/oschwald/maxminddb-golang":                    {"routing/geo"},
	"github.com/miekg/dns":                                    {"routing/dnsserver"},
	"github.com/aws/":                                         {"localzone"},
	"github.com/pires/go-proxyproto":                          {"proxy/stream", "proxy"},
	"github.com/quic-go/":                                     {"proxy"},
	"github.com/alecthomas/kong":                              {"cmd/nearzone"},
}

func TestImportsPointDown(t *testing.T) {
	for dir, imports := range packages(t) {
		allowed, known := floors[dir]
		if !known && dir != "cmd/nearzone" {
			t.Errorf("%s is on no floor: add it to the map", dir)
			continue
		}
		for _, path := range imports {
			if ours, ok := strings.CutPrefix(path, module); ok && dir != "cmd/nearzone" && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s; it may import %v", dir, ours, allowed)
			}
			for library, owners := range doors {
				if strings.HasPrefix(path, library) && !slices.Contains(owners, dir) {
					t.Errorf("%s imports %s, whose door is %v", dir, path, owners)
				}
			}
		}
	}
}

// packages maps each of our directories to what its non-test files import.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			found[filepath.ToSlash(dir)] = append(found[filepath.ToSlash(dir)], name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
