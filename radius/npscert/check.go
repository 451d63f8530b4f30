package npscert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aovlb/aovlb/radius/eaptls"
)

// A Server is one to be checked.
type Server struct {
	// Name is its DNS name, or empty if that isn't known.
	Name string
	// Addr is where it answers, usually at port 1812.
	Addr netip.AddrPort
}

// A Looker fetches a server's certificate: [eaptls.Client].
type Looker interface {
	Look(ctx context.Context, target netip.AddrPort) (eaptls.Result, error)
}

// A ServerReport is what was found at one server.
type ServerReport struct {
	// Name and Address are those of the server.
	Name    string `json:"name,omitempty"`
	Address string `json:"address"`
	// Fits says that no fault was found: Windows clients accept the server.
	Fits bool `json:"fits"`
	// Error is why no certificate could be had.
	Error string `json:"error,omitempty"`
	// Subject to NotAfter describe the certificate.
	Subject string `json:"subject,omitempty"`
	// Issuer is who issued it.
	Issuer string `json:"issuer,omitempty"`
	// DNSNames are the names in its SAN.
	DNSNames []string   `json:"dns_names,omitempty"`
	NotAfter *time.Time `json:"not_after,omitempty"`
	// Thumbprint and RootThumbprint are SHA-1 as Windows shows them, SHA256 is
	// a name that can't be forged.
	Thumbprint     string `json:"thumbprint,omitempty"`
	RootThumbprint string `json:"root_thumbprint,omitempty"`
	SHA256         string `json:"sha256,omitempty"`
	// Method and TLS are what was spoken, Rounds and LongestAnswer how.
	Method        string `json:"method,omitempty"`
	TLS           string `json:"tls,omitempty"`
	Rounds        int    `json:"rounds,omitempty"`
	LongestAnswer int    `json:"longest_answer,omitempty"`
	// Findings are what is to be said, the worst first.
	Findings []Finding `json:"findings"`
	// Chain is what the server sent.
	Chain []*x509.Certificate `json:"-"`

	root *x509.Certificate
}

// A Report is what was found at all servers.
type Report struct {
	// Cluster is the name that was looked for.
	Cluster string `json:"cluster"`
	// Fits says that every server answered, and that Windows clients accept
	// each of them.
	Fits bool `json:"fits"`
	// Findings are about the servers together.
	Findings []Finding `json:"findings"`
	// Servers are in the order they were asked for.
	Servers []ServerReport `json:"servers"`
}

// atOnce is how many servers are looked at together.
const atOnce = 8

// Check looks at the certificates of all servers, and says whether they satisfy
// what is expected, each and together.
func Check(ctx context.Context, by Looker, servers []Server, want Expected) Report {
	r := Report{Cluster: want.Cluster, Findings: []Finding{}, Servers: make([]ServerReport, len(servers))}
	var wg sync.WaitGroup
	turn := make(chan bool, atOnce)
	for i, s := range servers {
		wg.Go(func() {
			turn <- true
			defer func() { <-turn }()
			r.Servers[i] = check(ctx, by, s, &want)
		})
	}
	wg.Wait()
	r.together()
	return r
}

func check(ctx context.Context, by Looker, s Server, want *Expected) ServerReport {
	out := ServerReport{Name: s.Name, Address: s.Addr.String(), Findings: []Finding{}}
	seen, err := by.Look(ctx, s.Addr)
	out.Chain, out.Rounds, out.LongestAnswer = seen.Chain, seen.Rounds, seen.Largest
	if seen.Method != 0 {
		out.Method = seen.Method.String()
	}
	if err != nil {
		out.Error = err.Error()
	}
	if err != nil && len(seen.Chain) == 0 {
		return out
	}
	if seen.Version != 0 {
		out.TLS = tls.VersionName(seen.Version)
	}
	out.Findings, out.root = want.Judge(s.Name, seen.Chain)
	out.describe()
	if f, old := oldTLS(seen.Version); old {
		out.Findings = append(out.Findings, f)
	}
	if !seen.Proved {
		out.Findings = append(out.Findings, Finding{Fault, "not-proved", "", "the server has shown this certificate, but not proved to have its key: " + out.Error})
	}
	if f, long := longAnswers(seen.Largest); long {
		out.Findings = append(out.Findings, f)
	}
	rank := map[Severity]int{Fault: 0, Warning: 1, Note: 2}
	slices.SortStableFunc(out.Findings, func(a, b Finding) int { return rank[a.Severity] - rank[b.Severity] })
	out.Fits = out.Error == "" && !hasFault(out.Findings)
	return out
}

func hasFault(f []Finding) bool {
	return slices.ContainsFunc(f, func(f Finding) bool { return f.Severity == Fault })
}

func (s *ServerReport) describe() {
	if len(s.Chain) == 0 {
		return
	}
	leaf := s.Chain[0]
	s.Subject, s.Issuer, s.DNSNames = leaf.Subject.String(), leaf.Issuer.String(), leaf.DNSNames
	end := leaf.NotAfter.UTC()
	s.NotAfter = &end
	s.Thumbprint, s.SHA256 = Thumbprint(leaf), Fingerprint(leaf)
	if s.root != nil {
		s.RootThumbprint = Thumbprint(s.root)
	}
}

// longAnswers warns of answers that are fragmented on their way.
func longAnswers(n int) (Finding, bool) {
	const fits = 1500 - 20 - 8
	if n <= fits {
		return Finding{}, false
	}
	return Finding{
		Warning, "fragments", "set Framed-MTU to 1344 in the network policy's settings, so that EAP fragments are small enough",
		fmt.Sprintf("the server sent %d bytes at once, which is fragmented where packets of 1500 bytes pass, and lost where fragments don't", n),
	}, true
}

// together judges the servers as the one that clients take them for.
func (r *Report) together() {
	r.Fits = len(r.Servers) > 0
	roots := make(map[string][]string)
	for i := range r.Servers {
		s := &r.Servers[i]
		r.Fits = r.Fits && s.Fits
		if key := s.trust(); key != "" {
			roots[key] = append(roots[key], s.who())
		}
	}
	if len(roots) > 1 {
		var parts []string
		for root, who := range roots {
			parts = append(parts, fmt.Sprintf("%s from %s", strings.Join(who, " and "), root))
		}
		slices.Sort(parts)
		r.Fits = false
		r.Findings = append(r.Findings, Finding{
			Fault, "roots-differ", "request all certificates from the same authority",
			"the servers' certificates come from different roots, so that clients that trust one fail at the other: " + strings.Join(parts, "; "),
		})
	}
}

func (s *ServerReport) who() string {
	if s.Name != "" {
		return s.Name
	}
	return s.Address
}

// trust says what a client must trust for this server: its root, or if that isn't
// known who signed the last certificate of the chain, by name and key.
func (s *ServerReport) trust() string {
	switch {
	case s.root != nil:
		return fmt.Sprintf("%q %s", s.root.Subject, hex.EncodeToString(s.root.SubjectKeyId))
	case len(s.Chain) > 0:
		top := s.Chain[len(s.Chain)-1]
		return fmt.Sprintf("%q %s", top.Issuer, hex.EncodeToString(top.AuthorityKeyId))
	}
	return ""
}
