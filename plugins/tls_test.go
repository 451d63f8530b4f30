package plugins

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// offloading is a good Deployment whose SSTP ends here.
func offloading() *Deployment {
	d := good()
	s := &d.Sites[0]
	s.Certificates = []Certificate{{Name: "vpn", Pool: "ras", CertFile: "/etc/vpn.pem"}}
	s.Groups[0].Listeners[2].TLS = TLS{Mode: TLSOffload}
	return d
}

func TestValidateTLS(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(s *Site, l *TLS)
		path  string // after sites[0]; "" for none
		text  string
	}{
		{"offload", func(*Site, *TLS) {}, "", ""},
		{"all of it", func(_ *Site, l *TLS) {
			*l = TLS{
				Mode: TLSReencrypt, Gateway: GatewayTLS{ServerName: "ras.corp.example", CAFile: "/ca.pem", Pins: []string{strings.Repeat("AB:", 31) + "AB"}},
				Web: netip.MustParseAddrPort("10.0.0.80:80"), IPHTTPS: true, PassNull: true, MinVersion: TLS13, Tickets: true,
				Clients:       ClientTLS{CAFile: "/ca.pem", Optional: true, CRLFile: "/crl.pem", NeedCRL: true},
				HandshakeRate: -1, HandshakeBurst: 10, MaxHandshakes: 100,
			}
		}, "", ""},
		{"mode", func(_ *Site, l *TLS) { l.Mode = "bridge" }, "groups[0].listeners[2].tls.mode", `"bridge"`},
		{"version", func(_ *Site, l *TLS) { l.MinVersion = "1.1" }, "groups[0].listeners[2].tls.min_version", `"1.1"`},
		{"no mode", func(_ *Site, l *TLS) { *l = TLS{IPHTTPS: true} }, "groups[0].listeners[2].tls.mode", "offload or reencrypt"},
		{"no certificate", func(s *Site, _ *TLS) { s.Certificates = nil }, "groups[0].listeners[2].tls.mode", "needs a certificate"},
		{"not SSTP", func(s *Site, _ *TLS) { s.Groups[0].Listeners[0].TLS.Mode = TLSOffload }, "groups[0].listeners[0].tls", "no use for it"},
		{"a pin", func(_ *Site, l *TLS) { l.Mode, l.Gateway.Pins = TLSReencrypt, []string{"abc"} }, "groups[0].listeners[2].tls.gateway.pins[0]", "64"},
		{"a gateway's name", func(_ *Site, l *TLS) { l.Mode, l.Gateway.ServerName = TLSReencrypt, "a:443" }, "groups[0].listeners[2].tls.gateway.server_name", "host name"},
		{"insecure pins", func(_ *Site, l *TLS) { l.Mode, l.Gateway.Insecure, l.Gateway.CAFile = TLSReencrypt, true, "/ca.pem" }, "groups[0].listeners[2].tls.gateway.insecure", "any certificate"},
		{"trust without TLS", func(_ *Site, l *TLS) { l.Gateway.Insecure = true }, "groups[0].listeners[2].tls.gateway", "no TLS goes on"},
		{"a web site nowhere", func(_ *Site, l *TLS) { l.Web = netip.MustParseAddrPort("0.0.0.0:80") }, "groups[0].listeners[2].tls.web", "address and port"},
		{"a web site over TLS", func(_ *Site, l *TLS) {
			l.Web, l.WebTLS = netip.MustParseAddrPort("10.0.0.80:443"), WebTLS{ServerName: "www.example.com", CAFile: "/ca.pem"}
		}, "", ""},
		{"a web site of no name", func(_ *Site, l *TLS) {
			l.Web, l.WebTLS.CAFile = netip.MustParseAddrPort("10.0.0.80:443"), "/ca.pem"
		}, "groups[0].listeners[2].tls.web_tls.server_name", "needs the name"},
		{"a web site of a bad name", func(_ *Site, l *TLS) {
			l.Web, l.WebTLS.ServerName = netip.MustParseAddrPort("10.0.0.80:443"), "www.example.com:443"
		}, "groups[0].listeners[2].tls.web_tls.server_name", "host name"},
		{"TLS to no web site", func(_ *Site, l *TLS) { l.WebTLS.ServerName = "www.example.com" }, "groups[0].listeners[2].tls.web_tls", "set web too"},
		{"optional for nobody", func(_ *Site, l *TLS) { l.Clients.Optional = true }, "groups[0].listeners[2].tls.clients.ca_file", "whose"},
		{"no CRL", func(_ *Site, l *TLS) { l.Clients = ClientTLS{CAFile: "/ca.pem", NeedCRL: true} }, "groups[0].listeners[2].tls.clients.crl_file", "need_crl"},
		{"rate", func(_ *Site, l *TLS) { l.HandshakeRate = -2 }, "groups[0].listeners[2].tls.handshake_rate", "-2"},
		{"question", func(s *Site, _ *TLS) { s.Pools[0].Checks[1].Ask = "all" }, "pools[0].checks[1].ask", `"all"`},
		{"calls too often", func(s *Site, _ *TLS) { s.Pools[0].Checks[1] = Check{Type: CheckSSTP, Ask: AskCall} }, "pools[0].checks[1].interval", "30s"},
		{"calls", func(s *Site, _ *TLS) {
			s.Pools[0].Checks[1] = Check{Type: CheckSSTP, Ask: AskCall, Interval: Duration(time.Minute)}
		}, "", ""},
		{"a status of a call", func(s *Site, _ *TLS) { s.Pools[0].Checks[1].Ask = AskIPHTTPS }, "pools[0].checks[1].expect", "200"},
		{"a question to IKE", func(s *Site, _ *TLS) { s.Pools[0].Checks[0].Ask = AskHead }, "pools[0].checks[0].ask", "sstp has"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := offloading()
			tt.spoil(&d.Sites[0], &d.Sites[0].Groups[0].Listeners[2].TLS)
			err := d.Validate()
			if tt.path == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			f, ok := errors.AsType[*FieldError](err)
			if !ok || !strings.Contains(err.Error(), "sites[0]."+tt.path+":") || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v (%v), want %q at %s", err, f, tt.text, tt.path)
			}
		})
	}
}
