package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DefaultURL is where a node's door is unless told otherwise.
const DefaultURL = "http://127.0.0.1:9180"

// readWait bounds how long a client waits for one answer.
const readWait = 30 * time.Second

// maxAnswer bounds what a client reads; a status of a thousand nodes is well below it.
const maxAnswer = 64 << 20

// Client asks a node's door, for command-line tools. Its methods may be used concurrently.
type Client struct {
	base string
	http *http.Client
}

// NewClient asks at base, a URL such as [DefaultURL]; empty is [DefaultURL], and http:// may be left out.
// Nothing is dialled yet.
func NewClient(base string) *Client {
	if base == "" {
		base = DefaultURL
	}
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	return &Client{
		base: strings.TrimRight(base, "/"),
		http: &http.Client{
			Timeout: readWait,
			// The door is on this machine: no proxy, and no reason to keep a connection.
			Transport:     &http.Transport{DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// StatusError is an answer of the node that says no.
type StatusError struct {
	Code int    // HTTP status
	Text string // what the node said
}

func (e *StatusError) Error() string { return e.Text }

// Get asks for path, which may have a query, and decodes the answer into out unless out is nil.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.do(ctx, http.MethodGet, path, nil, out)
}

// Post sends in as JSON to path and decodes the answer into out unless out is nil.
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request for %s: %w", path, err)
	}
	return c.do(ctx, http.MethodPost, path, body, out)
}

func (c *Client) do(ctx context.Context, method, path string, body []byte, out any) error {
	u, err := url.Parse(c.base)
	if err != nil || u.Host == "" || u.Scheme != "http" {
		return fmt.Errorf("admin address %q is not a URL such as %s; use --admin URL or NEARZONE_ADMIN", c.base, DefaultURL)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask %s%s: %w", c.base, path, err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreached(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer of the node at %s: %w", c.base, err)
	}
	return c.decode(resp, raw, out)
}

// unreached turns a transport error into what the user can do about it.
func (c *Client) unreached(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("no node answers at %s: %w; is nearzone running? use --admin URL or NEARZONE_ADMIN", c.base, op.Err)
	}
	return fmt.Errorf("ask the node at %s: %w", c.base, err)
}

// decode reads an answer: the caller's value, the node's error, or something that is no node.
func (c *Client) decode(resp *http.Response, raw []byte, out any) error {
	if resp.StatusCode/100 != 2 {
		var f failure
		if json.Unmarshal(raw, &f) == nil && f.Error != "" {
			return &StatusError{Code: resp.StatusCode, Text: f.Error}
		}
		return fmt.Errorf("%s answered %s, which no nearzone does here; use --admin URL or NEARZONE_ADMIN", c.base, resp.Status)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("the answer of %s is not what a nearzone sends: %w; use --admin URL or NEARZONE_ADMIN", c.base, err)
	}
	return nil
}
