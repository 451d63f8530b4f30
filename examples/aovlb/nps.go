package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/radius"
	"github.com/aovlb/aovlb/radius/eaptls"
	"github.com/aovlb/aovlb/radius/npscert"
)

var npsCommand = command{
	name: "nps", usage: "check|request|template …", short: "certificates of NPS servers behind one name", run: runNPS,
}

func runNPS(ctx context.Context, env *environment, args []string) error {
	subs := map[string]func(context.Context, *environment, []string) error{
		"check": runNPSCheck, "request": runNPSRequest, "template": runNPSTemplate,
	}
	if len(args) == 0 || args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		fmt.Fprint(env.stdout, npsUsage)
		return nil
	}
	sub, ok := subs[args[0]]
	if !ok {
		return &usageError{fmt.Sprintf("%q is unknown, there are check, request and template", args[0])}
	}
	return sub(ctx, env, args[1:])
}

const npsUsage = `aovlb nps has these commands, each with --help:
  aovlb nps check --cluster NAME --secret-file FILE SERVER…   will Windows clients accept every server?
  aovlb nps request --cluster NAME --host NAME…               what to ask AD CS for, as PowerShell, INF or CSR
  aovlb nps template --group NAME                             PowerShell that adds a certificate template to AD CS
`

// names is a flag that may be given several times, or with commas.
type names []string

func (n *names) String() string { return strings.Join(*n, ",") }

func (n *names) Set(s string) error {
	for one := range strings.SplitSeq(s, ",") {
		if one = strings.TrimSpace(one); one != "" {
			*n = append(*n, one)
		}
	}
	return nil
}

func runNPSRequest(_ context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("nps request", flag.ContinueOnError)
	var r npscert.Request
	var hosts, more names
	fs.StringVar(&r.Cluster, "cluster", "", "the `name` that clients' profiles name; it becomes the subject")
	fs.Var(&hosts, "host", "a server's DNS `name`; may be given several times")
	fs.Var(&more, "name", "a further DNS `name` to be in the certificate; may be given several times")
	fs.IntVar(&r.Bits, "bits", npscert.DefaultBits, "the length of the RSA `key`")
	fs.StringVar(&r.Template, "template", npscert.DefaultTemplate, "the `name` of the template at AD CS")
	fs.StringVar(&r.FriendlyName, "friendly-name", "", "what Windows calls the certificate; empty is NPS and the cluster's name")
	format := fs.String("format", "powershell", "powershell for all servers, inf for certreq on one, or csr for another authority")
	key := fs.String("key", "", "csr: the `file` to write the private key to; it must not exist")
	if _, err := parse(env, fs, args, 0); err != nil {
		return err
	}
	r.Hosts, r.More = hosts, more
	var out []byte
	var err error
	switch *format {
	case "powershell":
		out, err = r.PowerShell()
	case "inf":
		out, err = r.INF()
	case "csr":
		out, err = npsCSR(&r, *key)
	default:
		return &usageError{fmt.Sprintf("--format %q is unknown, it can be powershell, inf or csr", *format)}
	}
	if err != nil {
		return err
	}
	_, err = env.stdout.Write(out)
	return err
}

// npsCSR makes a request, and writes its key to a file that nobody else can read.
func npsCSR(r *npscert.Request, file string) ([]byte, error) {
	if file == "" {
		return nil, &usageError{"--format csr needs --key FILE, for the private key"}
	}
	request, key, err := r.PKCS10()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(key)
	return request, errors.Join(err, f.Close())
}

func runNPSTemplate(_ context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("nps template", flag.ContinueOnError)
	var t npscert.Template
	fs.StringVar(&t.Group, "group", "", "the `group` of the NPS servers' computer accounts, which may enroll")
	fs.StringVar(&t.Name, "name", npscert.DefaultTemplate, "the template's `name`")
	fs.StringVar(&t.DisplayName, "display-name", "", "what people see; empty is NPS cluster")
	fs.IntVar(&t.Bits, "bits", npscert.DefaultBits, "the least length of an RSA `key`")
	fs.BoolVar(&t.NoApproval, "no-approval", false, "issue certificates without a CA manager's approval")
	if _, err := parse(env, fs, args, 0); err != nil {
		return err
	}
	out, err := t.PowerShell()
	if err != nil {
		return err
	}
	_, err = env.stdout.Write(out)
	return err
}

