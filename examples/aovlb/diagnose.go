package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/ikev2/capture"
)

var diagnoseCommand = command{
	name: "diagnose", usage: "[--json] [--findings] FILE|- | --live INTERFACE", short: "say what happened to IKEv2 clients in a capture, and what to do", run: runDiagnose,
}

// A diagnosed is what diagnose prints as JSON.
type diagnosed struct {
	Capture capture.Stats `json:"capture"`
	*ikev2.Report
	// Error says why the capture could not be read to its end.
	Error string `json:"error,omitempty"`
}

func runDiagnose(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("diagnose", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print JSON")
	live := fs.Bool("live", false, "watch a network interface until interrupted, instead of reading a file (Linux, as root)")
	span := fs.Duration("for", 0, "how `long` to watch; 0 means until interrupted")
	quiet := fs.Bool("findings", false, "print no timelines, only what was found")
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
	}
	var d *diagnosed
	if *live {
		if *span > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, *span)
			defer cancel()
		}
		d, err = diagnoseLive(ctx, env, args[0], *asJSON)
	} else {
		// What is piped here ends when its source is interrupted, and is
		// then explained. If it doesn't end, interrupting twice helps.
		defer context.AfterFunc(ctx, env.interruptible)()
		d, err = diagnoseFile(args[0], os.Stdin)
	}
	if d == nil {
		return err
	}
	if err != nil {
		d.Error = err.Error()
	}
	if *asJSON {
		if perr := printJSON(env.stdout, d); perr != nil {
			return perr
		}
		return err
	}
	p := newPainter(env)
	printDiagnosis(p, d, *quiet)
	return err
}

func diagnoseFile(name string, stdin io.Reader) (*diagnosed, error) {
	r := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	var t ikev2.Tracker
	stats, err := capture.Read(r, &t)
	if stats.Packets == 0 && err != nil {
		return nil, err
	}
	return &diagnosed{Capture: stats, Report: t.Report()}, err
}

// diagnoseLive watches an interface. What is found is told at once; the rest in
// the end.
func diagnoseLive(ctx context.Context, env *environment, name string, asJSON bool) (*diagnosed, error) {
	tap, err := capture.OpenTap(ctx, name)
	if err != nil {
		return nil, err
	}
	defer tap.Close()
	var (
		mu sync.Mutex // of t and d
		t  ikev2.Tracker
		d  = capture.Decoder{Event: t.Observe}
	)
	if !asJSON {
		fmt.Fprintf(env.stderr, "watching %s; interrupt to see the timelines\n", name)
	}
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if asJSON {
			return
		}
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		told := map[string]bool{}
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			mu.Lock()
			t.Advance(time.Now())
			r := t.Report()
			mu.Unlock()
			tellNew(newPainter(env), r, told)
		}
	}()
	for err == nil {
		var p capture.Packet
		if p, err = tap.Next(); err == nil {
			mu.Lock()
			d.Decode(&p)
			mu.Unlock()
		}
	}
	close(done)
	<-stopped
	d.Flush()
	t.Advance(time.Now())
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return &diagnosed{Capture: d.Stats(), Report: t.Report()}, err
}

// tellNew prints the findings that haven't been told.
func tellNew(p *painter, r *ikev2.Report, told map[string]bool) {
	const most = 10000 // a flood must not fill the memory
	for _, f := range r.Findings {
		for _, spi := range f.SPIs {
			key := string(f.ID) + spi
			if told[key] || len(told) > most {
				continue
			}
			told[key] = true
			p.printf("%s %s %s: %s (SPI %s)\n", time.Now().Format(time.TimeOnly), p.severity(f.Severity), f.ID, f.Title, spi)
		}
	}
}

// A painter writes text, with colours where a person reads it on a terminal.
type painter struct {
	w      io.Writer
	colour bool
}

func newPainter(env *environment) *painter {
	return &painter{w: env.stdout, colour: isTerminal(env.stdout) && env.getenv("NO_COLOR") == ""}
}

func (p *painter) printf(format string, args ...any) { fmt.Fprintf(p.w, format, args...) }

// paint puts s into a colour, by its ANSI code.
func (p *painter) paint(code, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p *painter) severity(s ikev2.Severity) string {
	switch s {
	case ikev2.SeverityError:
		return p.paint("1;31", s.String())
	case ikev2.SeverityWarning:
		return p.paint("1;33", s.String())
	}
	return p.paint("36", s.String())
}

