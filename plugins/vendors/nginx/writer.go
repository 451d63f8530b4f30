package nginx

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// writer writes the configuration of a site.
type writer struct {
	site  *plugins.Site
	owner plugins.Owner
	b     strings.Builder
	depth int
}

func (w *writer) line(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if strings.HasPrefix(text, "}") {
		w.depth--
	}
	w.b.WriteString(strings.Repeat("    ", w.depth) + text + "\n")
	if strings.HasSuffix(text, "{") {
		w.depth++
	}
}

// zone names where the connections of each address are counted.
const zone = "aovlb_sources"

func (w *writer) all() string {
	w.line("# What nginx 1.22 or later needs for Always On VPN. It is a whole configuration; beside another one, take its stream block.")
	w.line("# Debian has the module in libnginx-mod-stream; leave out load_module where it is built in.")
	w.line("load_module modules/ngx_stream_module.so;")
	w.line("worker_processes auto;")
	w.line("# Connections of before a reload go on for as long.")
	w.line("worker_shutdown_timeout 8h;")
	w.line("events {")
	w.line("# Each client takes two.")
	w.line("worker_connections 16384;")
	w.line("}")
	w.line("stream {")
	w.line("proxy_connect_timeout 5s;")
	if slices.ContainsFunc(w.site.Groups, func(g plugins.Group) bool { return g.Limits.MaxPerSource > 0 }) {
		w.line("limit_conn_zone $binary_remote_addr zone=%s:10m;", zone)
	}
	for i := range w.site.Groups {
		g := &w.site.Groups[i]
		for k := range g.Listeners {
			w.upstream(g, &g.Listeners[k], w.site.Pool(g.Pool))
			w.server(g, &g.Listeners[k])
		}
	}
	w.line("}")
	return w.b.String()
}

func (w *writer) name(g *plugins.Group, l *plugins.Listener) string {
	return w.owner.Name(w.site.Name, 0, g.Name, l.Name)
}

// bySource reports whether clients of a group are known by their addresses: nginx
// knows nothing finer of UDP.
func bySource(g *plugins.Group) bool {
	return slices.ContainsFunc(g.Listeners, func(l plugins.Listener) bool { return g.BySource(&l) || l.Protocol.Network() == "udp" })
}

// upstream is a pool as a listener uses it.
func (w *writer) upstream(g *plugins.Group, l *plugins.Listener, p *plugins.Pool) {
	name := w.name(g, l)
	w.line("")
	w.line("# Pool %s for listener %s of group %s.", p.Name, l.Name, g.Name)
	w.line("upstream %s {", name)
	w.line("zone %s 64k;", name)
	source := bySource(g)
	switch {
	case source && len(g.Listeners) > 1:
		w.line("# The same in all upstreams of the group, whose servers are in the same order, so that clients stay at one.")
		w.line("hash $remote_addr;")
	case source:
		w.line("hash $remote_addr consistent;")
	case p.Picker == plugins.PickLeastClients || p.Picker == plugins.PickLeastOutstanding:
		w.line("least_conn;")
	}
	for i := range p.Backends {
		w.backend(g, l, p, &p.Backends[i], source)
	}
	w.line("}")
}

func (w *writer) backend(g *plugins.Group, l *plugins.Listener, p *plugins.Pool, b *plugins.Backend, source bool) {
	text := "server " + netip.AddrPortFrom(b.Address.Unmap(), l.TargetPort()).String()
	weight := 1
	if b.Weight != nil {
		weight = *b.Weight
	}
	if weight > 1 {
		text += fmt.Sprintf(" weight=%d", weight)
	}
	if b.MaxClients > 0 {
		text += fmt.Sprintf(" max_conns=%d", b.MaxClients)
	}
	if source && len(g.Listeners) > 1 || l.Protocol.Network() == "udp" {
		// What one upstream left out, the others wouldn't.
		text += " max_fails=0"
	} else {
		fails, within := rhythm(p)
		text += fmt.Sprintf(" max_fails=%d fail_timeout=%s", fails, span(within))
	}
	standby := b.Priority > lowest(p)
	switch {
	case weight == 0 || b.Admin == plugins.AdminDraining || b.Admin == plugins.AdminDisabled || standby && source:
		text += " down"
	case standby:
		text += " backup"
	}
	w.line("%s; # %s", text, b.Name)
}

