package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nearzone/nearzone/config"
)

// Whatever the bytes, Parse returns soon, with a configuration or with errors that have a position inside the file.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*/*.yaml", "reference.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		start := time.Now()
		c, err := config.Parse("f", data, config.Options{Zone: "us-west-2", Env: environment})
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("parse of %d bytes took %v, want under 20s", len(data), took)
		}
		if (c == nil) == (err == nil) {
			t.Fatalf("parse: got %v and %v, want one of them", c, err)
		}
		if c != nil {
			useAll(c)
			return
		}
		var all config.Errors
		if !errors.As(err, &all) || len(all) == 0 {
			t.Fatalf("error: got %T %v, want config.Errors", err, err)
		}
		for _, e := range all {
			if e.Message == "" || e.Line < 0 || e.Line > len(data)+1 {
				t.Errorf("error: got %+v, want a message and a line of the file", *e)
			}
		}
	})
}

// useAll calls what consumers call.
func useAll(c *config.Config) {
	for _, p := range c.Peers() {
		_, _ = p.ID(), c.CheckPort(p.ZoneNode)
	}
	_, _, _, _, _ = c.Self(), c.Lone(), c.IsHub(), c.HubAddrs(), c.Hosts()
	for _, n := range c.DNS.Names {
		_ = c.OriginsOf(n)
	}
}
