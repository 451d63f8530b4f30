package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/radius"
	"github.com/aovlb/aovlb/sstp"
)

var probeCommand = command{
	name: "probe", usage: "ikev2|sstp|radius HOST[:PORT]", short: "ask a gateway whether it serves, and say what it is like", run: runProbe,
}

// A finding is what probe found at one address.
type finding struct {
	Protocol string         `json:"protocol"`
	Target   netip.AddrPort `json:"target"`
	// Serves says that a client could be served.
	Serves bool   `json:"serves"`
	Error  string `json:"error,omitempty"`
	// Facts are what was learned, in words, in order.
	Facts []fact `json:"facts"`
}

// fact is one thing that was learned.
type fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (f *finding) add(name, format string, args ...any) {
	f.Facts = append(f.Facts, fact{name, fmt.Sprintf(format, args...)})
}

// asked are the options of probe.
type asked struct {
	host    string
	name    string
	verify  bool
	ca      string
	plain   bool
	call    bool
	ipHTTPS bool
	secret  plugins.Secret
	user    string
	acct    bool
	strict  bool
	gentle  bool
	timeout time.Duration

	offer    string
	scan     bool
	all      bool
	verbose  bool
	most     int
	interval time.Duration
}

// flags adds the options to fs.
func (a *asked) flags(fs *flag.FlagSet) {
	fs.DurationVar(&a.timeout, "timeout", 5*time.Second, "how `long` to wait for an answer")
	fs.BoolVar(&a.gentle, "gentle", false, "ikev2: leave no half-open state on the gateway, and learn less")
	fs.StringVar(&a.offer, "offer", "", "ikev2: ask as a client with this `policy` would; see aovlb crypto help")
	fs.BoolVar(&a.scan, "scan", false, "ikev2: find out all that the gateway accepts; ask only gateways that are yours")
	fs.BoolVar(&a.all, "all", false, "ikev2 --scan: try algorithms that Windows doesn't have, too")
	fs.BoolVar(&a.verbose, "progress", false, "ikev2 --scan: show how far it is")
	fs.IntVar(&a.most, "max", 400, "ikev2 --scan: ask at most this `many` questions")
	fs.DurationVar(&a.interval, "interval", 50*time.Millisecond, "ikev2 --scan: pause this `long` between questions")
	fs.StringVar(&a.name, "name", "", "sstp: the `name` to ask for, if it isn't HOST")
	fs.BoolVar(&a.verify, "verify", false, "sstp: fail if clients would not accept the certificate")
	fs.StringVar(&a.ca, "ca", "", "sstp: verify with the CAs in this `file`, instead of those of the system; PEM, DER or PKCS#7")
	fs.BoolVar(&a.plain, "plain-http", false, "sstp: ask without TLS")
	fs.BoolVar(&a.call, "call", false, "sstp: begin a call and abort it, which takes a port of the gateway for a moment")
	fs.BoolVar(&a.ipHTTPS, "ip-https", false, "sstp: ask for what DirectAccess clients ask for")
	fs.StringVar(&a.secret.File, "secret-file", "", "radius: `file` with the secret")
	fs.StringVar(&a.secret.Env, "secret-env", "", "radius: environment `variable` with the secret")
	fs.StringVar(&a.user, "user", "", "radius: the `name` to ask about")
	fs.BoolVar(&a.acct, "accounting", false, "radius: send an Accounting-Request")
	fs.BoolVar(&a.strict, "require-message-authenticator", false, "radius: take no answer without one")
}

// A probe asks one address.
type probe struct {
	ask  func(context.Context, *asked, *finding) error
	port uint16
}

func runProbe(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("probe", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print JSON")
	var a asked
	a.flags(fs)
	args, err := parse(env, fs, args, 2)
	if err != nil {
		return err
	}
	p, ok := map[string]probe{"ikev2": {askIKE, 500}, "sstp": {askSSTP, 443}, "radius": {askRADIUS, 1812}}[args[0]]
	if !ok {
		return &usageError{fmt.Sprintf("%q can't be probed, ikev2, sstp and radius can", args[0])}
	}
	if a.ca != "" && (args[0] != "sstp" || a.plain) {
		return &usageError{"--ca is for sstp with TLS"}
	}
	if a.acct {
		p.port = 1813
	}
	if a.timeout <= 0 {
		return &usageError{"--timeout has to be above zero"}
	}
	if _, err := a.proposals(); err != nil {
		return &usageError{"--offer: " + err.Error()}
	}
	targets, err := a.resolve(ctx, args[1], p.port)
	if err != nil {
		return err
	}
	if a.scan {
		if args[0] != "ikev2" || a.most <= 0 || a.interval <= 0 {
			return &usageError{"--scan is for ikev2 only, and --max and --interval have to be above zero"}
		}
		return scanIKE(ctx, env, &a, targets, *asJSON)
	}
	found, serves := a.probe(ctx, args[0], p, targets)
	if *asJSON {
		if err := printJSON(env.stdout, found); err != nil {
			return err
		}
	} else {
		printFindings(env, found)
	}
	if !serves {
		return errSilent
	}
	return nil
}

// probe asks all targets, and reports whether all serve.
func (a *asked) probe(ctx context.Context, protocol string, p probe, targets []netip.AddrPort) ([]finding, bool) {
	serves := true
	found := make([]finding, 0, len(targets))
	for _, t := range targets {
		f := finding{Protocol: protocol, Target: t, Facts: []fact{}}
		ctx, cancel := context.WithTimeout(ctx, a.timeout)
		err := p.ask(ctx, a, &f)
		cancel()
		if f.Serves = err == nil; err != nil {
			f.Error = err.Error()
			serves = false
		}
		found = append(found, f)
	}
	return found, serves
}

// resolve returns all addresses of a host, each with a port.
func (a *asked) resolve(ctx context.Context, host string, port uint16) ([]netip.AddrPort, error) {
	a.host = host
	if h, p, err := net.SplitHostPort(host); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return nil, &usageError{fmt.Sprintf("%q is not a port", p)}
		}
		a.host, port = h, uint16(n)
	}
	if addr, err := netip.ParseAddr(a.host); err == nil {
		a.host = ""
		return []netip.AddrPort{netip.AddrPortFrom(addr, port)}, nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", a.host)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address", a.host)
	}
	var out []netip.AddrPort
	for _, addr := range addrs {
		out = append(out, netip.AddrPortFrom(addr.Unmap(), port))
	}
	return out, nil
}

