package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"text/tabwriter"

	"github.com/nearzone/nearzone/admin"
	"github.com/nearzone/nearzone/config"
	"github.com/nearzone/nearzone/localzone"
	"github.com/nearzone/nearzone/proxy/cache"
	"github.com/nearzone/nearzone/routing"
	"github.com/nearzone/nearzone/routing/dnsserver"
)

// adminFlag says which node a command talks to.
type adminFlag struct {
	Admin string `help:"The node's admin address." env:"NEARZONE_ADMIN" default:"http://127.0.0.1:9180"`
}

func (a adminFlag) client() *admin.Client { return admin.NewClient(a.Admin) }

type validateCmd struct {
	File string `arg:"" help:"Configuration file." type:"path"`
	Zone string `help:"Check the file as a node of this zone sees it." env:"NEARZONE_ZONE"`
}

// Run reports every finding of the file, or one line that says what it holds.
func (c validateCmd) Run(s streams) error {
	cfg, err := config.Load(c.File, config.Options{Zone: c.Zone})
	if err != nil {
		return err
	}
	if err := cfg.CheckFiles(); err != nil {
		return err
	}
	if err := dnsserver.Check(cfg); err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	_, warnings := localzone.Zones(cfg)
	for _, w := range append(cfg.Warnings, warnings...) {
		fmt.Fprintln(s.err, "warning:", w)
	}
	_, err = fmt.Fprintf(s.out, "%s is good: %d zones, %d origins, %d sites, %d streams, %d steered names (hash %s)\n",
		c.File, len(cfg.Zones), len(cfg.Origins), len(cfg.Sites), len(cfg.Streams), len(cfg.DNS.Names), cfg.Hash)
	return err
}

type schemaCmd struct{}

// Run prints the schema.
func (schemaCmd) Run(s streams) error {
	_, err := s.out.Write(append(config.Schema(), '\n'))
	return err
}

type explainCmd struct {
	adminFlag
	Client string `help:"The client's address." required:"" placeholder:"ADDRESS"`
	Name   string `help:"The steered name; default: the first one."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

// Run asks the node, which answers from the table it answers DNS with.
func (c explainCmd) Run(ctx context.Context, s streams) error {
	query := url.Values{"client": {c.Client}}
	if c.Name != "" {
		query.Set("name", c.Name)
	}
	path := "/v1/explain?" + query.Encode()
	if c.JSON {
		return printJSON(ctx, s.out, c.client(), path)
	}
	var e routing.Explanation
	if err := c.client().Get(ctx, path, &e); err != nil {
		return err
	}
	return writeExplanation(s.out, e)
}

func writeExplanation(out io.Writer, e routing.Explanation) error {
	fmt.Fprintf(out, "%s for %s (network %s): %s\n%s\n\n", e.Name, e.Client, e.Prefix, e.Zone, e.Why)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ZONE\tESTIMATE\t±\tSAMPLES\tFROM\tHEALTH\t")
	for _, c := range e.Candidates {
		fmt.Fprintf(w, "%s\t%.1f ms\t%.1f\t%.0f\t%s\t%s\t\n", c.Zone, c.Estimate, c.SD, c.Samples, c.Source, c.Health)
	}
	return w.Flush()
}

type statusCmd struct {
	adminFlag
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints the node's status.
func (c statusCmd) Run(ctx context.Context, s streams) error {
	if c.JSON {
		return printJSON(ctx, s.out, c.client(), "/v1/status")
	}
	var st Status
	if err := c.client().Get(ctx, "/v1/status", &st); err != nil {
		return err
	}
	return st.write(s.out)
}

type drainCmd struct {
	adminFlag
	Target string `arg:"" help:"A zone (us-west-2-lax-1a), or a node as status names it (203.0.113.10)."`
	Undo   bool   `help:"Bring it back."`
}

// Run tells the fleet; answers follow at once, clients within the TTL.
func (c drainCmd) Run(ctx context.Context, s streams) error {
	in := map[string]any{"target": c.Target, "undo": c.Undo}
	var answer drainAnswer
	if err := c.client().Post(ctx, "/v1/drain", in, &answer); err != nil {
		return err
	}
	if answer.Warning != "" {
		fmt.Fprintln(s.err, "warning:", answer.Warning)
	}
	said := "%s leaves the answers; its clients move within the TTL (undo: nearzone drain --undo %[1]s)\n"
	if c.Undo {
		said = "%s is back in the answers\n"
	}
	_, err := fmt.Fprintf(s.out, said, c.Target)
	return err
}

type purgeCmd struct {
	adminFlag
	URL    string `name:"url" help:"One URL, all its variants." xor:"what"`
	Prefix string `help:"Every URL that begins so (http://host/path)." xor:"what"`
	Host   string `help:"Everything of a host." xor:"what"`
	Tag    string `help:"Everything tagged so by Surrogate-Key, Cache-Tag or xkey." xor:"what"`
	Soft   bool   `help:"Mark stale instead of removing: served while it is revalidated."`
}

// Run appends the purge to the fleet's log.
func (c purgeCmd) Run(ctx context.Context, s streams) error {
	p := cache.Purge{URL: c.URL, Prefix: c.Prefix, Host: c.Host, Tag: c.Tag, Soft: c.Soft}
	if err := p.Validate(); err != nil {
		return fmt.Errorf("%w (one of --url, --prefix, --host, --tag)", err)
	}
	var answer purgeAnswer
	if err := c.client().Post(ctx, "/v1/purge", p, &answer); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.out, "purge %d is in the fleet's log; every node applies it in order\n", answer.Position)
	return err
}

type zonesCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run lists the embedded catalogue; it asks nobody.
func (c zonesCmd) Run(s streams) error {
	if c.JSON {
		return json.NewEncoder(s.out).Encode(localzone.Catalogue())
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ZONE\tMETRO\tPARENT\tKM\tRTT FLOOR\tIPV6\tMTU\tSTATUS\t")
	for _, z := range localzone.Catalogue() {
		writeZone(w, z)
	}
	return w.Flush()
}

type healthcheckCmd struct{ adminFlag }

// Run asks /livez.
func (c healthcheckCmd) Run(ctx context.Context) error {
	if err := c.client().Get(ctx, "/livez", nil); err != nil {
		return errors.Join(errors.New("not alive"), err)
	}
	return nil
}

func printJSON(ctx context.Context, out io.Writer, c *admin.Client, path string) error {
	var raw json.RawMessage
	if err := c.Get(ctx, path, &raw); err != nil {
		return err
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(raw)
}
