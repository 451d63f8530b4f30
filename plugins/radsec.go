package plugins

import (
	"cmp"
	"encoding/hex"
	"slices"
	"strings"
)

// RadSec says by what certificates RADIUS over TLS (RFC 6614) is spoken.
type RadSec struct {
	// CertFile holds the certificate that is shown to others, and its chain,
	// KeyFile its key, as PEM.
	CertFile string `json:"cert_file"`
	KeyFile  string `json:"key_file"`
	// CAFile holds who issues the certificates of others, as PEM. Without it
	// others are known by fingerprints alone. All three files are read again
	// when they change.
	CAFile string `json:"ca_file,omitempty"`
	// Names are DNS names or IP addresses of which a server's certificate must
	// have one.
	Names []string `json:"names,omitempty"`
	// Fingerprints are the SHA-256, in hexadecimal, of servers' certificates
	// that are taken as they are.
	Fingerprints []string `json:"fingerprints,omitempty"`
	// Port is the servers'; 0 means 2083.
	Port int `json:"port,omitempty"`
}

// A RADIUSTransport is what RADIUS is carried over.
type RADIUSTransport string

const (
	// TransportUDP is plain RADIUS.
	TransportUDP RADIUSTransport = "udp"
	// TransportRadSec is RADIUS over TLS.
	TransportRadSec RADIUSTransport = "radsec"
)

// ByRadSec reports whether a backend of this name is spoken to over TLS.
func (r *RADIUS) ByRadSec(backend string) bool {
	for i := range r.Servers {
		if s := &r.Servers[i]; s.Backend == backend && s.Transport != "" {
			return s.Transport == TransportRadSec
		}
	}
	return r.Transport == TransportRadSec
}

// radsec checks what a group says of RadSec.
func (v *validator) radsec(at string, g *Group, pool *Pool) {
	r := g.RADIUS
	oneOf(v, at+".transport", r.Transport, TransportUDP, TransportRadSec)
	need := v.radsecServers(at, r, pool)
	for i := range r.Clients {
		if c := &r.Clients[i]; c.ByRadSec() {
			need = "client " + c.Name
			v.peer(index(at, ".clients", i), c.Names, c.Fingerprints)
		}
	}
	for i := range g.Listeners {
		if l := &g.Listeners[i]; l.Protocol == ProtocolRadSec {
			need = "listener " + l.Name
			if !slices.ContainsFunc(r.Clients, func(c RADIUSClient) bool { return c.ByRadSec() }) {
				v.add(at+".clients", "listener %s is for RadSec, and there is no client with names or fingerprints of certificates", l.Name)
			}
		}
	}
	switch {
	case r.RadSec != nil:
		v.certificateFiles(at+".radsec", r.RadSec)
		v.peer(at+".radsec", r.RadSec.Names, r.RadSec.Fingerprints)
	case need != "":
		v.add(at+".radsec", "%s needs the certificate that is shown: cert_file and key_file", need)
	}
}

// radsecServers checks how servers are spoken to, and names one that takes TLS.
func (v *validator) radsecServers(at string, r *RADIUS, pool *Pool) (need string) {
	for i := range r.Servers {
		s := &r.Servers[i]
		path := index(at, ".servers", i)
		oneOf(v, path+".transport", s.Transport, TransportUDP, TransportRadSec)
		v.peer(path, s.Names, s.Fingerprints)
		if !r.ByRadSec(s.Backend) && len(s.Names)+len(s.Fingerprints) > 0 {
			v.add(path+".names", "only transport: radsec has a use for names and fingerprints")
		}
		if r.ByRadSec(s.Backend) && !s.Secret().IsZero() {
			v.add(path+".secret_file", "RadSec has no secret, certificates stand in its place")
		}
	}
	if pool == nil {
		return ""
	}
	for i := range pool.Backends {
		name := pool.Backends[i].Name
		if !r.ByRadSec(name) {
			continue
		}
		need = "backend " + name
		if r.RadSec != nil && !r.knowsServer(name) {
			v.add(at+".radsec.names", "backend %s is spoken to over TLS, and nothing says by what certificate it is known: names or fingerprints are needed", name)
		}
	}
	return need
}

// knowsServer reports whether something says by what certificate a backend is
// known.
func (r *RADIUS) knowsServer(backend string) bool {
	if len(r.RadSec.Names)+len(r.RadSec.Fingerprints) > 0 {
		return true
	}
	return slices.ContainsFunc(r.Servers, func(s RADIUSServer) bool {
		return s.Backend == backend && len(s.Names)+len(s.Fingerprints) > 0
	})
}

func (v *validator) certificateFiles(at string, r *RadSec) {
	if r.CertFile == "" {
		v.add(at+".cert_file", "it is needed")
	}
	if r.KeyFile == "" {
		v.add(at+".key_file", "it is needed")
	}
	if r.CAFile == "" && len(r.Names) > 0 {
		v.add(at+".ca_file", "names count only in certificates of a CA: it is needed, or fingerprints in place of names")
	}
	v.between(at+".port", r.Port, 1, 65535)
}

// peer checks by what somebody is to be known.
func (v *validator) peer(at string, names, fingerprints []string) {
	for i, n := range names {
		if n == "" || strings.ContainsAny(n, " */\r\n\t") {
			v.add(index(at, ".names", i), "%q is neither a DNS name nor an IP address", n)
		}
	}
	for i, f := range fingerprints {
		const size = 32
		if b, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(f)); err != nil || len(b) != size {
			v.add(index(at, ".fingerprints", i), "%q isn't the SHA-256 of a certificate, 64 hexadecimal digits", f)
		}
	}
}

// checkRadSec checks a check over TLS.
func (v *validator) checkRadSec(at string, c *Check) {
	if c.RadSec == nil {
		v.add(at+".radsec", "a check of type radsec needs the certificate that is shown: cert_file and key_file")
		return
	}
	v.certificateFiles(at+".radsec", c.RadSec)
	v.peer(at+".radsec", c.RadSec.Names, c.RadSec.Fingerprints)
	if len(c.RadSec.Names)+len(c.RadSec.Fingerprints) == 0 {
		v.add(at+".radsec.names", "nothing says by what certificate servers are known: names or fingerprints are needed")
	}
	if c.RadSec.Port != 0 {
		v.add(at+".radsec.port", "a check has a port of its own")
	}
}

// ByRadSec reports whether the client is known by a certificate.
func (r *RADIUSClient) ByRadSec() bool { return len(r.Names)+len(r.Fingerprints) > 0 }

// targetPort returns the port that l's clients go to at a backend, in the network of
// l; 0 if it is in the other one.
func (g *Group) targetPort(l *Listener, backend string) uint16 {
	switch over := g.Proxies() && g.RADIUS.ByRadSec(backend); {
	case !over && l.Protocol != ProtocolRadSec:
		return l.TargetPort()
	case over && l.Protocol == ProtocolRadSec && g.RADIUS.RadSec != nil:
		return uint16(cmp.Or(g.RADIUS.RadSec.Port, 2083))
	}
	return 0
}
