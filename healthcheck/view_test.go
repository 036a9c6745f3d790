package healthcheck_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nearzone/nearzone/healthcheck"
)

var fullView = healthcheck.View{
	Node: "203.0.113.10", Zone: "us-west-2-lax-1a", Boot: 7, Seq: 42,
	Peers:    map[string]bool{"198.51.100.5": true, "203.0.113.20": false},
	Origins:  map[string]bool{"app": true, "arena": false},
	Onward:   map[string]time.Duration{"app": 21 * time.Millisecond},
	Draining: true,
}

func TestViewSurvivesTheWire(t *testing.T) {
	got, err := healthcheck.DecodeView(fullView.Encode())
	if err != nil || !reflect.DeepEqual(got, fullView) {
		t.Errorf("got %+v, %v, want %+v", got, err, fullView)
	}
}

func TestViewOfANewerReleaseIsRead(t *testing.T) {
	if _, err := healthcheck.DecodeView([]byte(`{"node":"a","zone":"z","boot":1,"seq":1,"moon":"full"}`)); err != nil {
		t.Error(err)
	}
}

func TestDecodeViewRefuses(t *testing.T) {
	many := `{"node":"a","zone":"z","peers":{`
	for i := range 5000 {
		many += fmt.Sprintf(`"n%d":true,`, i)
	}
	for name, in := range map[string]string{
		"empty":              ``,
		"null":               `null`,
		"no node":            `{"zone":"z"}`,
		"no zone":            `{"node":"a"}`,
		"not an object":      `[1]`,
		"wrong type":         `{"node":"a","zone":"z","peers":{"b":"yes"}}`,
		"negative seq":       `{"node":"a","zone":"z","seq":-1}`,
		"cut off":            `{"node":"a","zone":"z"`,
		"data after":         `{"node":"a","zone":"z"} {}`,
		"empty peer":         `{"node":"a","zone":"z","peers":{"":true}}`,
		"long name":          `{"node":"` + strings.Repeat("x", 256) + `","zone":"z"}`,
		"negative onward":    `{"node":"a","zone":"z","onward":{"app":-1}}`,
		"onward of an hour":  `{"node":"a","zone":"z","onward":{"app":3600000000000}}`,
		"onward of infinity": `{"node":"a","zone":"z","onward":{"app":1e999}}`,
		"too many entries":   many + `"last":true}}`,
		"too large":          `{"node":"a","zone":"z","x":"` + strings.Repeat("x", 300<<10) + `"}`,
	} {
		if v, err := healthcheck.DecodeView([]byte(in)); err == nil {
			t.Errorf("%s: decoded to %+v, want an error", name, v)
		}
	}
}

func FuzzDecodeView(f *testing.F) {
	f.Add(fullView.Encode())
	f.Add([]byte(`{"node":"a","zone":"z","onward":{"app":1}}`))
	f.Add([]byte(`{"Node":"a","node":"b","ZONE":"z"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := healthcheck.DecodeView(in)
		if err != nil {
			return
		}
		once := v.Encode()
		again, err := healthcheck.DecodeView(once)
		if err != nil {
			t.Fatalf("own encoding of %q refused: %v", in, err)
		}
		if !bytes.Equal(once, again.Encode()) {
			t.Errorf("encoding of %q is not stable", in)
		}
		healthcheck.NewQuorum(time.Second, nil).Observe(v, time.Now())
	})
}
