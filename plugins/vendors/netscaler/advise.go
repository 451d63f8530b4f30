package netscaler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// mostPrefix is how long what names begin with may be, so that names of files fit.
const mostPrefix = 32

// adviser says what only NetScaler's driver knows.
type adviser struct {
	site  *plugins.Site
	owner plugins.Owner
	at    string // the site's path
	out   []plugins.Diagnostic
}

func (a *adviser) say(severity plugins.Severity, path, summary, detail, fix string) {
	a.out = append(a.out, plugins.Diagnostic{Severity: severity, Path: a.at + path, Summary: summary, Detail: detail, Fix: fix})
}

func (a *adviser) advise(geo *plugins.Geo) []plugins.Diagnostic {
	if p := a.owner.Prefix(a.site.Name); len(p) > mostPrefix {
		a.say(plugins.SeverityError, ".name", "with the owner's name it is too long for NetScaler's names",
			fmt.Sprintf("they would begin with %s, of which %d characters are the most", p, mostPrefix), "shorten the site's name or the owner's")
	}
	for i := range a.site.Pools {
		a.pool(fmt.Sprintf(".pools[%d]", i), &a.site.Pools[i])
	}
	for i := range a.site.Groups {
		a.group(fmt.Sprintf(".groups[%d]", i), &a.site.Groups[i])
	}
	if geo != nil {
		a.out = append(a.out, adviseGeo(geo)...)
	}
	return a.out
}

func (a *adviser) pool(at string, p *plugins.Pool) {
	if heaviest(p) > mostWeight {
		a.say(plugins.SeverityInfo, at+".backends", fmt.Sprintf("weights are scaled to at most %d, NetScaler's greatest", mostWeight), "", "")
	}
	weighted := slices.ContainsFunc(p.Backends, func(b plugins.Backend) bool { return b.Weight != nil && *b.Weight > 1 })
	if weighted && (p.Picker == "" || p.Picker == plugins.PickMaglev) {
		a.say(plugins.SeverityWarning, at+".picker", "NetScaler's hashes don't regard weights", "each backend gets the same share of clients known by address or user",
			"use least-clients or round-robin")
	}
	for _, level := range levels(p) {
		if _, same := mostClients(p, level); !same {
			a.say(plugins.SeverityWarning, at+".backends", fmt.Sprintf("backends of priority %d have different max_clients, so that none is bounded", level),
				"a servicegroup has one limit for all of its members", "give all the same")
		}
	}
	for i := range p.Checks {
		c := p.Checks[i].Usual()
		path := fmt.Sprintf("%s.checks[%d]", at, i)
		if c.Rise > mostRise {
			a.say(plugins.SeverityWarning, path+".rise", fmt.Sprintf("NetScaler counts to %d at most", mostRise), "", "")
		}
		if c.Timeout >= c.Interval {
			a.say(plugins.SeverityInfo, path+".timeout", "it is shortened by 100ms, since NetScaler wants it to be less than the interval", "", "")
		}
		if c.Type == plugins.CheckRADIUS && !c.Advisory {
			a.say(plugins.SeverityInfo, path, "the appliance asks from its own addresses", "servers must know its SNIPs, and NSIPs, as clients with this secret", "")
		}
		if host := c.Host; !oneLine(host) || strings.Contains(host, `"`) {
			a.say(plugins.SeverityError, path+".host", "it isn't the name of a host", "", "")
		}
	}
}

func (a *adviser) group(at string, g *plugins.Group) {
	idle := cmp.Or(g.Idle.D(), usualIdle)
	if idle > mostMinutes*time.Minute {
		a.say(plugins.SeverityWarning, at+".idle", fmt.Sprintf("NetScaler remembers clients for %d minutes at most", mostMinutes), "one that is silent longer may get another backend", "")
	}
	p := a.site.Pool(g.Pool)
	for k := range g.Listeners {
		l, path := &g.Listeners[k], fmt.Sprintf("%s.listeners[%d]", at, k)
		if l.Address.Addr().IsUnspecified() {
			a.say(plugins.SeverityError, path+".address", "a virtual server has an address of its own", "", "name the address, rather than "+l.Address.Addr().String())
		}
		if len(levels(p)) > 1 && l.Address.Addr().Unmap().Is6() {
			a.say(plugins.SeverityInfo, path+".address", "what stands by has no address of its own", "", "")
		}
		a.tls(path+".tls", g, l)
	}
	ike := slices.ContainsFunc(g.Listeners, func(l plugins.Listener) bool { return l.Protocol == plugins.ProtocolIKEv2 })
	switch {
	case g.ClientAddress == plugins.ClientAddressTransparent:
		a.say(plugins.SeverityInfo, at+".client_address", "backends must send their answers through the appliance", "their default route leads to a SNIP of it", "")
	case ike:
		a.say(plugins.SeverityWarning, at+".client_address", "gateways see all clients of IKEv2 at one address",
			"Windows bounds how many it takes from one (error 809 beyond), and hides who they are", "use client_address: transparent, with the gateways' default route through the appliance")
	}
}

func (a *adviser) tls(at string, g *plugins.Group, l *plugins.Listener) {
	t := &l.TLS
	if !t.Terminated() {
		return
	}
	if !slices.ContainsFunc(a.site.Certificates, func(c plugins.Certificate) bool { return c.Pool == g.Pool && c.CertFile != "" }) {
		a.say(plugins.SeverityError, at+".mode", "there is no certificate from a file for its pool to end TLS with", "", "add one to certificates, with cert_file")
	}
	if t.Mode == plugins.TLSReencrypt && t.Gateway.CAFile == "" && !t.Gateway.Insecure {
		a.say(plugins.SeverityError, at+".gateway.ca_file", "NetScaler verifies gateways only by CAs that it is given", "",
			"name the file of their CA, or set insecure")
	}
	if t.PassNull && t.MinVersion == plugins.TLS13 {
		a.say(plugins.SeverityError, at+".min_version", "TLS 1.3 has no connections without encryption", "", "leave it out, or pass_null")
	}
	if t.IPHTTPS && t.Clients.CAFile == "" {
		a.say(plugins.SeverityInfo, at+".clients.ca_file", "clients of DirectAccess aren't authenticated before they reach a gateway",
			"with the CA of their computer certificates, only these get through (pre-authentication)", "")
	}
	if t.Mode == plugins.TLSOffload {
		a.say(plugins.SeverityInfo, at+".mode", "gateways must have UseHttps = 0 and the SHA-256 of this certificate", "SSTP binds each session to the certificate that its client was shown", "")
	}
}