func printDiagnosis(p *painter, d *diagnosed, quiet bool) {
	c := d.Counts
	p.printf("%d packets in %v: %d IKE, %d ESP in UDP, %d ESP, %d keepalives, %d ICMP errors, %d conversations\n",
		d.Capture.Packets, d.Ended.Sub(d.Began).Round(time.Millisecond), c.IKE, c.ESP, c.NativeESP, c.Keepalives, c.ICMP, len(d.Conversations))
	if d.Capture.Truncated > 0 {
		p.printf("%d packets were captured only in part\n", d.Capture.Truncated)
	}
	if c.Forgotten > 0 {
		p.printf("%d more conversations were too many to keep\n", c.Forgotten)
	}
	if n := d.Capture.NotIP; n > 0 && n == d.Capture.Packets {
		p.printf("none of them is IP, or they begin with something other than Ethernet, Linux cooked, loopback or raw IP\n")
	}
	if c.IKE == 0 {
		p.printf("there is no IKEv2 in it: capture UDP ports 500 and 4500, IP fragments and ICMP\n")
	}
	if !quiet {
		for i := range d.Conversations {
			printConversation(p, &d.Conversations[i])
		}
	}
	if len(d.Findings) == 0 && c.IKE > 0 {
		p.printf("\nnothing is wrong with what can be seen\n")
	}
	for i := range d.Findings {
		printFinding(p, &d.Findings[i])
	}
}

func printConversation(p *painter, s *ikev2.Summary) {
	p.printf("\n%s: client %v, gateway %v, %v\n", p.paint("1", "SPI "+s.SPI), s.Client, s.Gateway, s.Outcome)
	if s.Midway {
		p.printf("  its beginning wasn't captured\n")
	}
	if s.Suite != "" {
		p.printf("  agreed on %s; IKE fragmentation: client %s, gateway %s\n", s.Suite, yesNo(s.ClientFragmentation), yesNo(s.GatewayFragmentation))
	}
	if len(s.ClientVendors) > 0 || len(s.GatewayVendors) > 0 {
		p.printf("  client: %s; gateway: %s\n", orUnknown(s.ClientVendors), orUnknown(s.GatewayVendors))
	}
	for _, x := range s.Steps {
		number := ""
		if x.Packet > 0 {
			number = fmt.Sprint(x.Packet)
		}
		p.printf("  %6s %12s  %-8s %s\n", number, x.At, x.From, x.Text)
	}
	if s.ESPFromClient+s.ESPFromGateway > 0 {
		p.printf("  tunnel: %d packets from the client, %d from the gateway\n", s.ESPFromClient, s.ESPFromGateway)
	}
}

func orUnknown(names []string) string {
	if len(names) == 0 {
		return "unknown make"
	}
	return strings.Join(names, ", ")
}

func printFinding(p *painter, f *ikev2.Finding) {
	p.printf("\n%s %s: %s\n", p.severity(f.Severity), p.paint("1", string(f.ID)), f.Title)
	if len(f.Windows) > 0 {
		p.printf("  Windows shows error %s\n", strings.Join(f.Windows, " or "))
	}
	p.printf("%s", wrap("  ", f.What))
	if f.Times > 1 {
		p.printf("  in %d conversations\n", f.Times)
	}
	for _, e := range f.Evidence {
		where := e.At.String() + " s"
		if e.Packet > 0 {
			where = fmt.Sprintf("packet %d, %s", e.Packet, where)
		}
		p.printf("  - %s: %s\n", where, e.Text)
	}
	for _, a := range f.Advice {
		p.printf("%s", wrap("  > ", string(a.Where)+": "+a.Do))
		for _, c := range a.Commands {
			for line := range strings.Lines(c) {
				p.printf("      %s\n", p.paint("32", strings.TrimRight(line, "\n")))
			}
		}
	}
}

// wrap breaks text into lines that begin with indent, or with spaces of its
// length.
func wrap(indent, text string) string {
	const width = 110
	var b strings.Builder
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width && strings.TrimSpace(line) != "" {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = strings.Repeat(" ", len(indent))
		}
		if line != indent && strings.TrimSpace(line) != "" {
			line += " "
		}
		line += word
	}
	return b.String() + line + "\n"
}