// npsChecked are the options of nps check.
type npsChecked struct {
	want    npscert.Expected
	secret  plugins.Secret
	client  eaptls.Client
	ca      string
	profile string
	method  string
	local   string
	called  string
	calling string
	tls13   bool
	timeout time.Duration
	json    bool
}

func (c *npsChecked) flags(fs *flag.FlagSet) {
	fs.StringVar(&c.want.Cluster, "cluster", "", "the `name` that clients' profiles name")
	fs.StringVar(&c.secret.File, "secret-file", "", "`file` with the secret shared with the servers")
	fs.StringVar(&c.secret.Env, "secret-env", "", "environment `variable` with the secret")
	fs.StringVar(&c.client.User, "user", "", "the `name` to give, without a password: NPS wants one that a policy lets in")
	fs.StringVar(&c.method, "method", "peap", "peap or tls (smart card or other certificate)")
	fs.StringVar(&c.ca, "ca", "", "`file` with the root certificates that clients trust, in PEM or DER")
	fs.StringVar(&c.profile, "profile", "", "`file` with the ProfileXML, for its ServerNames and TrustedRootCA")
	fs.StringVar(&c.local, "local", "", "the `address` to send from, if the servers know only that one")
	fs.StringVar(&c.called, "called-station", "", "Called-Station-Id, if a policy looks for it")
	fs.StringVar(&c.calling, "calling-station", "", "Calling-Station-Id, if a policy looks for it")
	fs.IntVar(&c.client.FramedMTU, "framed-mtu", eaptls.DefaultFramedMTU, "how long EAP packets may be, in `bytes`")
	fs.BoolVar(&c.tls13, "tls13", false, "offer TLS 1.3 too")
	fs.DurationVar(&c.timeout, "timeout", eaptls.DefaultTimeout, "how `long` to try each server")
	fs.BoolVar(&c.json, "json", false, "print JSON")
}

// prepare reads what the options name.
func (c *npsChecked) prepare() error {
	if c.want.Cluster == "" {
		return &usageError{"--cluster is needed: the name that clients' profiles name"}
	}
	if c.secret.IsZero() {
		return &usageError{"--secret-file or --secret-env is needed: a server answers only who shares a secret with it"}
	}
	secret, err := c.secret.Read()
	if err != nil {
		return err
	}
	c.client.Secret = radius.NewSecret(secret)
	switch c.method {
	case "peap":
		c.client.Method = eaptls.PEAP
	case "tls":
		c.client.Method = eaptls.TLS
	default:
		return &usageError{fmt.Sprintf("--method %q is unknown, it can be peap or tls", c.method)}
	}
	if c.tls13 {
		c.client.MaxVersion = tls.VersionTLS13
	}
	if c.local != "" {
		if c.client.LocalAddr, err = netip.ParseAddr(c.local); err != nil {
			return &usageError{fmt.Sprintf("--local: %v", err)}
		}
	}
	for t, v := range map[radius.Type]string{radius.CalledStationID: c.called, radius.CallingStationID: c.calling} {
		if v != "" {
			c.client.Attributes = append(c.client.Attributes, eaptls.Attribute{Type: t, Value: []byte(v)})
		}
	}
	if c.ca != "" {
		if c.want.Roots, err = readRoots(c.ca); err != nil {
			return err
		}
	}
	if c.profile == "" {
		return nil
	}
	f, err := os.Open(c.profile)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	c.want.ServerNames, c.want.Thumbprints, err = npscert.ReadProfile(f)
	return err
}

// readRoots reads certificates in PEM, or one in DER.
func readRoots(file string) ([]*x509.Certificate, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for rest := b; ; {
		block, after := pem.Decode(rest)
		if block == nil {
			break
		}
		rest = after
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, cert)
	}
	if all == nil {
		cert, err := x509.ParseCertificate(b)
		if err != nil {
			return nil, fmt.Errorf("%s holds no certificate in PEM, nor one in DER: %w", file, err)
		}
		all = append(all, cert)
	}
	return all, nil
}

