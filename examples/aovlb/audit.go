package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/sstp"
)

var auditCommand = command{
	name: "audit", usage: "HOST[:PORT]", short: "look at an SSTP or IP-HTTPS server from outside: service, certificate, TLS, other ports", run: runAudit,
}

func runAudit(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("audit", flag.ContinueOnError)
	a := sstp.Auditor{}
	fs.StringVar(&a.Name, "name", "", "the `host` that clients dial, if it isn't HOST")
	ca := fs.String("ca", "", "`file` with the roots that clients trust, instead of this system's")
	fs.DurationVar(&a.Timeout, "timeout", sstp.DefaultTimeout, "how `long` each connection may take")
	fs.DurationVar(&a.Pause, "pause", sstp.DefaultAuditPause, "pause this `long` between connections")
	fs.BoolVar(&a.NoCall, "no-call", false, "begin no call: it takes a port of the server for a moment")
	fs.BoolVar(&a.NoPorts, "no-ports", false, "leave other ports alone")
	asJSON := fs.Bool("json", false, "print JSON")
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
	}
	if *ca != "" {
		if a.Roots, err = new(certFiles).roots(*ca); err != nil {
			return err
		}
	}
	host := asked{}
	targets, err := host.resolve(ctx, args[0], 443)
	if err != nil {
		return err
	}
	if a.Name == "" {
		a.Name = host.host
	}
	a.AskIKE = func(ctx context.Context, target netip.AddrPort) error {
		_, err := ikev2.Prober{}.Ask(ctx, target)
		return err
	}
	bad := false
	var reports []audited
	for _, t := range targets {
		r, err := a.Audit(ctx, t)
		if ctx.Err() != nil {
			return err
		}
		x := audited{AuditReport: r}
		if err != nil {
			x.Error, bad = err.Error(), true
		}
		if c := r.Certificate; c != nil {
			x.Certificate = &auditedCert{Names: certNames(c.Leaf), NotAfter: c.Leaf.NotAfter, SHA256: c.SHA256(), SHA1: c.SHA1()}
		}
		for _, f := range r.Findings {
			bad = bad || f.Gravity == sstp.GravityFatal
		}
		reports = append(reports, x)
		if !*asJSON {
			printAudit(env.stdout, &x)
		}
	}
	if *asJSON {
		if err := printJSON(env.stdout, reports); err != nil {
			return err
		}
	}
	if bad {
		return errSilent
	}
	return nil
}

// audited is what is printed of one address as JSON.
type audited struct {
	*sstp.AuditReport
	Certificate *auditedCert `json:"certificate,omitempty"`
	Error       string       `json:"error,omitempty"`
}

type auditedCert struct {
	Names    []string             `json:"names"`
	NotAfter time.Time            `json:"not_after"`
	SHA256   sstp.Fingerprint     `json:"sha256"`
	SHA1     sstp.FingerprintSHA1 `json:"sha1"`
}

func printAudit(w io.Writer, x *audited) {
	r := x.AuditReport
	if x.Error != "" {
		fmt.Fprintf(w, "%v can't be audited: %s\n", r.Target, printableLine(x.Error))
		return
	}
	serves := []string{}
	if r.SSTP || r.Calls {
		serves = append(serves, "SSTP")
	}
	if r.IPHTTPS {
		serves = append(serves, "IP-HTTPS")
	}
	if len(serves) == 0 {
		serves = append(serves, "neither SSTP nor IP-HTTPS")
	}
	fmt.Fprintf(w, "%v serves %s\n", r.Target, strings.Join(serves, " and "))
	if r.Server != "" {
		fmt.Fprintf(w, "  server       %s\n", printable(r.Server))
	}
	if r.Hashes != "" {
		fmt.Fprintf(w, "  calls        taken, crypto binding by %s\n", r.Hashes)
	}
	if c := r.Certificate; c != nil {
		printCert(w, c)
	}
	for _, v := range r.TLS {
		fmt.Fprintf(w, "%s\n", v.Name)
		for _, s := range v.Suites {
			note := s.Weakness()
			if note != "" {
				note = "  ← " + note
			}
			fmt.Fprintf(w, "  %v%s\n", s, note)
		}
	}
	for _, p := range r.UDP {
		fmt.Fprintf(w, "UDP %-5d  %v (%s)\n", p.Port, p.State, p.What)
	}
	if len(r.Findings) == 0 {
		fmt.Fprintln(w, "nothing is wrong with it")
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "%s: %s: %s\n", f.Gravity, f.Rule, printableLine(f.Reason))
		if f.Fix != "" {
			fmt.Fprintf(w, "  → %s\n", f.Fix)
		}
	}
}
