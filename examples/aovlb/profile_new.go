package main

import (
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/aovlb/aovlb/profilexml"
)

var profileNewCommand = command{
	name: "new", usage: "[--type user|device|lockdown|plugin] …", short: "make a profile; asks, if it is told nothing", run: runProfileNew,
}

// A profileRequest is what a profile is made of, as flags and answers say it.
type profileRequest struct {
	kind     string
	servers  list
	protocol string
	suite    string
	force    bool
	routes   list
	excluded list
	dns      list
	trusted  list
	suffix   list
	register bool

	method  string
	nps     list
	roots   list
	issuers list
	ekus    list
	access  bool

	family, custom string

	use, out      string
	windows, name string
}

// list is a flag that may be given several times, or once with commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

// Set adds to the list.
func (l *list) Set(s string) error {
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			*l = append(*l, item)
		}
	}
	return nil
}

func (r *profileRequest) flags(fs *flag.FlagSet) {
	fs.StringVar(&r.kind, "type", "user", "the `kind`: user, device, lockdown or plugin")
	fs.Var(&r.servers, "server", "the gateways' public `name`; may be repeated")
	fs.StringVar(&r.protocol, "protocol", "IKEv2", "IKEv2, SSTP, Automatic, or several with > between them, such as IKEv2>SSTP (Windows 11)")
	fs.StringVar(&r.suite, "suite", "enhanced", "the cryptography: standard, enhanced, strong, six Name=value with commas, or none")
	fs.BoolVar(&r.force, "force", false, "send everything through the VPN")
	fs.Var(&r.routes, "route", "a `network` behind the VPN, such as 10.0.0.0/8, or @FILE with one in a line; may be repeated")
	fs.Var(&r.excluded, "exclude", "a `network` that isn't reached through the VPN, or @FILE; may be repeated")
	fs.Var((*verbatim)(&r.dns), "dns", "a DNS `rule` such as .corp.example.com=10.0.0.1,10.0.0.2; may be repeated")
	fs.Var(&r.trusted, "trusted", "the DNS `suffix` of the internal network, where no VPN is needed; may be repeated")
	fs.Var(&r.suffix, "suffix", "a DNS `suffix` of the connection; may be repeated")
	fs.BoolVar(&r.register, "register-dns", false, "register the VPN's address in DNS")
	fs.StringVar(&r.method, "eap", "PEAP-TLS", "how users are known: PEAP-TLS, EAP-TLS or PEAP-MSCHAPv2 (`method`)")
	fs.Var(&r.nps, "nps", "the `name` in the certificate of the RADIUS server; may be repeated")
	fs.Var(&r.roots, "root", "the RADIUS server's root certificate: a `file` or its SHA-1 thumbprint; may be repeated")
	fs.Var(&r.issuers, "issuer", "take only certificates of this issuer: a `file` or a thumbprint; may be repeated")
	fs.Var(&r.ekus, "eku", "take only certificates with this usage: `name=OID`, or conditional-access; may be repeated")
	fs.BoolVar(&r.access, "conditional-access", false, "use Entra conditional access; --issuer is then the company's own root, for servers behind the VPN")
	fs.StringVar(&r.windows, "windows", "11-25H2", "the oldest `release` that it must work on, for warnings")
	fs.StringVar(&r.name, "name", "", "what the profile will be called (`name`), for warnings")
	fs.StringVar(&r.family, "package", "", "the package family `name` of the app, for plugin")
	fs.StringVar(&r.custom, "custom", "", "a `file` with the app's configuration, for plugin")
	fs.StringVar(&r.use, "for", "editor", "how it is laid out: editor, intune, wmi or schema (`purpose`)")
	fs.StringVar(&r.out, "out", "", "write it to this `file`")
}

// verbatim is a list whose items have commas.
type verbatim []string

func (l *verbatim) String() string { return strings.Join(*l, " ") }

// Set adds to the list.
func (l *verbatim) Set(s string) error {
	*l = append(*l, s)
	return nil
}

func runProfileNew(_ context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("profile new", flag.ContinueOnError)
	var r profileRequest
	r.flags(fs)
	if _, err := parse(env, fs, args, 0); err != nil {
		return err
	}
	if len(args) == 0 {
		if env.stdin == nil {
			return &usageError{"there is nobody to ask: give flags"}
		}
		env.interruptible()
		if err := r.ask(env.stdin, env.stderr); err != nil {
			return err
		}
	}
	p, err := r.profile()
	if err != nil {
		return err
	}
	return r.deliver(env, p)
}