func runNPSCheck(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("nps check", flag.ContinueOnError)
	var c npsChecked
	c.flags(fs)
	hosts, err := parse(env, fs, args, -1)
	if err != nil {
		return err
	}
	if err := c.prepare(); err != nil {
		return err
	}
	var servers []npscert.Server
	for _, h := range hosts {
		more, err := c.resolve(ctx, h)
		if err != nil {
			return err
		}
		servers = append(servers, more...)
	}
	report := npscert.Check(ctx, c.timed(), servers, c.want)
	if c.json {
		err = printJSON(env.stdout, report)
	} else {
		printNPS(env, &report)
	}
	if err == nil && !report.Fits {
		err = errSilent
	}
	return err
}

// resolve returns all addresses of a server.
func (c *npsChecked) resolve(ctx context.Context, host string) ([]npscert.Server, error) {
	a := asked{}
	targets, err := a.resolve(ctx, host, 1812)
	if err != nil {
		return nil, err
	}
	var out []npscert.Server
	for _, t := range targets {
		if t.Addr().Is6() && len(targets) > 1 && t.Addr().IsLinkLocalUnicast() {
			continue
		}
		out = append(out, npscert.Server{Name: a.host, Addr: t})
	}
	return out, nil
}

// timedLook gives each look its own time.
type timedLook struct {
	client  *eaptls.Client
	timeout time.Duration
}

func (c *npsChecked) timed() timedLook { return timedLook{&c.client, c.timeout} }

// Look looks at one server.
func (l timedLook) Look(ctx context.Context, target netip.AddrPort) (eaptls.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	r, err := l.client.Look(ctx, target)
	if errors.Is(err, eaptls.ErrRejected) {
		err = fmt.Errorf("%w; NPS looks the account up first: give --user one that a policy lets in, no password is needed", err)
	}
	return r, err
}

func printNPS(env *environment, r *npscert.Report) {
	for i := range r.Servers {
		s := &r.Servers[i]
		who := s.Address
		if s.Name != "" {
			who = net.JoinHostPort(s.Name, strconv.Itoa(int(netip.MustParseAddrPort(s.Address).Port()))) + " (" + s.Address + ")"
		}
		verdict := "will be accepted by Windows clients"
		switch {
		case s.Error != "" && s.Subject == "":
			verdict = "could not be looked at: " + s.Error
		case !s.Fits:
			verdict = "will NOT be accepted by Windows clients"
		}
		fmt.Fprintf(env.stdout, "%s: %s\n", who, verdict)
		if s.Subject != "" {
			printNPSCertificate(env, s)
		}
		printNPSFindings(env, "  ", s.Findings)
	}
	printNPSFindings(env, "", r.Findings)
	if r.Fits {
		fmt.Fprintf(env.stdout, "%s: all %d %s fit\n", r.Cluster, len(r.Servers), plural(len(r.Servers), "server", "servers"))
	} else {
		bad := len(slices.DeleteFunc(slices.Clone(r.Servers), func(s npscert.ServerReport) bool { return s.Fits }))
		fmt.Fprintf(env.stdout, "%s: %d of %d %s don't fit\n", r.Cluster, bad, len(r.Servers), plural(len(r.Servers), "server", "servers"))
	}
}

func printNPSCertificate(env *environment, s *npscert.ServerReport) {
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(env.stdout, "  %-18s %s\n", name, printable(value))
		}
	}
	row("subject", s.Subject)
	row("names", strings.Join(s.DNSNames[:min(len(s.DNSNames), 20)], " "))
	row("issuer", s.Issuer)
	row("ends", s.NotAfter.Format(time.DateOnly))
	row("thumbprint", s.Thumbprint)
	row("root's thumbprint", s.RootThumbprint)
	row("spoken", fmt.Sprintf("%s, %s, %d rounds", s.Method, s.TLS, s.Rounds))
}

func printNPSFindings(env *environment, indent string, found []npscert.Finding) {
	for _, f := range found {
		fmt.Fprintf(env.stdout, "%s%s: %s\n", indent, f.Severity, f.Text)
		if f.Fix != "" {
			fmt.Fprintf(env.stdout, "%s  → %s\n", indent, f.Fix)
		}
	}
}
