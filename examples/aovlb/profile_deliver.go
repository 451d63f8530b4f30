package main

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/aovlb/aovlb/profilexml"
)

var profileDeliverCommand = command{
	name: "deliver", usage: "--to intune|graph|syncml|wmi|detect|remove|cmdlets|all|server|directaccess|nps|request --name NAME FILE", short: "make what carries a profile to clients", run: runProfileDeliver,
}

// profileDelivery are the options of profile deliver.
type profileDelivery struct {
	to, out, scope string
	delivery       profilexml.Delivery
	replace, force bool
}

func runProfileDeliver(_ context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("profile deliver", flag.ContinueOnError)
	var o profileDelivery
	var server serverOptions
	var access accessOptions
	var nps npsOptions
	var request requestOptions
	fs.StringVar(&o.to, "to", "intune", "the `way`: intune (the XML and its OMA-URI), graph (JSON for Microsoft Graph), syncml, wmi (a script that installs), detect and remove (scripts), cmdlets (Add-VpnConnection), all (a folder of these), server (the gateways), directaccess, nps (NPS servers), request (an INF file for certreq)")
	fs.StringVar(&o.delivery.Name, "name", "", "what the connection is called (`name`)")
	fs.StringVar(&o.scope, "scope", "any", "whose it is: user, device (a device tunnel, or all users), or any, which takes it from the profile (`scope`)")
	fs.BoolVar(&o.delivery.KeepStrategy, "keep-strategy", false, "have scripts keep Windows from rewriting VpnStrategy (device only)")
	fs.BoolVar(&o.replace, "replace", false, "syncml: delete the connection first, which must be there")
	fs.BoolVar(&o.force, "force", false, "deliver it in spite of errors that check finds")
	fs.StringVar(&o.out, "out", "", "write to this `file`, or with --to all to this folder")
	server.flags(fs)
	access.flags(fs)
	nps.flags(fs)
	request.flags(fs)
	args, err := parse(env, fs, args, anyNumber)
	if err != nil {
		return err
	}
	if script, ok := map[string]func() (string, error){"directaccess": access.script, "nps": nps.script, "request": request.inf}[o.to]; ok {
		if len(args) > 0 {
			return &usageError{"--to " + o.to + " takes no profile"}
		}
		text, err := script()
		return o.write(env, text, err)
	}
	if len(args) != 1 {
		return &usageError{"name one profile"}
	}
	if o.delivery.Scope, err = profilexml.ParseScope(o.scope); err != nil {
		return &usageError{err.Error()}
	}
	if o.delivery.Document, err = openProfile(env, args[0]); err != nil {
		return err
	}
	if o.to == "server" {
		script, err := server.script(o.delivery.Document)
		return o.write(env, script, err)
	}
	if o.delivery.Name == "" {
		return &usageError{"--name is needed: what the connection is called"}
	}
	if err := o.check(env, args[0]); err != nil {
		return err
	}
	return o.deliver(env)
}

// check says what is wrong with the profile, and refuses errors.
func (o *profileDelivery) check(env *environment, file string) error {
	if o.to != "intune" && o.to != "graph" && o.to != "syncml" {
		o.delivery.Channel = profilexml.WMI
	}
	doc, err := o.delivery.Profile()
	if err != nil {
		return err
	}
	c := profilexml.Checker{Channel: o.delivery.Channel, Scope: o.delivery.Scope, Name: o.delivery.Name}
	failed := false
	for _, f := range c.Check(doc) {
		if f.Severity > profilexml.Info {
			fmt.Fprintf(env.stderr, "%s: %v %s: %s\n    do: %s\n", file, f.Severity, f.Rule, printableLine(f.Text), f.Remedy())
			failed = failed || f.Severity == profilexml.Error
		}
	}
	if failed && !o.force {
		return fmt.Errorf("%s has errors, so that clients would refuse it or take a part of it: see aovlb profile check --why, or give --force", file)
	}
	return nil
}

// ways are what can be made of a profile, and the names of files for --to all.
func (o *profileDelivery) ways() map[string]struct {
	file string
	make func() (string, error)
} {
	d := &o.delivery
	type way = struct {
		file string
		make func() (string, error)
	}
	text := func(b []byte, err error) (string, error) { return string(b), err }
	return map[string]way{
		"intune": {"profile.xml", func() (string, error) {
			doc, err := d.Profile()
			if err != nil {
				return "", err
			}
			return string(doc.Bytes()), nil
		}},
		"graph":   {"graph.json", func() (string, error) { return text(d.Graph()) }},
		"syncml":  {"syncml.xml", func() (string, error) { return text(d.SyncML(o.replace)) }},
		"wmi":     {"install.ps1", d.InstallScript},
		"detect":  {"detect.ps1", d.DetectScript},
		"remove":  {"remove.ps1", d.RemoveScript},
		"cmdlets": {"cmdlets.ps1", func() (string, error) { s, _, err := d.CmdletScript(); return s, err }},
	}
}

