package sstp

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// An Auditor looks at a server from outside, as an administrator would before a
// penetration tester does: which service it is, what clients would stumble over in
// its certificate, which versions and suites of TLS it has, which other ports are
// open. It tries no more than is told here: some two hundred connections and two
// dozen datagrams, none of which logs in. Ask only servers that are yours.
type Auditor struct {
	// Name is the host that clients dial, for TLS and for the certificate; empty
	// leaves out what depends on it.
	Name string
	// Roots are the CAs that clients trust; nil means those of this system.
	Roots *x509.CertPool
	// Timeout bounds each connection; 0 means DefaultTimeout. Those to other
	// ports get a fifth of it, as most of them are dropped by a firewall.
	Timeout time.Duration
	// Pause is the time between two connections; 0 means DefaultAuditPause, less
	// than 0 none.
	Pause time.Duration
	// NoCall leaves out the call: a port of the server isn't taken, even for a
	// moment.
	NoCall bool
	// NoPorts leaves out the other ports, of TCP and UDP.
	NoPorts bool
	// AskIKE, if not nil, asks a port of UDP by IKE, and returns nil if somebody
	// answers: 500 and 4500 are silent to anything else.
	AskIKE func(ctx context.Context, target netip.AddrPort) error
	// Dialer opens the connections; nil means a plain one.
	Dialer *net.Dialer
}

// DefaultAuditPause keeps an audit from looking like an attack.
const DefaultAuditPause = 10 * time.Millisecond

// An AuditFinding is something that should be otherwise.
type AuditFinding struct {
	Gravity Gravity `json:"gravity"`
	// Rule names what was looked at: service, tls, cipher, port, or a rule of a
	// [CertificateFinding].
	Rule string `json:"rule"`
	// Reason says what is the matter, Fix what to do.
	Reason string `json:"reason"`
	Fix    string `json:"fix,omitempty"`
}

// An AuditReport is what an Auditor has found out.
type AuditReport struct {
	// Target is the server.
	Target netip.AddrPort `json:"target"`
	// SSTP, Calls and IPHTTPS say what it serves: SSTP by its answer to a HEAD,
	// and by taking a call, and the IP-HTTPS of DirectAccess.
	SSTP    bool `json:"sstp"`
	Calls   bool `json:"calls"`
	IPHTTPS bool `json:"ip_https"`
	// Server is what it calls itself in HTTP.
	Server string `json:"server,omitempty"`
	// Hashes are those that it takes for crypto bindings.
	Hashes string `json:"hashes,omitempty"`
	// Certificate is the one it shows; nil if none was seen.
	Certificate *Certificate `json:"-"`
	// TLS are its versions.
	TLS []TLSVersion `json:"tls"`
	// Ports are other ports of TCP that are open.
	Ports []uint16 `json:"ports"`
	// UDP are ports of UDP that were asked, open or not: of UDP not even an answer
	// that doesn't come says which.
	UDP []UDPPort `json:"udp"`
	// Findings are what should be otherwise, worst first.
	Findings []AuditFinding `json:"findings"`
}

func (r *AuditReport) add(g Gravity, rule, reason, fix string) {
	r.Findings = append(r.Findings, AuditFinding{g, rule, reason, fix})
}

// Audit looks at target. The error says that it can't be reached, or is the cause
// of ctx; the report then holds what was found by then.
func (a *Auditor) Audit(ctx context.Context, target netip.AddrPort) (*AuditReport, error) {
	r := &AuditReport{Target: target, TLS: []TLSVersion{}, Ports: []uint16{}, UDP: []UDPPort{}, Findings: []AuditFinding{}}
	if err := a.service(ctx, r); err != nil {
		return r, err
	}
	s := &Scanner{ServerName: a.Name, Timeout: a.Timeout, Pause: a.pause(), Dialer: a.Dialer}
	versions, err := s.Scan(ctx, target)
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	if err == nil {
		r.TLS = versions
		r.judgeTLS()
	}
	if !a.NoPorts {
		if err := a.ports(ctx, r); err != nil {
			return r, err
		}
		if err := a.udpPorts(ctx, r); err != nil {
			return r, err
		}
	}
	if r.Certificate != nil {
		for _, f := range r.Certificate.Check(CertificateRules{Name: a.Name, Roots: a.Roots}) {
			r.Findings = append(r.Findings, AuditFinding(f))
		}
	}
	slices.SortStableFunc(r.Findings, func(x, y AuditFinding) int { return cmp.Compare(y.Gravity, x.Gravity) })
	return r, nil
}

func (a *Auditor) pause() time.Duration { return max(cmp.Or(a.Pause, DefaultAuditPause), 0) }

