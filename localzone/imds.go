package localzone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

// Why EC2 metadata gave no answer.
var (
	ErrNoMetadata  = errors.New("no EC2 metadata service")        // not on EC2, or switched off
	ErrHopLimit    = errors.New("EC2 metadata token timed out")   // most likely a container one hop too far
	ErrBadMetadata = errors.New("EC2 metadata makes no sense")    // something else answers at that address
	ErrRefused     = errors.New("EC2 metadata refuses to answer") // 401 or 403
)

const (
	endpointVar = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
	modeVar     = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"

	dialTimeout   = 500 * time.Millisecond // link-local: it answers in under a millisecond or not at all
	headerTimeout = time.Second
	askTimeout    = 5 * time.Second // for all questions of one round
	maxAnswer     = 64 << 10
)

// metadata asks the instance metadata service, version 2 only; one question at a time.
type metadata struct {
	client   *imds.Client
	http     *metadataClient
	endpoint string // for error texts
}

func newMetadata(endpoint string) metadata {
	if endpoint == "" {
		endpoint = os.Getenv(endpointVar)
	}
	client := &metadataClient{client: newHTTPClient()}
	o := imds.Options{
		Endpoint:       endpoint,
		HTTPClient:     client,
		EnableFallback: aws.FalseTernary, // version 1 answers anybody who can make us fetch a URL
		Retryer:        aws.NopRetryer{}, // Run asks again, and says in between why there is no answer
	}
	if strings.EqualFold(os.Getenv(modeVar), "IPv6") {
		o.EndpointMode = imds.EndpointModeStateIPv6
	}
	m := metadata{client: imds.New(o), http: client, endpoint: endpoint}
	if endpoint == "" {
		m.endpoint = "http://169.254.169.254"
		if o.EndpointMode == imds.EndpointModeStateIPv6 {
			m.endpoint = "http://[fd00:ec2::254]"
		}
	}
	return m
}

// newHTTPClient differs from the SDK's own in that a proxy of the environment never sees a metadata request, and in
// that it leaves no idle connection behind.
func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			ResponseHeaderTimeout: headerTimeout,
			DisableKeepAlives:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// metadataClient bounds what an answer may be, since the SDK reads it whole, and remembers how the last request
// went, since the SDK's errors about tokens hide it from errors.As.
type metadataClient struct {
	client *http.Client
	code   int   // HTTP status; 0 if there was no answer
	err    error // why there was none
}

// Do is what imds.HTTPClient asks for.
func (c *metadataClient) Do(r *http.Request) (*http.Response, error) {
	resp, err := c.client.Do(r)
	c.code, c.err = 0, err
	if err != nil {
		return nil, err
	}
	c.code = resp.StatusCode
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	return resp, nil
}

// who asks for all we want to know. The Region is the identity document's, never the zone's name less its letter.
func (m metadata) who(ctx context.Context) (Who, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	doc, err := m.client.GetInstanceIdentityDocument(ctx, nil)
	if err != nil {
		return Who{}, m.explain(err)
	}
	region, ok := RegionOf(doc.AvailabilityZone)
	if !ok || (doc.Region != "" && !isRegion(doc.Region)) {
		return Who{}, fmt.Errorf("%w: identity document at %s has zone %.80q and region %.80q; set NEARZONE_ZONE or node.zone if this is not EC2",
			ErrBadMetadata, m.endpoint, doc.AvailabilityZone, doc.Region)
	}
	if doc.Region != "" {
		region = doc.Region
	}
	w := Who{Zone: ZoneOf(doc.AvailabilityZone), Region: region, InstanceID: doc.InstanceID}
	w.PrivateV4, _ = netip.ParseAddr(doc.PrivateIP)
	if err := m.rest(ctx, &w); err != nil {
		return Who{}, err
	}
	return w, nil
}

// rest fills in what an instance may lack.
func (m metadata) rest(ctx context.Context, w *Who) error {
	var public, v6 string
	for _, ask := range []struct {
		path string
		to   *string
	}{
		{"placement/availability-zone-id", &w.ZoneID},
		{"public-ipv4", &public},
		{"ipv6", &v6},
	} {
		text, err := m.text(ctx, ask.path)
		if err != nil {
			return m.explain(err)
		}
		*ask.to = text
	}
	w.PublicV4, _ = netip.ParseAddr(public)
	w.V6, _ = netip.ParseAddr(v6)
	return nil
}

// text is one item; empty if the instance has no such item.
func (m metadata) text(ctx context.Context, path string) (string, error) {
	out, err := m.client.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil && m.http.code == http.StatusNotFound {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer out.Content.Close()
	b, err := io.ReadAll(out.Content)
	return strings.TrimSpace(string(b)), err
}

// explain turns the SDK's error into one that says what to do.
func (m metadata) explain(err error) error {
	var dial *net.OpError
	var timeout net.Error
	code, sent := m.http.code, m.http.err
	switch {
	case strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true"):
		return fmt.Errorf("%w: AWS_EC2_METADATA_DISABLED is true; set NEARZONE_ZONE or node.zone", ErrNoMetadata)
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return fmt.Errorf("%w: %s answered %d; enable the instance's metadata endpoint (aws ec2 modify-instance-metadata-options --http-endpoint enabled), or set NEARZONE_ZONE or node.zone", ErrRefused, m.endpoint, code)
	case code >= 300:
		return fmt.Errorf("%w: %s answered %d; set NEARZONE_ZONE or node.zone if this is not EC2", ErrBadMetadata, m.endpoint, code)
	case errors.As(sent, &dial) && dial.Op == "dial":
		return fmt.Errorf("%w: connect %s: %w; set NEARZONE_ZONE or node.zone if this is not EC2", ErrNoMetadata, m.endpoint, dial.Err)
	case errors.As(sent, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %s takes the connection but its answer does not arrive; from a container that is one hop too many: raise the instance's hop limit (aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2), use host networking, or set NEARZONE_ZONE", ErrHopLimit, m.endpoint)
	}
	return fmt.Errorf("%w: ask %s: %w; set NEARZONE_ZONE or node.zone if this is not EC2", ErrBadMetadata, m.endpoint, err)
}