func (o *profileDelivery) deliver(env *environment) error {
	if o.to == "all" {
		return o.all(env)
	}
	w, ok := o.ways()[o.to]
	if !ok {
		return &usageError{fmt.Sprintf("--to can't be %q: it can be intune, graph, syncml, wmi, detect, remove, cmdlets, all, server, directaccess, nps or request", o.to)}
	}
	text, err := w.make()
	if err := o.write(env, text, err); err != nil {
		return err
	}
	switch o.to {
	case "intune":
		uri, err := o.delivery.OMAURI()
		if err != nil {
			return err
		}
		fmt.Fprintf(env.stderr, "Make a custom profile in Intune with this setting, and the file as its value:\n  OMA-URI    %s\n  Data type  String (XML file)\n", uri)
	case "graph":
		fmt.Fprintf(env.stderr, "POST it to %s, and assign what is made.\n", profilexml.GraphPath)
	}
	return nil
}

// all writes everything to a folder.
func (o *profileDelivery) all(env *environment) error {
	if o.out == "" {
		return &usageError{"--to all needs --out FOLDER"}
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"intune", "graph", "syncml", "wmi", "detect", "remove", "cmdlets"} {
		w := o.ways()[name]
		text, err := w.make()
		if err != nil {
			fmt.Fprintf(env.stderr, "%s: %v\n", name, err)
			continue
		}
		path := filepath.Join(o.out, w.file)
		if err := replaceFile(path, []byte(text)); err != nil {
			return err
		}
		fmt.Fprintln(env.stdout, path)
	}
	return nil
}

func (o *profileDelivery) write(env *environment, text string, err error) error {
	if err != nil {
		return err
	}
	if o.out != "" {
		return replaceFile(o.out, []byte(text))
	}
	_, err = fmt.Fprint(env.stdout, text)
	return err
}

// serverOptions are the flags for --to server.
type serverOptions struct {
	methods, ekus, radius list
	revocation, noRestart bool
	balanced              bool
	ports                 int
	root, offload         string
}

func (s *serverOptions) flags(fs *flag.FlagSet) {
	fs.StringVar(&s.root, "server-root", "", "server: take only computers with certificates below this root: a `file` or its thumbprint")
	fs.Var(&s.methods, "server-methods", "server: accept only these `methods`: EAP, Certificate, …")
	fs.Var(&s.ekus, "server-eku", "server: take only certificates of computers with this usage (`OID`)")
	fs.Var(&s.radius, "server-radius", "server: a RADIUS server (`name`); may be repeated")
	fs.BoolVar(&s.revocation, "server-crl", false, "server: refuse revoked certificates with IKEv2")
	fs.BoolVar(&s.noRestart, "server-no-restart", false, "server: don't restart RRAS")
	fs.BoolVar(&s.balanced, "server-balanced", false, "server: set what gateways behind a load balancer need: no cookies of IKEv2 at few connections, and short times for clients that are gone")
	fs.IntVar(&s.ports, "server-ports", 0, "server: how `many` clients each protocol takes")
	fs.StringVar(&s.offload, "server-sstp-offload", "", "server: TLS of SSTP ends at the load balancer, whose certificate has this SHA-256 `hash`; off ends that")
}

// script makes the script of the gateways that fit a profile.
func (s *serverOptions) script(doc *profilexml.Document) (string, error) {
	p, err := doc.Profile()
	if err != nil {
		return "", err
	}
	setup := profilexml.ServerSetup{
		Fragmentation: true, EKUs: s.ekus, UserMethods: s.methods, CheckRevocation: s.revocation, NoRestart: s.noRestart, RADIUS: s.radius,
		IKEv2Ports: s.ports, SSTPPorts: s.ports, Balanced: s.balanced,
	}
	if n := p.NativeProfile; n != nil {
		setup.Suite = n.CryptographySuite
	}
	if s.root != "" {
		roots, err := thumbprints([]string{s.root}, true)
		if err != nil {
			return "", err
		}
		setup.Root = roots[0]
	}
	switch s.offload {
	case "":
	case "off":
		setup.Offload = new(profilexml.SSTPOffload)
	default:
		b, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(s.offload))
		if err != nil || len(b) != 32 {
			return "", &usageError{"--server-sstp-offload must be a SHA-256 hash, of 64 hexadecimal digits, or off"}
		}
		setup.Offload = &profilexml.SSTPOffload{Enabled: true, Certificate: [32]byte(b)}
	}
	return setup.Script()
}

// accessOptions are the flags for --to directaccess.
type accessOptions struct {
	router, prefix, location, gpo, name, email string
	probe, lookUp                              string
	inside                                     list
	resources                                  verbatim
	gslb                                       string
	manual                                     bool
	entryPoints                                verbatim
	renewDays                                  int
}

