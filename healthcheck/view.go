package healthcheck

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"
)

// Bounds of a view from the wire. A fleet is tens of zones and hundreds of nodes.
const (
	maxViewSize = 256 << 10
	maxEntries  = 4096
	maxName     = 255
	maxOnward   = time.Minute
)

// View is what one node sees of the others, of its origins and of itself. It travels over the fleet's topic
// "health" as JSON. A newer release may add keys; older ones ignore them.
type View struct {
	Node string `json:"node"` // config.ZoneNode.ID of the viewer
	Zone string `json:"zone"`
	Boot uint64 `json:"boot"` // grows with every start of the node, such as its start time
	Seq  uint64 `json:"seq"`  // grows with every view of one start

	Peers    map[string]bool          `json:"peers,omitempty"`   // node -> answers its health check
	Origins  map[string]bool          `json:"origins,omitempty"` // origin name -> a server of it can be reached
	Onward   map[string]time.Duration `json:"onward,omitempty"`  // origin name -> round trip from this zone, in nanoseconds
	Draining bool                     `json:"draining,omitempty"`
}

// Encode is the view as it travels.
func (v View) Encode() []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("healthcheck: encode view: " + err.Error()) // strings, booleans and numbers always encode
	}
	return b
}

// DecodeView reads a view from a peer, which may be of another release or broken: sizes, names and times are
// held to bounds.
func DecodeView(b []byte) (View, error) {
	if len(b) > maxViewSize {
		return View{}, fmt.Errorf("decode view: %d bytes, at most %d", len(b), maxViewSize)
	}
	var v View
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&v); err != nil {
		return View{}, fmt.Errorf("decode view: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return View{}, errors.New("decode view: data after its end")
	}
	if err := v.check(); err != nil {
		return View{}, fmt.Errorf("decode view: %w", err)
	}
	return v, nil
}

func (v View) check() error {
	if !validName(v.Node) || !validName(v.Zone) {
		return fmt.Errorf("node %.40q of zone %.40q: both must have 1 to %d bytes", v.Node, v.Zone, maxName)
	}
	if n := len(v.Peers) + len(v.Origins) + len(v.Onward); n > maxEntries {
		return fmt.Errorf("view of %s: %d entries, at most %d", v.Node, n, maxEntries)
	}
	for _, names := range []map[string]bool{v.Peers, v.Origins} {
		for name := range names {
			if !validName(name) {
				return fmt.Errorf("view of %s: name %.40q must have 1 to %d bytes", v.Node, name, maxName)
			}
		}
	}
	for name, rtt := range v.Onward {
		if !validName(name) || rtt < 0 || rtt > maxOnward {
			return fmt.Errorf("view of %s: onward %.40q is %v, must be within 0s and %v", v.Node, name, rtt, maxOnward)
		}
	}
	return nil
}

func validName(s string) bool { return s != "" && len(s) <= maxName }

// after reports whether v was made after w, by the same node.
func (v View) after(w View) bool {
	return v.Boot > w.Boot || (v.Boot == w.Boot && v.Seq > w.Seq)
}

// sameVerdicts reports whether both say the same, round trips aside.
func (v View) sameVerdicts(w View) bool {
	return v.Zone == w.Zone && v.Draining == w.Draining &&
		maps.Equal(v.Peers, w.Peers) && maps.Equal(v.Origins, w.Origins)
}
