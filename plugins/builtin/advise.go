package builtin

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/aovlb/aovlb/plugins"
)

// advise says what is allowed, and unwise.
func advise(s *plugins.Site, at string) []plugins.Diagnostic {
	var out []plugins.Diagnostic
	warn := func(path, summary, detail, fix string) {
		out = append(out, plugins.Diagnostic{Severity: plugins.SeverityWarning, Path: at + path, Summary: summary, Detail: detail, Fix: fix})
	}
	used := make(map[string]bool)
	for i := range s.Groups {
		g := &s.Groups[i]
		used[g.Pool] = true
		path := fmt.Sprintf(".groups[%d]", i)
		adviseIKE(g, path, warn)
		adviseChecks(s, g, path, warn)
		adviseRADIUS(g, path, warn)
		out = append(out, adviseTLS(g, at+path)...)
	}
	for i := range s.Pools {
		p := &s.Pools[i]
		path := fmt.Sprintf(".pools[%d]", i)
		if !used[p.Name] {
			warn(path, fmt.Sprintf("no group uses pool %s", p.Name), "its backends are checked, and get no clients", "")
		}
		if len(p.Checks) == 0 && len(p.Backends) > 1 {
			warn(path+".checks", fmt.Sprintf("pool %s has no check", p.Name),
				"a backend that doesn't serve keeps getting clients", "add a check of the protocol that it serves")
		}
	}
	return out
}

func secretField(s plugins.Secret) string {
	if s.File != "" {
		return "secret_file"
	}
	return "secret_env"
}

// adviseIKE sees to it that both ports of IKE are there.
func adviseIKE(g *plugins.Group, path string, warn func(path, summary, detail, fix string)) {
	ports := make(map[uint16]int)
	for i := range g.Listeners {
		if l := &g.Listeners[i]; l.Protocol == plugins.ProtocolIKEv2 {
			ports[l.TargetPort()] = i
		}
	}
	i, has := ports[500]
	if _, natt := ports[4500]; has && !natt {
		warn(fmt.Sprintf("%s.listeners[%d]", path, i), fmt.Sprintf("group %s has IKEv2 on port 500 and not on 4500", g.Name),
			"clients behind a NAT go on to port 4500, and would fail there", "add a listener of protocol ikev2 at port 4500")
	}
}

// adviseRADIUS names clients whose answers nothing protects.
func adviseRADIUS(g *plugins.Group, path string, warn func(path, summary, detail, fix string)) {
	if g.RADIUS == nil {
		return
	}
	for i := range g.RADIUS.Clients {
		if c := &g.RADIUS.Clients[i]; c.MessageAuthenticator == plugins.MessageLegacy {
			warn(fmt.Sprintf("%s.radius.clients[%d].message_authenticator", path, i), fmt.Sprintf("answers to %s may have no Message-Authenticator", c.Name),
				"who is between can turn a reject into an accept (CVE-2024-3596)", "leave it out, unless this client refuses answers that have one")
		}
	}
}

// adviseTLS says what can't be asked of clients whose TLS isn't ended here. On
// balancers that end it, they can be asked for certificates.
func adviseTLS(g *plugins.Group, path string) []plugins.Diagnostic {
	var out []plugins.Diagnostic
	for i := range g.Listeners {
		if l := &g.Listeners[i]; l.TLS.Mode == plugins.TLSOffload && l.TLS.IPHTTPS && cmp.Or(l.TLS.Gateway.Port, int(l.Address.Port())) == int(l.TargetPort()) {
			out = append(out, plugins.Diagnostic{
				Severity: plugins.SeverityWarning, Path: fmt.Sprintf("%s.listeners[%d].tls.ip_https", path, i),
				Summary: fmt.Sprintf("IP-HTTPS goes on by TLS to port %d of the gateways, where SSTP's plain HTTP goes too", l.TargetPort()),
				Detail:  "one port can't take both: clients of one of them get a 503",
				Fix:     "set tls.gateway.port to where gateways take TLS, and backend_port to where they take plain HTTP",
			})
		}
		if t := &g.Listeners[i].TLS; t.PassNull && t.Clients.CAFile != "" && !t.Clients.Optional {
			out = append(out, plugins.Diagnostic{
				Severity: plugins.SeverityError, Path: fmt.Sprintf("%s.listeners[%d].tls.pass_null", path, i),
				Summary: "who is passed unopened can't be asked for a certificate", Fix: "leave it out, or set clients.optional",
			})
		}
	}
	return out
}

// adviseChecks sees to it that what is served is checked.
func adviseChecks(s *plugins.Site, g *plugins.Group, path string, warn func(path, summary, detail, fix string)) {
	p := s.Pool(g.Pool)
	if p == nil || len(p.Checks) == 0 {
		return
	}
	told := make(map[plugins.Protocol]bool)
	for i := range g.Listeners {
		proto := g.Listeners[i].Protocol
		want := plugins.CheckType(proto)
		if g.Proxies() && g.RADIUS.Transport == plugins.TransportRadSec {
			want = plugins.CheckRadSec
		} else if proto == plugins.ProtocolRadSec {
			want = plugins.CheckRADIUS
		}
		if told[proto] || want == plugins.CheckTCP || want == "udp" ||
			slices.ContainsFunc(p.Checks, func(c plugins.Check) bool { return c.Type == want }) {
			continue
		}
		told[proto] = true
		warn(fmt.Sprintf("%s.listeners[%d]", path, i), fmt.Sprintf("no check of pool %s asks whether %s is served", p.Name, proto),
			"a gateway whose "+string(proto)+" is dead would keep getting clients", fmt.Sprintf("add a check of type %s", want))
	}
}
