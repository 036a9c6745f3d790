package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nearzone/nearzone/config"
)

func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "there.pem")
	if err := os.WriteFile(there, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	const file = `origins:
  app: {servers: ["https://10.0.1.20"], tls: {ca: no-ca.pem, cert: THERE, key: no-key.pem}}
sites: {play: {hosts: [play.example.com], origin: app}}
tls: {certificates: [{cert: no-cert.pem, key: DIR}, {cert: THERE, key: THERE}]}
routing: {geo: [no.mmdb, {file: no-city.mmdb}, {prefix: 198.51.100.0/24, at: [1, 2]}]}
zones: {us-west-2: {set: {tls: {certificates: [{cert: other.pem, key: THERE}]}}}}
`
	yaml := strings.NewReplacer("THERE", there, "DIR", dir).Replace(file)
	err := parse(t, yaml, "").CheckFiles()
	var all config.Errors
	if !errors.As(err, &all) {
		t.Fatalf("error: got %T (%v), want config.Errors", err, err)
	}
	const missing = "cannot be read, no such file or directory: want"
	same(t, "errors", strings.Split(strings.ReplaceAll(all.Error(), dir, "DIR"), "\n"), []string{
		`f:2:51: origins.app.tls.ca: "no-ca.pem" ` + missing + " a PEM file",
		`f:2:` + column(yaml, 2, "no-key.pem") + `: origins.app.tls.key: "no-key.pem" ` + missing + " a PEM file",
		`f:4:29: tls.certificates[0].cert: "no-cert.pem" ` + missing + " a PEM file",
		`f:4:47: tls.certificates[0].key: "DIR" cannot be read, it is a directory: want a PEM file`,
		`f:5:17: routing.geo[0]: "no.mmdb" ` + missing + " an MMDB file",
		`f:5:33: routing.geo[1].file: "no-city.mmdb" ` + missing + " an MMDB file",
	})

	err = parse(t, "tls: {acme: {roots: no-roots.pem}}\n"+strings.Replace(app, "\"*\"", "play.example.com", 1), "").CheckFiles()
	if err == nil || err.Error() != `f:1:21: tls.acme.roots: "no-roots.pem" `+missing+" a PEM file" {
		t.Errorf("error: got %v, want one for tls.acme.roots", err)
	}
	if err := parse(t, "tls: {certificates: [{cert: "+there+", key: "+there+"}]}\n"+app, "").CheckFiles(); err != nil {
		t.Errorf("error: got %v, want none", err)
	}
}

// column is where word begins in a line of the file, as text.
func column(file string, line int, word string) string {
	return strconv.Itoa(strings.Index(strings.Split(file, "\n")[line-1], word) + 1)
}