func printFindings(env *environment, found []finding) {
	for _, f := range found {
		if f.Serves {
			fmt.Fprintf(env.stdout, "%v serves %s\n", f.Target, f.Protocol)
		} else {
			fmt.Fprintf(env.stdout, "%v does not serve %s: %s\n", f.Target, f.Protocol, f.Error)
		}
		for _, x := range f.Facts {
			fmt.Fprintf(env.stdout, "  %-24s %s\n", x.Name, x.Value)
		}
	}
}

func askSSTP(ctx context.Context, a *asked, f *finding) error {
	name := a.name
	if name == "" {
		name = a.host
	}
	p := &sstp.Prober{ServerName: name, Verify: a.verify || a.ca != "", PlainHTTP: a.plain}
	if a.ca != "" {
		var err error
		if p.RootCAs, err = new(certFiles).roots(a.ca); err != nil {
			return err
		}
	}
	switch {
	case a.call && a.ipHTTPS:
		return &usageError{"--call and --ip-https are two questions"}
	case a.call:
		p.Question = sstp.AskCall
	case a.ipHTTPS:
		p.Question, f.Protocol = sstp.AskIPHTTPS, "ip-https"
	}
	r, err := p.Ask(ctx, f.Target)
	if r.Status != 0 {
		f.add("HTTP status", "%s", strings.TrimSpace(strconv.Itoa(r.Status)+" "+printable(r.Reason)))
	}
	if r.Server != "" {
		f.add("server", "%q", r.Server)
	}
	if r.TLSVersion != 0 { // the handshake was done
		f.add("TLS", "%s, %s", tls.VersionName(r.TLSVersion), tls.CipherSuiteName(r.CipherSuite))
	}
	if r.Leaf != nil {
		f.add("certificate for", "%s", printable(fmt.Sprint(certificateNames(&r))))
		f.add("certificate ends", "%s", r.Leaf.NotAfter.UTC().Format(time.DateOnly))
		f.add("certificate SHA-256", "%s", r.Fingerprint())
	}
	if r.Hashes != 0 {
		f.add("crypto binding", "%v", r.Hashes)
	}
	if r.Connect > 0 {
		f.add("time to connect", "%v", r.Connect.Round(10*time.Microsecond))
	}
	return err
}

// printable returns s, quoted if it holds what a terminal would obey: it may come
// from anybody who answers.
func printable(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	if q := strconv.Quote(s); q != `"`+s+`"` {
		return q
	}
	return s
}

func certificateNames(r *sstp.Result) []string {
	if len(r.Leaf.DNSNames) > 0 {
		return r.Leaf.DNSNames
	}
	return []string{r.Leaf.Subject.String()}
}

func askRADIUS(ctx context.Context, a *asked, f *finding) error {
	if a.secret.IsZero() {
		return errors.New("a RADIUS server answers only who shares a secret with it: give --secret-file or --secret-env")
	}
	secret, err := a.secret.Read()
	if err != nil {
		return err
	}
	p := &radius.Prober{
		Secret: radius.NewSecret(secret), User: a.user, Accounting: a.acct, RequireMessageAuthenticator: a.strict,
	}
	r, err := p.Ask(ctx, f.Target)
	if r.Code != 0 {
		f.add("answer", "%v", r.Code)
		f.add("Message-Authenticator", "%s", yesNo(r.MessageAuthenticator))
		f.add("round trip", "%v", r.Took.Round(10*time.Microsecond))
	}
	if r.Message != "" {
		f.add("Reply-Message", "%q", r.Message)
	}
	if r.Forged > 0 {
		f.add("answers not believed", "%d", r.Forged)
	}
	return err
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
