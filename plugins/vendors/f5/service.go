package f5

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// service renders a listener: a virtual server with its profiles.
func (r *renderer) service(a *app, g *plugins.Group, l *plugins.Listener, persist func(*plugins.Listener) string) error {
	name := r.serviceName(l)
	udp := l.Protocol.Network() == "udp"
	snat, snatLine := "auto", "automap"
	if g.ClientAddress == plugins.ClientAddressTransparent {
		snat, snatLine = "none", "none"
	}
	mirror := "none"
	if r.settings.Mirror {
		mirror = "L4"
	}
	body := map[string]any{
		"class": "Service_TCP", "virtualAddresses": []any{l.Address.Addr().String()}, "virtualPort": int(l.Address.Port()), "snat": snat,
		"pool": poolName(l.TargetPort()), "mirroring": mirror, "maxConnections": g.Limits.MaxClients, "persistenceMethods": []any{},
		"remark": short("listener " + l.Name),
	}
	profile := r.profile(a, g, l, udp)
	profiles := []string{profile}
	if udp {
		body["class"], body["profileUDP"] = "Service_UDP", map[string]any{"use": profile}
	} else {
		body["profileTCP"] = map[string]any{"use": profile}
	}
	persistLine := "none"
	switch key := persist(l); key {
	case "":
	case "radius":
		body["profileRADIUS"] = map[string]any{"use": key}
		profiles = append(profiles, key)
	default:
		body["persistenceMethods"] = []any{map[string]any{"use": key}}
		persistLine = "replace-all-with { " + key + " { default yes } }"
	}
	if l.TLS.Terminated() {
		more, err := r.tls(a, g, l, body)
		if err != nil {
			return err
		}
		profiles = append(profiles, more...)
	}
	line := fmt.Sprintf("create ltm virtual %s { destination %s ip-protocol %s pool %s source-address-translation { type %s } persist %s connection-limit %d mirror %s profiles replace-all-with { %s } }",
		name, destination(l.Address), l.Protocol.Network(), poolName(l.TargetPort()), snatLine, persistLine, g.Limits.MaxClients, enabled(r.settings.Mirror), strings.Join(profiles, " "))
	a.add(part{name: name, note: "listener " + l.Name, body: body, tmsh: []string{line}})
	return nil
}

// destination is what BIG-IP calls an address and port.
func destination(a netip.AddrPort) string { return memberName(a.Addr(), a.Port()) }

// profile renders how flows or connections of a listener end.
func (r *renderer) profile(a *app, g *plugins.Group, l *plugins.Listener, udp bool) string {
	name := r.plain("idle", l.Name)
	if udp {
		age := min(seconds(idle(g)), 86400)
		body := map[string]any{"class": "UDP_Profile", "idleTimeout": age, "datagramLoadBalancing": false}
		line := fmt.Sprintf("create ltm profile udp %s { defaults-from udp idle-timeout %d datagram-load-balancing disabled }", name, age)
		if l.Protocol == plugins.ProtocolRADIUS && !g.BySource(l) {
			// A NAS may send all from one port: each request is balanced by itself.
			body["datagramLoadBalancing"] = true
			line = fmt.Sprintf("create ltm profile udp %s { defaults-from udp idle-timeout %d datagram-load-balancing enabled }", name, age)
		}
		a.add(part{name: name, note: "how long a silent flow is kept", body: body, tmsh: []string{line}})
		return name
	}
	age := seconds(cmp.Or(l.IdleTimeout.D(), 10*time.Minute))
	a.add(part{
		name: name, note: "how long a silent connection is kept", body: map[string]any{"class": "TCP_Profile", "idleTimeout": age},
		tmsh: []string{fmt.Sprintf("create ltm profile tcp %s { defaults-from tcp idle-timeout %d }", name, age)},
	})
	return name
}

