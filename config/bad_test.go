package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nearzone/nearzone/config"
)

var update = flag.Bool("update", false, "write the messages that bad files give into them")

// environment is what the files of testdata may use.
func environment(name string) (string, bool) {
	v, ok := map[string]string{
		"PORT":               "8080",
		"EMPTY":              "",
		"HOST":               "play.example.com",
		"NEARZONE_FLEET_KEY": "0123456789abcdef0123456789abcdef",
		"KEY":                "0123456789abcdef0123456789abcdef",
		"SHORT":              "secret",
		"DOLLAR":             "$PORT ${PORT}",
	}[name]
	return v, ok
}

// header reads the comments at the top of a file: `# want: 3:5: key.path: message`, `# zone: NAME`.
func header(data string) (wants []string, zone, body string) {
	for {
		line, rest, _ := strings.Cut(data, "\n")
		if want, ok := strings.CutPrefix(line, "# want: "); ok {
			wants = append(wants, want)
		} else if z, ok := strings.CutPrefix(line, "# zone: "); ok {
			zone = z
		} else {
			return wants, zone, data
		}
		data = rest
	}
}

// Lines of a bad file count from below its header, so that its wants stay right when one is added.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 30 {
		t.Fatalf("bad files: got %d (%v), want at least 30", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			wants, zone, body := header(string(data))
			_, err = config.Parse("f", []byte(body), config.Options{Zone: zone, Env: environment})
			got := messages(t, err)
			if *update {
				rewrite(t, file, got, zone, body)
				return
			}
			if g, w := strings.Join(got, "\n"), strings.Join(wants, "\n"); g != w {
				t.Errorf("%s\n got: %s\nwant: %s", file, strings.Join(got, "\n      "), strings.Join(wants, "\n      "))
			}
		})
	}
}

// messages are the errors one by one, without the name of the file.
func messages(t *testing.T, err error) []string {
	t.Helper()
	var all config.Errors
	if !errors.As(err, &all) {
		t.Fatalf("error: got %T (%v), want config.Errors", err, err)
	}
	var out []string
	for _, e := range all.Unwrap() {
		out = append(out, strings.TrimPrefix(strings.TrimPrefix(e.Error(), "f:"), " "))
	}
	return out
}

func rewrite(t *testing.T, file string, wants []string, zone, body string) {
	t.Helper()
	var b strings.Builder
	for _, w := range wants {
		b.WriteString("# want: " + w + "\n")
	}
	if zone != "" {
		b.WriteString("# zone: " + zone + "\n")
	}
	b.WriteString(body)
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
