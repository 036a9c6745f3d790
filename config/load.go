package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
)

// Options say for whom a file is read.
type Options struct {
	// Zone is the node's own zone, as the command line, the environment or EC2 metadata has it: the keys of
	// zones.ZONE.set are laid over the file, and node.zone becomes it. Empty: node.zone of the file; when that is
	// auto nothing is laid over.
	Zone string
	// Env looks up ${NAME} and {env: NAME}; nil is os.LookupEnv.
	Env func(string) (string, bool)
}

// Load reads a file. The error is an [Errors], with all that is wrong with the file, unless the file cannot be read.
func Load(path string, o Options) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, o)
}

// Parse reads data; name stands for it in errors. It reads the files of secrets and nothing else. The overlays of
// every zone are checked, whichever zone it is for.
func Parse(name string, data []byte, o Options) (*Config, error) {
	if o.Env == nil {
		o.Env = os.LookupEnv
	}
	d := &decoder{file: name, env: o.Env, secrets: true}
	root := d.parseTree(data)
	if root == nil {
		return nil, d.errs.sorted()
	}
	zone := zoneOf(root, o)
	c := d.build(root, zone)
	d.checkOverlays(root, zone)
	if len(d.errs) > 0 {
		return nil, d.errs.sorted()
	}
	sum := sha256.Sum256(data)
	c.files = d.files
	c.Hash = hex.EncodeToString(sum[:])[:12]
	for _, w := range d.warnings.sorted() {
		c.Warnings = append(c.Warnings, w.Error())
	}
	return c, nil
}

// zoneOf is the zone whose overlay counts; empty when it is not known.
func zoneOf(root *node, o Options) string {
	if o.Zone != "" && o.Zone != auto {
		return o.Zone
	}
	if z := root.get("node").get("zone"); z != nil && z.kind == kindScalar && z.text != auto {
		return z.text
	}
	return ""
}

// build reads the file as the given zone sees it.
func (d *decoder) build(root *node, zone string) *Config {
	if set := root.get("zones").get(zone).get("set"); set != nil && set.kind == kindMapping {
		root = overlay(root, set)
	}
	c := Default()
	c.shape().read(d, root)
	if zone != "" {
		c.Node.Zone = zone
	}
	c.resolve(d, root)
	d.check(c, root)
	return c
}

// checkOverlays reads the file as each other zone will see it. Secrets and warnings are those nodes' own.
func (d *decoder) checkOverlays(root *node, own string) {
	zones := root.get("zones")
	if zones == nil {
		return
	}
	if len(zones.entries) > maxZones {
		d.report(zones, "has %d zones: want at most %d", len(zones.entries), maxZones)
		return
	}
	for _, z := range zones.entries {
		if z.key == own || z.get("set") == nil {
			continue
		}
		other := &decoder{file: d.file, env: d.env}
		other.build(root, z.key)
		d.errs = append(d.errs, other.errs...)
		if len(d.errs) > maxErrors {
			return
		}
	}
}