// tls renders how TLS is ended and goes on, and returns the profiles. What AS3 calls
// TLS_Server is the side of the clients.
func (r *renderer) tls(a *app, g *plugins.Group, l *plugins.Listener, service map[string]any) ([]string, error) {
	var certificates []any
	var chain []string
	for i := range r.site.Certificates {
		c := &r.site.Certificates[i]
		if c.Pool != g.Pool || c.CertFile == "" {
			continue
		}
		name := r.plain("cert", c.Name)
		certificates = append(certificates, map[string]any{"certificate": name})
		chain = append(chain, fmt.Sprintf("%s { cert %s.crt key %s.key }", name, name, name))
		if has(a, name) {
			continue
		}
		cert, intermediate, key, err := r.files.certificate(c)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", c.Name, err)
		}
		r.hide = append(r.hide, key)
		body := map[string]any{"class": "Certificate", "certificate": cert, "privateKey": key}
		if intermediate != "" {
			body["chainCA"] = intermediate
		}
		keyFile := cmp.Or(c.KeyFile, c.CertFile)
		a.add(part{name: name, note: "certificate " + c.Name, body: body, tmsh: []string{
			fmt.Sprintf("install sys crypto cert %s.crt from-local-file %q", name, c.CertFile), fmt.Sprintf("install sys crypto key %s.key from-local-file %q", name, keyFile),
		}})
	}
	in := r.plain("tls_clients", l.Name)
	newest := l.TLS.MinVersion == plugins.TLS13
	body := map[string]any{
		"class": "TLS_Server", "certificates": certificates, "ssl3Enabled": false, "tls1_0Enabled": false, "tls1_1Enabled": false, "tls1_2Enabled": !newest,
		"tls1_3Enabled": true, "ciphers": ciphers, "renegotiationEnabled": false,
	}
	options := "no-sslv3 no-tlsv1 no-tlsv1.1"
	if newest {
		options += " no-tlsv1.2"
	}
	auth, err := r.clientTLS(a, l, body)
	if err != nil {
		return nil, err
	}
	a.add(part{name: in, note: "TLS with clients", body: body, tmsh: []string{
		fmt.Sprintf("create ltm profile client-ssl %s { defaults-from clientssl ciphers %s options { %s } renegotiation disabled%s cert-key-chain replace-all-with { %s } }", in, ciphers, options, auth, strings.Join(chain, " ")),
	}})
	service["serverTLS"] = in
	if l.TLS.Mode != plugins.TLSReencrypt {
		return []string{in + " { context clientside }"}, nil
	}
	out, err := r.gatewayTLS(a, l)
	if err != nil {
		return nil, err
	}
	service["clientTLS"] = out
	return []string{in + " { context clientside }", out + " { context serverside }"}, nil
}

// ciphers leaves out what has no forward secrecy.
const ciphers = "ECDHE+AES-GCM:ECDHE+CHACHA20-POLY1305:TLSv1_3"

func has(a *app, name string) bool {
	for _, p := range a.parts {
		if p.name == name {
			return true
		}
	}
	return false
}

// clientTLS says which certificates clients must show.
func (r *renderer) clientTLS(a *app, l *plugins.Listener, body map[string]any) (tmsh string, err error) {
	c := l.TLS.Clients
	if c.CAFile == "" {
		return "", nil
	}
	name := r.plain("cas_clients", l.Name)
	if err := r.bundle(a, name, "the CAs of clients", c.CAFile); err != nil {
		return "", err
	}
	mode := "require"
	if c.Optional {
		mode = "request"
	}
	body["authenticationMode"], body["authenticationTrustCA"] = mode, name
	return fmt.Sprintf(" peer-cert-mode %s ca-file %s", mode, name), nil
}

// gatewayTLS renders how TLS goes on to gateways.
func (r *renderer) gatewayTLS(a *app, l *plugins.Listener) (string, error) {
	t := l.TLS.Gateway
	name := r.plain("tls_gateways", l.Name)
	body := map[string]any{
		"class": "TLS_Client", "ssl3Enabled": false, "tls1_0Enabled": false, "tls1_1Enabled": false, "tls1_2Enabled": true, "tls1_3Enabled": true, "validateCertificate": !t.Insecure,
	}
	line := "peer-cert-mode ignore"
	if !t.Insecure {
		ca := "ca-bundle.crt"
		body["trustCA"] = any("generic")
		if t.CAFile != "" {
			ca = r.plain("cas_gateways", l.Name)
			if err := r.bundle(a, ca, "the CAs of gateways", t.CAFile); err != nil {
				return "", err
			}
			body["trustCA"] = map[string]any{"use": ca}
		}
		line = "peer-cert-mode require untrusted-cert-response-control drop ca-file " + ca
	}
	if t.ServerName != "" {
		body["sendSNI"] = t.ServerName
		line += " server-name " + t.ServerName
		if !t.Insecure {
			body["serverName"] = t.ServerName
			line += " authenticate-name " + t.ServerName
		}
	}
	a.add(part{name: name, note: "TLS with gateways", body: body, tmsh: []string{fmt.Sprintf("create ltm profile server-ssl %s { defaults-from serverssl %s }", name, line)}})
	return name, nil
}

func (r *renderer) bundle(a *app, name, note, file string) error {
	text, err := r.files.bundle(file)
	if err != nil {
		return err
	}
	a.add(part{name: name, note: note, body: map[string]any{"class": "CA_Bundle", "bundle": text}, tmsh: []string{
		fmt.Sprintf("install sys crypto cert %s from-local-file %q", name, file),
	}})
	return nil
}