// deliver checks, formats and writes a profile.
func (r *profileRequest) deliver(env *environment, p *profilexml.Profile) error {
	order := profilexml.OrderReadback
	if r.use == "schema" {
		order = profilexml.OrderSchema
	}
	d, err := p.Document(order)
	if err != nil {
		return err
	}
	if d, err = formatFor(d, r.use, false); err != nil {
		return err
	}
	c := &profilexml.Checker{Name: r.name}
	if r.use == "wmi" || r.use == "schema" {
		c.Channel = profilexml.WMI
	}
	if c.Windows, err = profilexml.ParseWindows(cmp.Or(r.windows, "11")); err != nil {
		return &usageError{err.Error()}
	}
	for _, f := range c.Check(d) {
		if f.Severity > profilexml.Info {
			fmt.Fprintf(env.stderr, "%v %s: %s\n    do: %s\n", f.Severity, f.Rule, printableLine(f.Text), f.Remedy())
		}
	}
	if r.out == "" {
		_, err = env.stdout.Write(d.Bytes())
		return err
	}
	if err := replaceFile(r.out, d.Bytes()); err != nil {
		return err
	}
	fmt.Fprintf(env.stderr, "%s is written\n", r.out)
	if n := p.NativeProfile; n != nil && n.CryptographySuite != nil {
		fmt.Fprintf(env.stderr, "the gateways need the same cryptography: aovlb profile deliver --to server %s makes a script for them\n", r.out)
	}
	return nil
}

// profile makes the profile.
func (r *profileRequest) profile() (*profilexml.Profile, error) {
	if len(r.servers) == 0 {
		return nil, &usageError{"--server is needed: the public name of the gateways"}
	}
	var p *profilexml.Profile
	switch strings.ToLower(r.kind) {
	case "user":
		eap, err := r.eap()
		if err != nil {
			return nil, err
		}
		p = profilexml.NewUserTunnel(*eap, r.servers...)
		if r.access {
			p.UseConditionalAccess(eap.Certificate.Issuers...)
		}
	case "device":
		p = profilexml.NewDeviceTunnel(r.servers...)
	case "lockdown":
		p = profilexml.NewLockDown(r.servers...)
	case "plugin":
		custom, err := r.customConfiguration()
		if err != nil {
			return nil, err
		}
		p = profilexml.NewPlugin(r.family, custom, r.servers...)
	default:
		return nil, &usageError{fmt.Sprintf("--type can't be %q: it can be user, device, lockdown or plugin", r.kind)}
	}
	if p.NativeProfile != nil {
		if err := r.native(p.NativeProfile); err != nil {
			return nil, err
		}
	}
	return p, r.network(p)
}

func (r *profileRequest) customConfiguration() (string, error) {
	if r.custom == "" {
		return "", nil
	}
	b, err := os.ReadFile(r.custom)
	if err != nil {
		return "", err
	}
	d, err := profilexml.Parse(b)
	if err != nil {
		return "", fmt.Errorf("%s:%w", r.custom, err)
	}
	return strings.TrimSpace(d.Text), nil
}

// native sets the protocol, the cryptography and the routing.
func (r *profileRequest) native(n *profilexml.NativeProfile) error {
	n.NativeProtocolType = canonicalProtocol(r.protocol)
	if strings.Contains(r.protocol, ">") {
		n.NativeProtocolType = "ProtocolList"
		n.ProtocolList = new(profilexml.ProtocolList)
		for name := range strings.SplitSeq(r.protocol, ">") {
			name = strings.TrimSpace(name)
			n.ProtocolList.NativeProtocol = append(n.ProtocolList.NativeProtocol, profilexml.NativeProtocol{Type: listedProtocol(name)})
		}
	}
	n.CryptographySuite = nil
	if r.suite != "none" && n.NativeProtocolType != "Automatic" && strings.Contains(strings.ToLower(r.protocol), "ikev2") {
		s, err := parseSuite(r.suite)
		if err != nil {
			return err
		}
		n.CryptographySuite = &s
	}
	if r.force {
		n.RoutingPolicyType, n.DisableClassBasedDefaultRoute = "ForceTunnel", nil
	}
	return nil
}

func canonicalProtocol(s string) string {
	for _, v := range []string{"IKEv2", "SSTP", "Automatic", "L2TP", "PPTP"} {
		if strings.EqualFold(s, v) {
			return v
		}
	}
	return s
}

func listedProtocol(s string) string {
	for _, v := range []string{"Ikev2", "Sstp", "L2tp", "Pptp"} {
		if strings.EqualFold(s, v) {
			return v
		}
	}
	return s
}