// service finds out what is served. The error says that there is no connection.
func (a *Auditor) service(ctx context.Context, r *AuditReport) error {
	p := Prober{ServerName: a.Name, Timeout: a.Timeout, Dialer: a.Dialer}
	res, headErr := p.Ask(ctx, r.Target)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if res.Handshake == 0 && headErr != nil {
		return headErr
	}
	r.SSTP, r.Server = headErr == nil, res.Server
	if res.Leaf != nil {
		r.Certificate = &Certificate{Leaf: res.Leaf, Chain: res.Chain}
	}
	p.Question = AskIPHTTPS
	res, err := p.Ask(ctx, r.Target)
	r.IPHTTPS = err == nil
	r.Server = cmp.Or(r.Server, res.Server)
	callErr := error(nil)
	if !a.NoCall {
		p.Question = AskCall
		if res, callErr = p.Ask(ctx, r.Target); callErr == nil {
			r.Calls, r.Hashes = true, res.Hashes.String()
		}
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case r.SSTP && callErr != nil:
		r.add(GravityFatal, "service", "it answers monitors, and takes no calls: "+callErr.Error(), "see whether SstpSvc has free ports")
	case r.Calls && !r.SSTP:
		r.add(GravityAdvice, "service", "it takes calls, and answers HEAD otherwise than Windows: "+headErr.Error(), "have monitors expect that")
	case !r.SSTP && !r.IPHTTPS:
		r.add(GravityFatal, "service", "it serves neither SSTP nor IP-HTTPS: "+headErr.Error(), "")
	}
	if r.Calls && res.Hashes&HashSHA256 == 0 {
		r.add(GravityRisk, "service", "it takes only SHA-1 for crypto bindings", "remove SHA1CertificateHash, and set SHA256CertificateHash")
	}
	return nil
}

// judgeTLS looks at versions and suites.
func (r *AuditReport) judgeTLS() {
	weak := map[string][]string{}
	var reasons []string
	var null, forward, static []string
	has12 := false
	for _, v := range r.TLS {
		has12 = has12 || v.Version == versionTLS12
		if v.Version < versionTLS12 {
			r.add(GravityRisk, "tls", v.Name+" is on, which is broken or near it", "disable it in SCHANNEL, or on the balancer that ends TLS")
		}
		for _, s := range v.Suites {
			name := s.String()
			switch why := s.Weakness(); {
			case s.Null():
				null = appendNew(null, name)
			case why != "":
				if weak[why] == nil {
					reasons = append(reasons, why)
				}
				weak[why] = appendNew(weak[why], name)
			case v.Version == versionTLS13 || s.forward():
				forward = appendNew(forward, name)
			default:
				static = appendNew(static, name)
			}
		}
	}
	if !has12 && len(r.TLS) > 0 {
		r.add(GravityRisk, "tls", "TLS 1.2 is off: clients before Windows 11 can't connect", "enable TLS 1.2 beside what there is")
	}
	for _, why := range reasons {
		r.add(GravityRisk, "cipher", fmt.Sprintf("%s: %s", why, strings.Join(weak[why], ", ")), "disable them: Disable-TlsCipherSuite")
	}
	if len(null) > 0 {
		g, reason := GravityRisk, "without encryption: "
		if r.IPHTTPS && !r.SSTP && !r.Calls {
			g, reason = GravityAdvice, "DirectAccess clients like suites without encryption, as they encrypt by IPsec: "
		}
		r.add(g, "cipher", reason+strings.Join(null, ", "), "disable them unless this is for DirectAccess alone")
	}
	if len(static) > 0 {
		r.add(GravityAdvice, "cipher", "without forward secrecy, or without authenticated encryption: "+strings.Join(static, ", "), "leave ECDHE with GCM or ChaCha20 alone")
	}
	if len(forward) == 0 && len(r.TLS) > 0 {
		r.add(GravityRisk, "cipher", "there is no suite with forward secrecy and authenticated encryption", "enable ECDHE with AES-GCM")
	}
}

func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// otherPorts are ports of TCP that VPN gateways have open behind a firewall, and
// that shouldn't be reached by everybody.
var otherPorts = []struct {
	port uint16
	what string
}{
	{21, "FTP"},
	{22, "SSH"},
	{23, "Telnet"},
	{25, "SMTP"},
	{53, "DNS"},
	{88, "Kerberos"},
	{111, "the RPC port mapper"},
	{135, "the RPC endpoint mapper"},
	{139, "NetBIOS"},
	{389, "LDAP"},
	{445, "SMB"},
	{464, "Kerberos passwords"},
	{593, "RPC over HTTP"},
	{636, "LDAPS"},
	{1433, "SQL Server"},
	{1723, "PPTP, which is broken"},
	{2049, "NFS"},
	{3268, "the global catalog"},
	{3306, "MySQL"},
	{3389, "Remote Desktop"},
	{5357, "WSDAPI"},
	{5432, "PostgreSQL"},
	{5900, "VNC"},
	{5985, "WinRM"},
	{5986, "WinRM"},
	{8080, "another web server"},
	{8443, "another web server, or an administration page"},
	{9389, "Active Directory Web Services"},
	{47001, "WinRM"},
	{62000, "the Network Location Server of DirectAccess"},
}

// ports looks which other ports are open.
func (a *Auditor) ports(ctx context.Context, r *AuditReport) error {
	d := a.Dialer
	if d == nil {
		d = new(net.Dialer)
	}
	timeout := cmp.Or(a.Timeout, DefaultTimeout) / 5
	open := make([]bool, len(otherPorts))
	var wg sync.WaitGroup
	const atOnce = 8
	turn := make(chan struct{}, atOnce)
	for i, o := range otherPorts {
		if o.port == r.Target.Port() {
			continue
		}
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(r.Target.Addr(), o.port).String())
			if err == nil {
				open[i] = true
				c.Close()
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for i, o := range otherPorts {
		if open[i] {
			r.Ports = append(r.Ports, o.port)
			r.add(GravityRisk, "port", fmt.Sprintf("TCP %d is open: %s", o.port, o.what), "let the firewall before it pass TCP 443 and UDP 500 and 4500 alone")
		}
	}
	return nil
}
