// Command nearzone is an edge reverse proxy and latency router for AWS Local Zones: one binary, one YAML file, one fleet.
//
//	nearzone demo                 a small world on this machine
//	nearzone run nearzone.yaml    one node
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// version is set by the linker; builds without it say what the toolchain knows.
var version = ""

func main() {
	ctx, stop := signalContext(os.Stderr)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// cli is the command line. Every command that talks to a running node shares adminFlag.
type cli struct {
	Run         runCmd         `cmd:"" help:"Run one node from a configuration file."`
	Demo        demoCmd        `cmd:"" help:"Run a small world on loopback: an origin, three nodes, their fleet and the DNS."`
	Validate    validateCmd    `cmd:"" help:"Check a configuration file; touches no network."`
	Explain     explainCmd     `cmd:"" help:"Say which zone a client is answered with, and why."`
	Status      statusCmd      `cmd:"" help:"Show what a running node knows of itself and its fleet."`
	Drain       drainCmd       `cmd:"" help:"Take a zone or node out of the answers, or bring it back with --undo."`
	Purge       purgeCmd       `cmd:"" help:"Remove cached objects on every node, by URL, prefix, host or tag."`
	Zones       zonesCmd       `cmd:"" help:"List the Local Zones and Regions that are known."`
	Schema      schemaCmd      `cmd:"" help:"Print the JSON Schema of the configuration, for editors."`
	Healthcheck healthcheckCmd `cmd:"" help:"Exit 0 when the node on this machine is alive; for container health checks."`
	Version     versionCmd     `cmd:"" help:"Print the version."`
}

// streams are where a command writes.
type streams struct{ out, err io.Writer }

// run executes one command line and returns the exit code: 0, 1 for a failure, 2 for a line that cannot be parsed.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	exit := -1
	parser, err := kong.New(&cli{},
		kong.Name("nearzone"),
		kong.Description("Edge reverse proxy and latency router for AWS Local Zones."),
		kong.UsageOnError(),
		kong.Writers(out, errOut),
		kong.Exit(func(code int) { exit = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(streams{out, errOut}),
	)
	if err != nil {
		fmt.Fprintln(errOut, "nearzone:", err)
		return 2
	}
	switch {
	case len(args) == 0:
		args = []string{"--help"}
	case args[0] == "--version":
		args = []string{"version"}
	case args[0] == "help": // as other tools have it
		args = append(args[1:], "--help")
	}
	line, err := parser.Parse(args)
	if exit >= 0 { // --help has been answered
		return exit
	}
	if err != nil {
		fmt.Fprintf(errOut, "nearzone: %v\n(nearzone --help lists the commands)\n", err)
		return 2
	}
	if err := line.Run(); err != nil {
		fmt.Fprintln(errOut, "nearzone:", err)
		return 1
	}
	return 0
}

// sameSignal is how long after a signal another one is taken for the same: timeout(1) and process managers signal the
// process and then its group.
const sameSignal = 500 * time.Millisecond

// signalContext ends at the first SIGINT or SIGTERM. A second one cuts every wait: the process ends at once.
func signalContext(errOut io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case s := <-signals:
			cancel(fmt.Errorf("%w: %s", errSignal, s))
		case <-done:
			return
		}
		first := time.Now()
		for {
			select {
			case <-signals:
				if time.Since(first) > sameSignal {
					fmt.Fprintln(errOut, "nearzone: second signal, ending at once")
					os.Exit(1)
				}
			case <-done:
				return
			}
		}
	}()
	return ctx, func() { signal.Stop(signals); close(done); cancel(nil) }
}

var errSignal = errors.New("signal")

type versionCmd struct{}

// Run prints the version, the commit when the toolchain recorded one, and the Go version.
func (versionCmd) Run(s streams) error {
	_, err := fmt.Fprintln(s.out, "nearzone", versionString())
	return err
}

func versionString() string {
	v := version
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if v == "" {
		v = info.Main.Version
	}
	if v == "" || v == "(devel)" {
		v = "dev"
	}
	return v + " " + info.GoVersion
}
