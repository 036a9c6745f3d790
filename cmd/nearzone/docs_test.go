package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/localzone"
)

// environment stands in for a machine's: only what the documents say one should set.
func environment(name string) (string, bool) {
	if name == "NEARZONE_ZONE" {
		return "us-west-2", true
	}
	return "", false
}

func TestExamplesAreGood(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "examples", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples found (%v)", err)
	}
	listens := map[string]string{}
	for _, file := range files {
		cfg, err := config.Load(file, config.Options{Env: environment})
		if err == nil && len(cfg.Zones) > 0 { // as the hub sees it
			cfg, err = config.Load(file, config.Options{Env: environment, Zone: cfg.Home})
		}
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if _, warnings := localzone.Zones(cfg); len(warnings)+len(cfg.Warnings) > 0 {
			t.Errorf("%s warns: %v %v", file, warnings, cfg.Warnings)
		}
		for _, at := range []string{cfg.Listen.HTTP, cfg.Listen.HTTPS, cfg.DNS.Listen, cfg.Admin.Listen} {
			if other := listens[at]; at != "" && other != "" {
				t.Errorf("%s and %s both listen on %s", file, other, at)
			}
			listens[at] = file
		}
	}
}

// TestExamplesRun starts each example as its first lines say, asks whether it lives, and stops it.
func TestExamplesRun(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "examples", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Setenv("NEARZONE_DATA", t.TempDir())
			zone := ""
			if strings.Contains(file, "two-zones") {
				zone = "us-west-2"
			}
			cfg, err := config.Load(file, config.Options{Zone: zone})
			if err != nil {
				t.Fatal(err)
			}
			n, err := newNode(cfg, nodeOptions{Log: testLog(t)})
			if errors.Is(err, syscall.EADDRINUSE) {
				t.Skipf("another program holds a port of this example: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- n.Run(ctx) }()
			var out strings.Builder
			(&testFleet{t: t}).eventually(10*time.Second, "the node says that it lives", func() bool {
				return run(ctx, []string{"healthcheck", "--admin", "http://" + cfg.Admin.Listen}, &out, &out) == 0
			})
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// fence finds the fenced code blocks of a document.
var fence = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```")

func TestYAMLOfTheDocumentsIsGood(t *testing.T) {
	root := filepath.Join("..", "..")
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for _, file := range append(files, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range fence.FindAllStringSubmatch(string(text), -1) {
			blocks++
			if _, err := config.Parse(file, []byte(block[1]), config.Options{Env: environment}); err != nil {
				t.Errorf("%v\nin\n%s", err, block[1])
			}
		}
	}
	if blocks == 0 {
		t.Error("no YAML block found in README.md: the pattern or the document is wrong")
	}
}

func TestCommandLine(t *testing.T) {
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"version"}, 0, "nearzone "},
		{[]string{"--help"}, 0, "validate"},
		{nil, 0, "validate"},
		{[]string{"validate", "../../examples/quickstart.yaml"}, 0, "is good: 0 zones, 1 origins, 1 sites"},
		{[]string{"validate", "../../config/reference.yaml"}, 0, "is good"},
		{[]string{"validate", "no-such-file.yaml"}, 1, "no-such-file.yaml"},
		{[]string{"schema"}, 0, "json-schema"},
		{[]string{"zones"}, 0, "us-west-2-lax-1a"},
		{[]string{"explode"}, 2, "explode"},
		{[]string{"purge", "--admin", "http://127.0.0.1:1"}, 1, "--tag"},
		{[]string{"status", "--admin", "http://127.0.0.1:1"}, 1, "no node answers at http://127.0.0.1:1"},
		{[]string{"healthcheck", "--admin", "http://127.0.0.1:1"}, 1, "not alive"},
	} {
		var out strings.Builder
		if code := run(t.Context(), test.args, &out, &out); code != test.code || !strings.Contains(out.String(), test.want) {
			t.Errorf("nearzone %v: exit %d, want %d, with %q in\n%s", test.args, code, test.code, test.want, out.String())
		}
	}
}
