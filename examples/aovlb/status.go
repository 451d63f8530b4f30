package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

var statusCommand = command{
	name: "status", usage: "[--watch] [--json]", short: "show backends, groups and listeners", run: runStatus,
}

func runStatus(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("status", flag.ContinueOnError)
	r := env.flags(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	watch := fs.Bool("watch", false, "show it live, until interrupted")
	every := fs.Duration("interval", time.Second, "how `often` --watch reads it")
	if _, err := parse(env, fs, args, 0); err != nil {
		return err
	}
	if !*watch {
		s, err := r.status(ctx)
		switch {
		case err != nil:
			return err
		case *asJSON:
			return printJSON(env.stdout, s)
		}
		printStatus(env.stdout, s, nil)
		return nil
	}
	return watchStatus(ctx, env, r, max(*every, 100*time.Millisecond), *asJSON)
}

func (r *remote) status(ctx context.Context) (*Status, error) {
	s := new(Status)
	return s, r.call(ctx, "GET", "/v1/status", nil, s)
}

// watchStatus shows the status again and again. On a terminal it is drawn over
// the last one.
func watchStatus(ctx context.Context, env *environment, r *remote, every time.Duration, asJSON bool) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last *Status
	for {
		s, err := r.status(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case asJSON:
			if err := printJSON(env.stdout, s); err != nil {
				return err
			}
		default:
			var b strings.Builder
			printStatus(&b, s, last)
			text := b.String()
			if isTerminal(env.stdout) {
				const home, toLineEnd, toScreenEnd = "\x1b[H", "\x1b[K", "\x1b[J"
				text = home + strings.ReplaceAll(text, "\n", toLineEnd+"\n") + toScreenEnd
			}
			fmt.Fprint(env.stdout, text)
		}
		last = s
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// printStatus prints s; with last, an earlier one, it prints rates too.
func printStatus(w io.Writer, s, last *Status) {
	if s.Geo != nil {
		defer func() {
			fmt.Fprintln(w)
			printGeo(w, s.Geo)
		}()
	}
	fmt.Fprintf(w, "site %s, aovlb %s, up %s\n\n", s.Site, s.Version, ago(s.Started))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "POOL\tBACKEND\tADDRESS\tSTATE\tSHARE\tCLIENTS\tFOR\tCHECKS")
	for _, p := range s.Pools {
		for _, b := range p.Backends {
			state := b.State
			if p.Panic && b.State == "down" {
				state = "down (all are: used)"
			}
			fmt.Fprintf(t, "%s\t%s\t%v\t%s\t%.0f%%\t%s\t%s\t%s\n",
				p.Name, b.Name, b.Address, state, 100*b.Share, clients(&b), ago(b.Since), checkSummary(&b))
		}
	}
	fmt.Fprintln(t)
	fmt.Fprintln(t, "GROUP\tPOOL\tCLIENTS\tHALF OPEN\tNAMES\tMEMORY\tREFUSED")
	for _, g := range s.Groups {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", g.Name, g.Pool, number(g.Clients), number(g.HalfOpen), number(g.Names), size(g.Bytes), reasons(g.Refused))
	}
	fmt.Fprintln(t)
	fmt.Fprintln(t, "LISTENER\tPROTOCOL\tADDRESS\tSTATE\tACTIVE\tTOTAL\tIN\tOUT\tDROPPED")
	for i := range s.Listeners {
		l := &s.Listeners[i]
		fmt.Fprintf(t, "%s\t%s\t%v\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Name, l.Protocol, l.Address, l.State,
			number(l.Active), number(l.Total), traffic(s, last, i, true), traffic(s, last, i, false), reasons(l.Dropped))
	}
	t.Flush()
	printFastPath(w, &s.Stats)
	printRADIUS(w, s)
	printHandshakes(w, &s.Stats)
	for _, p := range s.Pools {
		for _, b := range p.Backends {
			if b.Cause != "" {
				fmt.Fprintf(w, "\n%s: %s", b.Name, b.Cause)
			}
		}
	}
	for i := range s.Certificates {
		fmt.Fprintln(w)
		printCertificate(w, &s.Certificates[i])
	}
	for _, l := range s.Listeners {
		if l.Error != "" {
			fmt.Fprintf(w, "\n%s: %s", l.Name, l.Error)
		}
	}
	fmt.Fprintln(w)
}

func clients(b *plugins.BackendStats) string {
	text := number(b.Clients)
	if b.MaxClients > 0 {
		text += fmt.Sprintf(" of %d", b.MaxClients)
	}
	if !b.DrainDeadline.IsZero() {
		text += ", until " + b.DrainDeadline.Local().Format(time.TimeOnly)
	}
	return text
}

// checkSummary shows each check by a mark.
func checkSummary(b *plugins.BackendStats) string {
	var parts []string
	for _, c := range b.Checks {
		mark := "+"
		switch {
		case !c.Known:
			mark = "?"
		case !c.Passing:
			mark = "-"
		}
		text := mark + c.Name
		if c.Known && c.Passing {
			text += " " + c.Took.D().Round(100*time.Microsecond).String()
		}
		parts = append(parts, text)
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, " ")
}

func number[T int | int64 | uint64](n *T) string {
	if n == nil {
		return "?"
	}
	return fmt.Sprint(*n)
}

func size(n *int) string {
	if n == nil {
		return "?"
	}
	return bytesText(float64(*n))
}

func bytesText(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for n >= 1024 && i < len(units)-1 {
		n /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%.0f B", n)
	}
	return fmt.Sprintf("%.1f %s", n, units[i])
}

// traffic shows what listener i has carried, or, with last, carries each second.
func traffic(s, last *Status, i int, in bool) string {
	side := func(l *plugins.ListenerStats) *plugins.Traffic {
		if in {
			return l.In
		}
		return l.Out
	}
	now := side(&s.Listeners[i])
	if now == nil {
		return "?"
	}
	if last != nil && i < len(last.Listeners) && last.Listeners[i].Name == s.Listeners[i].Name {
		was, d := side(&last.Listeners[i]), s.At.Sub(last.At).Seconds()
		if was != nil && d > 0 && now.Bytes >= was.Bytes {
			return bytesText(float64(now.Bytes-was.Bytes)/d) + "/s"
		}
	}
	return bytesText(float64(now.Bytes))
}

// reasons shows what isn't zero, and the sum if that is several.
func reasons(m map[string]uint64) string {
	sum, why, n := uint64(0), "", 0
	for k, v := range m {
		if v > 0 {
			sum, why, n = sum+v, k, n+1
		}
	}
	switch n {
	case 0:
		return "0"
	case 1:
		return fmt.Sprintf("%d (%s)", sum, why)
	}
	return fmt.Sprintf("%d (%d reasons)", sum, n)
}
