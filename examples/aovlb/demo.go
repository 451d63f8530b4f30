package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
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

var demoCommand = command{
	name: "demo", usage: "[--duration 16s] [--clients 40] [--plain] [--json]",
	short: "show it at work between simulated gateways and clients", run: runDemo,
}

// runDemo fails without a further word if a promise was broken: the summary has
// said it.
func runDemo(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	s := new(demoScenario)
	fs.DurationVar(&s.Duration, "duration", demoDefaultDuration, "about how `long` it takes, 5s to 5m")
	fs.IntVar(&s.Clients, "clients", demoDefaultClients, "how `many` IKEv2 tunnels there are at first, 12 to 500")
	plain := fs.Bool("plain", false, "print lines instead of a live table")
	asJSON := fs.Bool("json", false, "print nothing but the summary, as JSON")
	verbose := fs.Bool("verbose", false, "log to standard error what gateways, clients and balancer find strange")
	if _, err := parse(env, fs, args, 0); err != nil {
		return err
	}
	switch {
	case s.Duration < 5*time.Second || s.Duration > 5*time.Minute:
		return &usageError{fmt.Sprintf("--duration %v is not between 5s and 5m", s.Duration)}
	case s.Clients < demoLeastClients || s.Clients > 500:
		return &usageError{fmt.Sprintf("--clients %d is not between %d and 500", s.Clients, demoLeastClients)}
	}
	if *verbose {
		s.Logger = slog.New(slog.NewTextHandler(env.stderr, nil))
	}
	switch {
	case *asJSON:
	case *plain || !isTerminal(env.stdout) || env.getenv("TERM") == "dumb":
		s.View = &plainView{w: env.stdout}
	default:
		s.View = &liveView{w: env.stdout}
	}
	summary, err := s.Run(ctx)
	if err != nil {
		return err
	}
	if *asJSON {
		err = printJSON(env.stdout, summary)
	} else {
		err = summary.write(env.stdout)
	}
	if err == nil && !summary.Kept {
		return errSilent
	}
	return err
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
