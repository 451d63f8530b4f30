package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/builtin"
)

// The demo shows what aovlb is for, on one computer and without any set-up: it
// starts gateways, RADIUS servers and clients within this process, a real
// deployment between them, and then does to it what happens to real ones.
//
//	clients ──▶ 127.0.1.1 ──▶ the built-in driver ──▶ 127.0.1.11 ras1
//	127.0.2.1  (many, "one NAT")                      127.0.1.12 ras2
//	127.0.3.x  (one each)                             127.0.1.13 ras3
//	127.0.4.x  (where some move to)                   127.0.1.21 nps1
//	                                                  127.0.1.22 nps2
//
// What it says in the end it takes from the books of the gateways and servers,
// never from the balancer's own counters.

// demoScenario is one run of the demo.
type demoScenario struct {
	// Duration is about how long it takes.
	Duration time.Duration
	// Clients is how many IKEv2 tunnels there are at the beginning.
	Clients int
	// Driver is what balances; nil means the built-in driver. Tests sabotage
	// it, to see that the demo notices.
	Driver demoDriver
	// View, if not nil, is shown what happens.
	View demoView
	// Logger hears of everything; nil is silent.
	Logger *slog.Logger
}

// demoDriver is what the demo needs of a driver that runs in this process.
type demoDriver interface {
	plugins.Driver
	Run(ctx context.Context) error
}

// demoView shows a demo that runs.
type demoView interface {
	// Event is called for what is worth a line.
	Event(at time.Duration, text string)
	// Picture is called several times a second.
	Picture(p demoPicture)
}

const (
	demoDefaultDuration = 16 * time.Second
	demoDefaultClients  = 40
	demoLeastClients    = 12
)

// runDemo is the command "demo". It returns the program's exit code: 0 if every
// promise was kept, 1 if not, 2 if it could not be run as it was asked to.
func runDemo(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("aovlb demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, "Usage: aovlb demo [flags]\n\n"+
			"Shows aovlb at work between simulated gateways and clients in this process.\n"+
			"It needs no root and no set-up, and ends by itself.\n\n")
		flags.PrintDefaults()
	}
	duration := flags.Duration("duration", demoDefaultDuration, "about how long it takes, 5s to 5m")
	clients := flags.Int("clients", demoDefaultClients, "how many IKEv2 tunnels there are at first, 12 to 500")
	plain := flags.Bool("plain", false, "print lines instead of a live table")
	asJSON := flags.Bool("json", false, "print the summary as JSON, and nothing else")
	verbose := flags.Bool("v", false, "log to standard error what gateways, clients and balancer find strange")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 || *duration < 5*time.Second || *duration > 5*time.Minute || *clients < demoLeastClients || *clients > 500 {
		flags.Usage()
		return 2
	}
	s := &demoScenario{Duration: *duration, Clients: *clients}
	if *verbose {
		s.Logger = slog.New(slog.NewTextHandler(stderr, nil))
	}
	switch {
	case *asJSON:
	case *plain || !isTerminal(stdout):
		s.View = &plainView{w: stdout}
	default:
		s.View = &liveView{w: stdout}
	}
	summary, err := s.Run(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "aovlb demo: %v\n", err)
		return 2
	}
	if *asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		err = e.Encode(summary)
	} else {
		err = summary.write(stdout)
	}
	if err != nil {
		fmt.Fprintf(stderr, "aovlb demo: %v\n", err)
		return 2
	}
	if !summary.Kept {
		return 1
	}
	return 0
}

// isTerminal reports whether w can be redrawn.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	i, err := f.Stat()
	term := os.Getenv("TERM")
	return err == nil && i.Mode()&os.ModeCharDevice != 0 && term != "" && term != "dumb" && f.Name() != os.DevNull
}

// Run plays the scenario.
func (s *demoScenario) Run(ctx context.Context) (*demoSummary, error) {
	driver := s.Driver
	if driver == nil {
		driver = &builtin.Driver{Logger: s.Logger}
	}
	ctx, cancel := context.WithCancel(ctx)
	w, err := newDemoWorld(s, driver)
	if err != nil {
		cancel()
		return nil, err
	}
	defer w.wait()
	defer cancel()
	if err := w.start(ctx); err != nil {
		return nil, err
	}
	p := &demoPlay{world: w, unit: s.Duration / 16, view: s.View, began: time.Now()}
	stopDrawing := p.draw(ctx)
	err = p.play(ctx)
	stopDrawing()
	if err != nil {
		return nil, err
	}
	return p.judge(), nil
}