// network sets routes and DNS.
func (r *profileRequest) network(p *profilexml.Profile) error {
	for i, list := range []list{r.routes, r.excluded} {
		prefixes, err := networksOf(list)
		if err != nil {
			return err
		}
		for _, prefix := range prefixes {
			route := profilexml.RouteTo(prefix)
			if i == 1 {
				route.ExclusionRoute = new(true)
			}
			p.Route = append(p.Route, route)
		}
	}
	if n := p.NativeProfile; n != nil && len(r.routes) == 0 {
		// Without routes, the one by the class of the VPN's address is all
		// that leads into the VPN.
		n.DisableClassBasedDefaultRoute = nil
	}
	for _, s := range r.dns {
		name, servers, _ := strings.Cut(s, "=")
		rule := profilexml.DomainNameInformation{DomainName: strings.TrimSpace(name)}
		for a := range strings.SplitSeq(servers, ",") {
			if a = strings.TrimSpace(a); a == "" {
				continue
			}
			addr, err := netip.ParseAddr(a)
			if err != nil {
				return &usageError{fmt.Sprintf("--dns %s: %q is no address of a DNS server", s, a)}
			}
			rule.DNSServers = append(rule.DNSServers, addr)
		}
		p.DomainNameInformation = append(p.DomainNameInformation, rule)
	}
	p.TrustedNetworkDetection, p.DNSSuffix = r.trusted, r.suffix
	if r.register {
		p.RegisterDNS = new(true)
	}
	return nil
}

// networksOf reads networks, those in files too.
func networksOf(l list) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	add := func(s, where string) error {
		p, err := parseNetwork(s)
		if err != nil {
			return &usageError{where + err.Error()}
		}
		networks = append(networks, p)
		return nil
	}
	for _, s := range l {
		file, ok := strings.CutPrefix(s, "@")
		if !ok {
			if err := add(s, ""); err != nil {
				return nil, err
			}
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for i, line := range strings.Split(string(b), "\n") {
			line, _, _ = strings.Cut(line, "#")
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			if err := add(line, fmt.Sprintf("%s:%d: ", file, i+1)); err != nil {
				return nil, err
			}
		}
	}
	return networks, nil
}

// parseNetwork reads a network, or an address, which is a network of its own.
func parseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, &usageError{fmt.Sprintf("%q is no network such as 10.0.0.0/8", s)}
	}
	return p, nil
}

// eap makes the settings of EAP.
func (r *profileRequest) eap() (*profilexml.EAP, error) {
	method, err := profilexml.ParseEAPMethod(r.method)
	if err != nil {
		return nil, &usageError{err.Error()}
	}
	e := &profilexml.EAP{Method: method, ServerNames: r.nps}
	if e.TrustedRoots, err = thumbprints(r.roots, true); err != nil {
		return nil, err
	}
	if e.Certificate.Issuers, err = thumbprints(r.issuers, false); err != nil {
		return nil, err
	}
	for _, s := range r.ekus {
		if s == "conditional-access" {
			e.Certificate.EKUs = append(e.Certificate.EKUs, profilexml.ConditionalAccessEKU())
			continue
		}
		name, oid, ok := strings.Cut(s, "=")
		if !ok {
			return nil, &usageError{fmt.Sprintf("--eku %s: write name=OID, or conditional-access", s)}
		}
		e.Certificate.EKUs = append(e.Certificate.EKUs, profilexml.EKU{Name: name, OID: oid})
	}
	return e, nil
}

// thumbprints reads thumbprints, or the files of the certificates they are of.
func thumbprints(items []string, root bool) ([]profilexml.Thumbprint, error) {
	var list []profilexml.Thumbprint
	for _, s := range items {
		if t, err := profilexml.ParseThumbprint(s); err == nil {
			list = append(list, t)
			continue
		}
		b, err := os.ReadFile(s)
		if err != nil {
			return nil, fmt.Errorf("%q is neither a SHA-1 thumbprint nor a file with a certificate: %w", s, err)
		}
		if block, _ := pem.Decode(b); block != nil {
			b = block.Bytes
		}
		c, err := x509.ParseCertificate(b)
		if err != nil {
			return nil, fmt.Errorf("%s holds no certificate: %w", s, err)
		}
		if root && c.Issuer.String() != c.Subject.String() {
			return nil, fmt.Errorf("%s is the certificate of %v, which %v issued: Windows wants the root, %v", s, c.Subject, c.Issuer, c.Issuer)
		}
		list = append(list, sha1.Sum(c.Raw))
	}
	return list, nil
}
