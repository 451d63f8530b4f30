package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/aovlb/aovlb/ikev2"
)

var mtuCommand = command{
	name: "mtu", usage: "[--json] HOST[:PORT]", short: "measure how large the packets are that get to an IKEv2 gateway", run: runMTU,
}

// An mtuFound is what mtu found for one address.
type mtuFound struct {
	Target string `json:"target"`
	// MTU is the largest IP packet that was answered, Lost the smallest that
	// wasn't, in octets.
	MTU  int `json:"mtu"`
	Lost int `json:"lost,omitempty"`
	// Blackhole says that packets are lost without a word.
	Blackhole bool        `json:"blackhole"`
	Reports   []mtuReport `json:"reports,omitempty"`
	RoundTrip string      `json:"roundTrip,omitempty"`
	Advice    []string    `json:"advice"`
	Error     string      `json:"error,omitempty"`
}

type mtuReport struct {
	From string `json:"from"`
	Size int    `json:"size"`
	MTU  int    `json:"mtu,omitempty"`
}

func runMTU(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("mtu", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print JSON")
	var p ikev2.PathMTU
	fs.IntVar(&p.Max, "max", ikev2.DefaultMTU, "the largest packet to try, in `octets`")
	fs.DurationVar(&p.Timeout, "timeout", ikev2.DefaultMTUTimeout, "how `long` to wait for each answer")
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
	}
	var a asked
	targets, err := a.resolve(ctx, args[0], ikev2.Port)
	if err != nil {
		return err
	}
	var all []mtuFound
	failed := false
	for _, t := range targets {
		r, err := p.Measure(ctx, t)
		f := mtuFound{Target: t.String(), MTU: r.MTU, Lost: r.Lost, Blackhole: r.Blackhole(), Advice: mtuAdvice(&r)}
		if r.RoundTrip > 0 {
			f.RoundTrip = r.RoundTrip.Round(10 * time.Microsecond).String()
		}
		for _, x := range r.Reports {
			from := "this machine"
			if x.From.IsValid() {
				from = x.From.String()
			}
			f.Reports = append(f.Reports, mtuReport{from, x.Size, x.MTU})
		}
		if err != nil {
			f.Error, failed = err.Error(), true
		}
		if !*asJSON {
			printMTU(env, &f, &r)
		}
		all = append(all, f)
	}
	if *asJSON {
		if err := printJSON(env.stdout, all); err != nil {
			return err
		}
	}
	if failed {
		return errSilent
	}
	return nil
}

func printMTU(env *environment, f *mtuFound, r *ikev2.MTUResult) {
	if f.Error != "" {
		fmt.Fprintf(env.stdout, "%s: %s\n", f.Target, f.Error)
		return
	}
	fmt.Fprintf(env.stdout, "%s: %v (%d sent, %d answered, round trip %s)\n", f.Target, r, r.Sent, r.Answers, f.RoundTrip)
	for _, x := range f.Reports {
		said := "is too large"
		if x.MTU > 0 {
			said = fmt.Sprintf("is too large: the next link takes %d", x.MTU)
		}
		fmt.Fprintf(env.stdout, "  %s says that a packet of %d octets %s\n", x.From, x.Size, said)
	}
	for _, a := range f.Advice {
		fmt.Fprintf(env.stdout, "%s", wrap("  > ", a))
	}
}

// mtuAdvice says what the figures mean for IKE.
func mtuAdvice(r *ikev2.MTUResult) []string {
	out := []string{}
	if r.MTU == 0 {
		return out
	}
	if r.Blackhole() {
		out = append(out, `routers on the way drop what is too large and say nothing: let ICMP "fragmentation needed" and ICMPv6 "packet too big" pass, or clients can't adapt`)
	}
	switch {
	case r.MTU < 1280:
		out = append(out, "IKE fragments of strongSwan's usual size (packets of 1280 octets) don't fit: set charon.fragment_size; those of Windows (some 600 octets) do if this is more")
	case r.Lost > 0:
		out = append(out, "IKE fragments fit (Windows makes packets of some 600 octets, strongSwan of 1280), if both sides announce fragmentation; what goes in IP fragments instead depends on every router and firewall on the way")
	}
	return out
}
