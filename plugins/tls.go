package plugins

import (
	"encoding/hex"
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

// TLS says what is done with the TLS of a listener of SSTP. If it is ended here,
// clients are shown what a Certificate for the group's pool says: each the one
// that its gateway expects.
type TLS struct {
	// Mode says who ends it; empty means TLSPassthrough.
	Mode TLSMode `json:"mode,omitempty"`
	// Gateway says how TLS goes on to gateways.
	Gateway GatewayTLS `json:"gateway,omitzero"`
	// Web is the address and port of a web server for what is neither SSTP nor
	// IP-HTTPS. Without one it is answered by 404. It is spoken to in plain HTTP
	// unless WebTLS is set.
	Web netip.AddrPort `json:"web,omitzero"`
	// WebTLS has TLS spoken to Web.
	WebTLS WebTLS `json:"web_tls,omitzero"`
	// IPHTTPS has clients of DirectAccess go to gateways too.
	IPHTTPS bool `json:"ip_https,omitempty"`
	// PassNull passes clients that want TLS without encryption to a gateway
	// unopened, as those of DirectAccess do since Windows 8.
	PassNull bool `json:"pass_null,omitempty"`
	// MinVersion is the least version of TLS, 1.2 or 1.3; empty means 1.2.
	MinVersion TLSVersion `json:"min_version,omitempty"`
	// Tickets lets clients resume TLS sessions, within one certificate.
	Tickets bool `json:"tickets,omitempty"`
	// Clients says whether clients must show a certificate.
	Clients ClientTLS `json:"clients,omitzero"`
	// HandshakeRate is how many handshakes one source may begin in a second; 0
	// means 50, -1 no limit. HandshakeBurst is how many at once; 0 means 500.
	HandshakeRate  int `json:"handshake_rate,omitempty"`
	HandshakeBurst int `json:"handshake_burst,omitempty"`
	// MaxHandshakes bounds the connections whose request isn't there yet; 0 means
	// 4096.
	MaxHandshakes int `json:"max_handshakes,omitempty"`
}

// WebTLS says how TLS is spoken to a web server, and which certificates of it are
// accepted. The zero WebTLS speaks none.
type WebTLS struct {
	// ServerName has TLS spoken: it is the name that the web server's certificate
	// must be for.
	ServerName string `json:"server_name,omitempty"`
	// CAFile is a file with the CAs, in PEM; empty means those of the system.
	CAFile string `json:"ca_file,omitempty"`
}

// A TLSMode says who ends TLS.
type TLSMode string

const (
	// TLSPassthrough leaves it to the gateways.
	TLSPassthrough TLSMode = "passthrough"
	// TLSOffload ends it, and speaks plain HTTP to gateways, which have UseHttps
	// = 0 and the certificate's hash set.
	TLSOffload TLSMode = "offload"
	// TLSReencrypt ends it, and speaks TLS to gateways, which have the same
	// certificate, or its hash set.
	TLSReencrypt TLSMode = "reencrypt"
)

// A TLSVersion is a version of TLS.
type TLSVersion string

const (
	// TLS12 and TLS13 are TLS 1.2 and 1.3.
	TLS12 TLSVersion = "1.2"
	TLS13 TLSVersion = "1.3"
)

// GatewayTLS says how TLS goes on to gateways, and which certificates of theirs are
// accepted.
type GatewayTLS struct {
	// Port is where gateways take TLS with TLSOffload, for what can't be
	// offloaded; 0 means that of the listener.
	Port int `json:"port,omitempty"`
	// ServerName is the name in their certificates; empty means that which the
	// client asked for.
	ServerName string `json:"server_name,omitempty"`
	// CAFile holds the CAs that they come from; empty means those of the system.
	CAFile string `json:"ca_file,omitempty"`
	// Pins, if there are any, are the SHA-256 of the only certificates that are
	// accepted.
	Pins []string `json:"pins,omitempty"`
	// Insecure accepts any certificate.
	Insecure bool `json:"insecure,omitempty"`
}

// ClientTLS says which certificates clients must show.
type ClientTLS struct {
	// CAFile holds the CAs that they come from; empty asks for none.
	CAFile string `json:"ca_file,omitempty"`
	// Optional lets in clients that show none.
	Optional bool `json:"optional,omitempty"`
	// CRLFile holds lists of revoked certificates, as PEM or one as DER. A reload
	// reads it anew.
	CRLFile string `json:"crl_file,omitempty"`
	// NeedCRL refuses certificates whose issuer has no current list there.
	NeedCRL bool `json:"need_crl,omitempty"`
}

// Terminated reports whether TLS is ended here.
func (t *TLS) Terminated() bool { return t.Mode == TLSOffload || t.Mode == TLSReencrypt }

// onlyMode reports whether nothing but the mode is said.
func (t *TLS) onlyMode() bool {
	x := *t
	x.Mode = ""
	return reflect.ValueOf(x).IsZero()
}

// tls checks what a listener says of TLS.
func (v *validator) tls(at string, l *Listener, g *Group, s *Site) {
	t := &l.TLS
	oneOf(v, at+".mode", t.Mode, TLSPassthrough, TLSOffload, TLSReencrypt)
	oneOf(v, at+".min_version", t.MinVersion, TLS12, TLS13)
	v.between(at+".handshake_rate", t.HandshakeRate, -1, 1<<20)
	v.between(at+".handshake_burst", t.HandshakeBurst, 1, 1<<20)
	v.between(at+".max_handshakes", t.MaxHandshakes, 1, 1<<20)
	v.between(at+".gateway.port", t.Gateway.Port, 1, 65535)
	switch {
	case l.Protocol != ProtocolSSTP:
		if t.Mode != "" || !t.onlyMode() {
			v.add(at, "a listener of protocol %s has no use for it, sstp has", l.Protocol)
		}
		return
	case !t.Terminated():
		if !t.onlyMode() {
			v.add(at+".mode", "TLS is passed through unless it is offload or reencrypt, and then nothing else can be said of it")
		}
		return
	case !slices.ContainsFunc(s.Certificates, func(c Certificate) bool { return c.Pool == g.Pool }):
		v.add(at+".mode", "%s needs a certificate for pool %q: add one to certificates of the site", t.Mode, g.Pool)
	}
	v.gatewayTLS(at+".gateway", t)
	v.clientTLS(at+".clients", &t.Clients)
	if w := t.Web; w.IsValid() && (w.Port() == 0 || w.Addr().IsUnspecified() || w.Addr().IsMulticast()) {
		v.add(at+".web", "%v is not the address and port of a server", w)
	}
	v.webTLS(at+".web_tls", t)
}

func (v *validator) gatewayTLS(at string, t *TLS) {
	g := &t.Gateway
	if t.Mode == TLSReencrypt && g.Port != 0 {
		v.add(at+".port", "with reencrypt it is the backend_port of the listener")
	}
	if t.Mode == TLSOffload && !t.IPHTTPS && (g.ServerName != "" || g.CAFile != "" || len(g.Pins) > 0 || g.Insecure) {
		v.add(at, "with offload no TLS goes on to gateways, unless ip_https is set")
	}
	for i, p := range g.Pins {
		if b, err := hex.DecodeString(pinDigits.Replace(p)); err != nil || len(b) != 32 {
			v.add(index(at, ".pins", i), "%q is not a SHA-256 of 64 hexadecimal digits", p)
		}
	}
	if strings.ContainsAny(g.ServerName, " /:\r\n\t") {
		v.add(at+".server_name", "%q is not a host name", g.ServerName)
	}
	if g.Insecure && (len(g.Pins) > 0 || g.CAFile != "") {
		v.add(at+".insecure", "it accepts any certificate, so that ca_file and pins would mean nothing")
	}
}

func (v *validator) webTLS(at string, t *TLS) {
	w := &t.WebTLS
	switch {
	case *w == WebTLS{}:
	case !t.Web.IsValid():
		v.add(at, "there is no web server to speak TLS to: set web too")
	case w.ServerName == "":
		v.add(at+".server_name", "TLS to the web server needs the name that its certificate is for")
	case strings.ContainsAny(w.ServerName, " /:\r\n\t"):
		v.add(at+".server_name", "%q is not a host name", w.ServerName)
	}
}

// pinDigits removes what tools put between the digits of a hash.
var pinDigits = strings.NewReplacer(":", "", " ", "", "-", "")

func (v *validator) clientTLS(at string, c *ClientTLS) {
	switch {
	case c.CAFile == "" && (c.Optional || c.CRLFile != "" || c.NeedCRL):
		v.add(at+".ca_file", "clients are asked for certificates only if it says whose")
	case c.NeedCRL && c.CRLFile == "":
		v.add(at+".crl_file", "need_crl needs it")
	}
}