// rhythm is after how many failures, and for how long, a server is left out.
func rhythm(p *plugins.Pool) (int, time.Duration) {
	if len(p.Checks) == 0 {
		return 3, 15 * time.Second
	}
	c := p.Checks[0].Usual()
	return c.Fall, time.Duration(c.Fall) * c.Interval.D()
}

func lowest(p *plugins.Pool) int {
	low := p.Backends[0].Priority
	for _, b := range p.Backends {
		low = min(low, b.Priority)
	}
	return low
}

func (w *writer) server(g *plugins.Group, l *plugins.Listener) {
	udp := l.Protocol.Network() == "udp"
	w.line("server {")
	w.line("listen %s;", listen(l, udp))
	w.line("proxy_pass %s;", w.name(g, l))
	if udp {
		w.line("proxy_timeout %s;", span(cmp.Or(g.Idle.D(), 35*time.Minute)))
	} else {
		w.line("proxy_timeout %s;", span(cmp.Or(l.IdleTimeout.D(), 10*time.Minute)))
		w.line("proxy_socket_keepalive on;")
	}
	if g.ClientAddress == plugins.ClientAddressTransparent {
		w.line("# Servers must route their answers through this machine.")
		w.line("proxy_bind $remote_addr transparent;")
	}
	if l.ProxyProtocol != "" {
		w.line("proxy_protocol on;")
	}
	if n := g.Limits.MaxPerSource; n > 0 {
		w.line("limit_conn %s %d;", zone, n)
	}
	if l.TLS.Terminated() {
		w.tls(g, l)
	}
	w.line("}")
}

func listen(l *plugins.Listener, udp bool) string {
	at := l.Address
	text := netip.AddrPortFrom(at.Addr().Unmap(), at.Port()).String()
	if at.Addr() == netip.IPv6Unspecified() {
		text += " ipv6only=off"
	}
	if udp {
		return text + " udp reuseport" // each client's packets come to one process
	}
	if l.TLS.Terminated() {
		text += " ssl"
	}
	return text + " so_keepalive=on"
}

// tls ends TLS, and has it go on to gateways.
func (w *writer) tls(g *plugins.Group, l *plugins.Listener) {
	c, t := certificateOf(w.site, g.Pool), &l.TLS
	w.line("ssl_certificate %s;", quote(c.CertFile))
	w.line("ssl_certificate_key %s;", quote(cmp.Or(c.KeyFile, c.CertFile)))
	if t.MinVersion == plugins.TLS13 {
		w.line("ssl_protocols TLSv1.3;")
	} else {
		w.line("ssl_protocols TLSv1.2 TLSv1.3;")
	}
	w.line("ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20;")
	w.line("ssl_session_tickets %s;", map[bool]string{true: "on", false: "off"}[t.Tickets])
	if x := t.Clients; x.CAFile != "" {
		w.line("ssl_client_certificate %s;", quote(x.CAFile))
		w.line("ssl_verify_client %s;", map[bool]string{true: "optional", false: "on"}[x.Optional])
		if x.CRLFile != "" {
			w.line("ssl_crl %s;", quote(x.CRLFile))
		}
	}
	if t.Mode != plugins.TLSReencrypt {
		return
	}
	w.line("proxy_ssl on;")
	w.line("proxy_ssl_server_name on;")
	if t.Gateway.ServerName != "" {
		w.line("proxy_ssl_name %s;", quote(t.Gateway.ServerName))
	} else {
		w.line("proxy_ssl_name $ssl_server_name;")
	}
	if t.Gateway.Insecure {
		w.line("proxy_ssl_verify off;")
		return
	}
	w.line("proxy_ssl_verify on;")
	w.line("proxy_ssl_verify_depth 4;")
	w.line("proxy_ssl_trusted_certificate %s;", quote(cmp.Or(t.Gateway.CAFile, "/etc/ssl/certs/ca-certificates.crt")))
}

// quote writes a word that unwritable accepts.
func quote(s string) string { return `"` + s + `"` }

// span writes a time as nginx reads it.
func span(d time.Duration) string {
	if d%time.Second == 0 {
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return fmt.Sprintf("%dms", max(d.Milliseconds(), 1))
}