func (a *accessOptions) flags(fs *flag.FlagSet) {
	fs.StringVar(&a.router, "isatap-router", "", "directaccess: the `name` of the ISATAP router")
	fs.StringVar(&a.prefix, "isatap-prefix", "", "directaccess: the `network` that the router publishes, of 64 bits")
	fs.StringVar(&a.location, "network-location", "", "directaccess: the `URL` of the network location server")
	fs.StringVar(&a.gpo, "client-gpo", "", "directaccess: the `GPO` of what clients show, such as corp.example.com\\DirectAccess Client Settings")
	fs.Var(&a.resources, "client-resource", "directaccess: what tells clients that it works, such as HTTP:https://inside.example.com (`resource`); may be repeated")
	fs.StringVar(&a.name, "client-name", "", "directaccess: what clients call it (`name`)")
	fs.StringVar(&a.probe, "client-probe", "", "directaccess: the `URL` of a page that is inside only, by which clients know that they are connected")
	fs.StringVar(&a.lookUp, "client-dns", "", "directaccess: a `name` that is inside only, and its address, such as probe.corp.example.com=10.0.0.1")
	fs.Var(&a.inside, "client-prefix", "directaccess: a `network` that is inside; may be repeated")
	fs.StringVar(&a.gslb, "client-gslb", "", "directaccess: the `name` by which a global load balancer leads clients to an entry point of a multisite")
	fs.BoolVar(&a.manual, "client-manual-entry", false, "directaccess: users may choose the entry point of a multisite")
	fs.Var(&a.entryPoints, "client-entry", "directaccess: an `entry` point of a multisite, as NAME,SITE,ADDRESS,PREFIX and perhaps the address that the global load balancer gives; may be repeated")
	fs.IntVar(&a.renewDays, "renew-days", 0, "directaccess: renew the server's own certificates that end in so `many` days")
	fs.StringVar(&a.email, "client-email", "", "directaccess: the `address` of the help desk")
}

func (a *accessOptions) script() (string, error) {
	d := profilexml.DirectAccess{NetworkLocation: a.location, RenewDays: a.renewDays}
	if a.router != "" {
		d.ISATAP = &profilexml.ISATAP{Router: a.router}
		if a.prefix != "" {
			p, err := netip.ParsePrefix(a.prefix)
			if err != nil {
				return "", &usageError{fmt.Sprintf("--isatap-prefix %s is no network such as 2001:db8:0:1::/64", a.prefix)}
			}
			d.ISATAP.Prefix = p
		}
	}
	if a.gpo != "" {
		d.Experience = &profilexml.ClientExperience{PolicyStore: a.gpo, Resources: a.resources, Name: a.name, Email: a.email, GSLB: a.gslb, ManualEntryPoint: a.manual}
	}
	var err error
	for _, s := range a.entryPoints {
		if d.Experience == nil {
			return "", &usageError{"--client-entry needs --client-gpo: entry points are in the policy of clients"}
		}
		p, err := parseEntryPoint(s)
		if err != nil {
			return "", err
		}
		d.Experience.EntryPoints = append(d.Experience.EntryPoints, p)
	}
	if d.Probes, err = a.probes(); err != nil {
		return "", err
	}
	if d.ISATAP == nil && d.Experience == nil && d.NetworkLocation == "" && d.Probes == nil && d.RenewDays == 0 {
		return "", &usageError{"--to directaccess needs --isatap-router, --network-location, --renew-days, --client-probe, --client-dns, --client-prefix or --client-gpo"}
	}
	return d.Script()
}

// parseEntryPoint reads what --client-entry says.
func parseEntryPoint(s string) (p profilexml.EntryPoint, err error) {
	bad := &usageError{fmt.Sprintf("--client-entry %s: write NAME,SITE,ADDRESS,PREFIX, such as Paris,Paris-Site,2001:db8::1,2001:db8:0:1::/64", s)}
	fields := strings.Split(s, ",")
	if len(fields) != 4 && len(fields) != 5 {
		return p, bad
	}
	p.Name, p.Site = fields[0], fields[1]
	if p.Address, err = netip.ParseAddr(fields[2]); err != nil {
		return p, bad
	}
	if p.Range, err = netip.ParsePrefix(fields[3]); err != nil {
		return p, bad
	}
	if len(fields) == 5 {
		if p.GSLB, err = netip.ParseAddr(fields[4]); err != nil {
			return p, bad
		}
	}
	return p, nil
}

// probes are what clients take for signs of the internal network, or nil.
func (a *accessOptions) probes() (*profilexml.CorporateProbes, error) {
	if a.probe == "" && a.lookUp == "" && len(a.inside) == 0 {
		return nil, nil
	}
	p := &profilexml.CorporateProbes{WebsiteURL: a.probe}
	if a.lookUp != "" {
		name, address, _ := strings.Cut(a.lookUp, "=")
		ip, err := netip.ParseAddr(address)
		if err != nil {
			return nil, &usageError{fmt.Sprintf("--client-dns %s: write the name, =, and its address", a.lookUp)}
		}
		p.DNSHost, p.DNSAddress = name, ip
	}
	for _, s := range a.inside {
		n, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, &usageError{fmt.Sprintf("--client-prefix %s is no network such as 2001:db8::/48", s)}
		}
		p.Prefixes = append(p.Prefixes, n)
	}
	return p, nil
}
