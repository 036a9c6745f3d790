package localzone_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearzone/nearzone/localzone"
)

// service is an instance metadata service, version 2 only.
type service struct {
	*httptest.Server
	mu     sync.Mutex
	items  map[string]string                             // by path; what is not here is 404
	token  func(http.ResponseWriter, *http.Request) bool // called first for a token; true: it has answered
	naked  int                                           // requests without a token
	tokens int
}

const document = `{"availabilityZone": "us-west-2-lax-1a", "region": "us-west-2", "instanceId": "i-1", "privateIp": "10.0.1.10"}`

func newService(t *testing.T, items map[string]string) *service {
	s := &service{items: items}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *service) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" {
		if s.token != nil && s.token(w, r) {
			return
		}
		s.tokens++
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"))
		w.Write([]byte("secret"))
		return
	}
	if r.Header.Get("X-Aws-Ec2-Metadata-Token") != "secret" {
		s.naked++
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	item, ok := s.items[strings.TrimPrefix(r.URL.Path, "/latest/")]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Write([]byte(item))
}

func (s *service) set(path, item string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items[path] = item
}

// run starts an Identity and stops it with the test.
func run(t *testing.T, o localzone.Options) *localzone.Identity {
	t.Helper()
	id := localzone.NewIdentity(o)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- id.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("Run does not end with its context")
		}
	})
	return id
}

func known(t *testing.T, id *localzone.Identity) localzone.Who {
	t.Helper()
	select {
	case <-id.Known():
	case <-time.After(10 * time.Second):
		t.Fatalf("no identity; last error: %v", id.Err())
	}
	who, ok := id.Get()
	if !ok {
		t.Fatal("Known is closed, but Get knows nothing")
	}
	return who
}

func TestIdentityOfALocalZone(t *testing.T) {
	s := newService(t, map[string]string{
		"dynamic/instance-identity/document":       document,
		"meta-data/placement/availability-zone-id": "usw2-lax1-az1",
		"meta-data/public-ipv4":                    "203.0.113.10\n",
		"meta-data/ipv6":                           "2001:db8:a::10",
	})
	who := known(t, run(t, localzone.Options{Endpoint: s.URL}))
	want := localzone.Who{
		Zone: "us-west-2-lax-1a", ZoneID: "usw2-lax1-az1", Region: "us-west-2", InstanceID: "i-1",
		PrivateV4: netip.MustParseAddr("10.0.1.10"), PublicV4: netip.MustParseAddr("203.0.113.10"), V6: netip.MustParseAddr("2001:db8:a::10"),
	}
	if who != want {
		t.Errorf("got %+v\nwant %+v", who, want)
	}
	if s.naked != 0 {
		t.Errorf("%d requests without a token", s.naked)
	}
}

func TestIdentityOfAnAvailabilityZoneIsItsRegion(t *testing.T) {
	s := newService(t, map[string]string{
		"dynamic/instance-identity/document":       `{"availabilityZone": "us-west-2a", "region": "us-west-2", "instanceId": "i-1"}`,
		"meta-data/placement/availability-zone-id": "usw2-az1",
	})
	who := known(t, run(t, localzone.Options{Endpoint: s.URL}))
	if who.Zone != "us-west-2" || who.ZoneID != "usw2-az1" || who.PrivateV4.IsValid() || who.PublicV4.IsValid() || who.V6.IsValid() {
		t.Errorf("got %+v", who)
	}
}

func TestIdentityEndpointFromTheEnvironment(t *testing.T) {
	s := newService(t, map[string]string{"dynamic/instance-identity/document": document})
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", s.URL)
	if who := known(t, run(t, localzone.Options{})); who.Zone != "us-west-2-lax-1a" {
		t.Errorf("got %+v", who)
	}
}

func TestIdentityLearnsLater(t *testing.T) {
	s := newService(t, map[string]string{})
	id := run(t, localzone.Options{Endpoint: s.URL})
	failure(t, id)
	s.set("dynamic/instance-identity/document", document)
	if who := known(t, id); who.Region != "us-west-2" {
		t.Errorf("got %+v", who)
	}
	if err := id.Err(); err != nil {
		t.Errorf("an old error stays: %v", err)
	}
}

// failure waits for the first error.
func failure(t *testing.T, id *localzone.Identity) error {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if err := id.Err(); err != nil {
			return err
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Fatal("no error")
	return nil
}

func TestIdentityErrorsSayWhatToDo(t *testing.T) {
	status := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true }
	}
	silent := func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
	wrong := func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
		w.Write([]byte("not the token"))
		return true
	}
	for _, c := range []struct {
		name     string
		token    func(http.ResponseWriter, *http.Request) bool
		document string
		is       error
		says     string
	}{
		{"switched off", status(403), document, localzone.ErrRefused, "--http-endpoint enabled"},
		{"token not taken", wrong, document, localzone.ErrRefused, "answered 401"},
		{"only version 1", status(404), document, localzone.ErrBadMetadata, "answered 404"},
		{"hop limit", silent, document, localzone.ErrHopLimit, "--http-put-response-hop-limit 2"},
		{"garbage", nil, "<html>captive portal</html>", localzone.ErrBadMetadata, "NEARZONE_ZONE"},
		{"no zone", nil, `{"region": "us-west-2"}`, localzone.ErrBadMetadata, `zone ""`},
		{"another cloud", nil, `{"availabilityZone": "nova", "region": "RegionOne"}`, localzone.ErrBadMetadata, `zone "nova"`},
		{"endless", nil, `{"availabilityZone": "` + strings.Repeat("a", 1<<20), localzone.ErrBadMetadata, "NEARZONE_ZONE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, map[string]string{"dynamic/instance-identity/document": c.document})
			s.token = c.token
			id := run(t, localzone.Options{Endpoint: s.URL})
			err := failure(t, id)
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v\nwant %v that says %q", err, c.is, c.says)
			}
			if _, ok := id.Get(); ok {
				t.Error("an identity came of it")
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if c.name != "token not taken" && s.naked > 0 {
				t.Error("fell back to version 1")
			}
		})
	}
}

func TestIdentityOffEC2(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nothing listens here now
	var log bytes.Buffer
	id := run(t, localzone.Options{Endpoint: "http://" + l.Addr().String(), Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err := failure(t, id); !errors.Is(err, localzone.ErrNoMetadata) || !strings.Contains(err.Error(), "NEARZONE_ZONE") {
		t.Errorf("got %v", err)
	}
}

func TestIdentitySwitchedOffByTheEnvironment(t *testing.T) {
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	if err := failure(t, run(t, localzone.Options{Endpoint: "http://127.0.0.1:1"})); !errors.Is(err, localzone.ErrNoMetadata) || !strings.Contains(err.Error(), "AWS_EC2_METADATA_DISABLED") {
		t.Errorf("got %v", err)
	}
}

// The proxy variables are read once a process, so the test is a process of its own.
func TestIdentityNeverGoesThroughAProxy(t *testing.T) {
	if os.Getenv("NEARZONE_TEST_PROXIED") != "" {
		if err := failure(t, run(t, localzone.Options{Endpoint: "http://192.0.2.1:1"})); !errors.Is(err, localzone.ErrNoMetadata) {
			t.Errorf("got %v", err)
		}
		return
	}
	var asked atomic.Bool
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	defer proxy.Close()
	child := exec.Command(os.Args[0], "-test.run=^TestIdentityNeverGoesThroughAProxy$")
	child.Env = append(os.Environ(), "NEARZONE_TEST_PROXIED=1", "HTTP_PROXY="+proxy.URL)
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if asked.Load() {
		t.Error("the proxy was asked")
	}
}
