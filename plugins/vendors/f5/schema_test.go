package f5

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

// as3Schema compiles the schema of AS3 3.56.0.
func as3Schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	dir := os.Getenv("AOVLB_TESTDATA")
	if dir == "" {
		t.Skip("set AOVLB_TESTDATA to a folder that has f5/as3-schema-3.56.0.json")
	}
	f, err := os.Open(filepath.Join(dir, "f5", "as3-schema-3.56.0.json"))
	if err != nil {
		t.Skip("there is no schema of AS3:", err)
	}
	defer f.Close()
	doc, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("as3.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("as3.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newCertificate writes a certificate with its issuer, and its key.
func newCertificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vpn.example.com"}, DNSNames: []string{"vpn.example.com"},
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, of, of, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	one := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, text := range map[string][]byte{cert: append(one, one...), key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// offloading is a deployment whose TLS ends at the BIG-IP.
func offloading(t *testing.T, mode plugins.TLSMode) *plugins.Deployment {
	t.Helper()
	cert, key := newCertificate(t)
	l := plugins.Listener{Name: "sstp", Protocol: plugins.ProtocolSSTP, Address: netip.MustParseAddrPort("192.0.2.10:443"), TLS: plugins.TLS{Mode: mode}}
	if mode == plugins.TLSOffload {
		l.BackendPort = 80
	} else {
		l.TLS.Gateway = plugins.GatewayTLS{ServerName: "vpn.example.com", CAFile: cert}
	}
	return &plugins.Deployment{Sites: []plugins.Site{{
		Name: "hq",
		Pools: []plugins.Pool{{
			Name: "ras", Backends: []plugins.Backend{{Name: "ras1", Address: netip.MustParseAddr("10.0.1.11")}, {Name: "ras2", Address: netip.MustParseAddr("10.0.1.12")}},
			Checks: []plugins.Check{{Type: plugins.CheckSSTP, Host: "vpn.example.com"}},
		}},
		Groups:       []plugins.Group{{Name: "vpn", Pool: "ras", Listeners: []plugins.Listener{l}}},
		Certificates: []plugins.Certificate{{Name: "vpn", Pool: "ras", CertFile: cert, KeyFile: key}},
	}}}
}

// deployments are what the schema is tried on.
func deployments(t *testing.T) map[string]*plugins.Deployment {
	out := make(map[string]*plugins.Deployment)
	for _, in := range plugintest.Intents(plugintest.Layout{}, secretFile(t, "radius secret")) {
		out[in.Name] = in.Deployment
	}
	base := func(change func(*plugins.Site)) *plugins.Deployment {
		d := out["ikev2 and sstp, by source"].Clone()
		change(&d.Sites[0])
		return d
	}
	for name, change := range map[string]func(*plugins.Site){
		"ipv6": func(s *plugins.Site) {
			for i := range s.Groups[0].Listeners {
				l := &s.Groups[0].Listeners[i]
				l.Address = netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), l.Address.Port())
			}
			for i := range s.Pools[0].Backends {
				s.Pools[0].Backends[i].Address = netip.MustParseAddr(fmt.Sprintf("2001:db8:1::%d", i+1))
			}
		},
		"any check will do": func(s *plugins.Site) { s.Pools[0].Need = plugins.NeedAny },
		"great weights": func(s *plugins.Site) {
			s.Pools[0].Backends[0].Weight, s.Pools[0].Backends[1].Weight = new(65535), new(0)
		},
		"three priorities": func(s *plugins.Site) { s.Pools[0].Backends[1].Priority, s.Pools[0].Backends[2].Priority = 10, 65535 },
		"remembered long":  func(s *plugins.Site) { s.Groups[0].Idle = plugins.Duration(20 * 24 * time.Hour) },
		"limits":           func(s *plugins.Site) { s.Groups[0].Limits.MaxClients, s.Pools[0].Backends[0].MaxClients = 9000, 3000 },
		"https and icmp": func(s *plugins.Site) {
			s.Pools[0].Checks = []plugins.Check{{Type: plugins.CheckHTTPS, Path: "/health", Host: "ras.example.com"}, {Type: plugins.CheckICMP}, {Type: plugins.CheckTCP, Port: 443}}
		},
		"http": func(s *plugins.Site) {
			s.Pools[0].Checks = []plugins.Check{{Type: plugins.CheckSSTP, PlainHTTP: true, Port: 80}, {Type: plugins.CheckTCP, Port: 443, Advisory: true}}
		},
		"slow checks": func(s *plugins.Site) {
			s.Pools[0].Checks = []plugins.Check{{Type: plugins.CheckSSTP, Interval: plugins.Duration(time.Hour), Rise: 100, Fall: 100}}
		},
		"odd names": func(s *plugins.Site) {
			s.Groups[0].Name, s.Pools[0].Name, s.Groups[0].Pool = "9-lives.of_a cat"[:12], "P"+strings.Repeat("x", 30), "P"+strings.Repeat("x", 30)
		},
	} {
		out[name] = base(change)
	}
	for _, user := range []plugins.RADIUSUser{plugins.RADIUSByName, plugins.RADIUSByStation} {
		d := out["radius"].Clone()
		d.Sites[0].Groups[0].RADIUS = &plugins.RADIUS{User: user}
		out["radius by "+string(user)] = d
	}
	for _, m := range []plugins.TLSMode{plugins.TLSOffload, plugins.TLSReencrypt} {
		out[string(m)] = offloading(t, m)
		d := offloading(t, m)
		l := &d.Sites[0].Groups[0].Listeners[0]
		l.TLS.MinVersion, l.TLS.Clients = plugins.TLS13, plugins.ClientTLS{CAFile: d.Sites[0].Certificates[0].CertFile, Optional: true}
		if m == plugins.TLSReencrypt {
			l.TLS.Gateway = plugins.GatewayTLS{Insecure: true}
		}
		out[string(m)+" with certificates of clients"] = d
	}
	return out
}

// TestSchema holds what is declared, and what is rendered, against the schema of AS3.
// The schema lets pass what AS3 then ignores, and pointers to nothing: TestTaken has
// these refused.
func TestSchema(t *testing.T) {
	s := as3Schema(t)
	password := secretFile(t, "a password")
	good := 0
	for name, dep := range deployments(t) {
		for _, all := range []bool{false, true} {
			set := Settings{}.usual()
			if all {
				set.IKESPI, set.Mirror, set.RADIUSPassword, set.GSLB = true, true, plugins.Secret{File: password}, true
			}
			c := plugins.Config{Site: "hq"}
			if dep == nil || plugins.HasError(check(dep, c, set)) {
				continue
			}
			good++
			for way, from := range map[string]files{"declared": disk{}, "rendered": paper{}} {
				r := &renderer{dep: dep, site: dep.Served("hq"), geo: dep.Geo, owner: c.Owner, settings: set, files: from}
				w, err := r.all(tenantName(c.Owner, "hq"))
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				b, err := json.Marshal(request(w.tenants()))
				if err != nil {
					t.Fatal(err)
				}
				doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(b)))
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Validate(doc); err != nil {
					t.Errorf("%s, %s: %v", name, way, err)
				}
			}
		}
	}
	if good < 70 {
		t.Errorf("only %d declarations were looked at", good)
	}
}

// TestTaken has a strict AS3 take each deployment after the other.
func TestTaken(t *testing.T) {
	box := newBox(t)
	password := secretFile(t, "a password")
	plain := configured(t, box, nil, nil)
	all := configured(t, box, nil, func(s *Settings) {
		s.IKESPI, s.Mirror, s.RADIUSPassword, s.GSLB = true, true, plugins.Secret{File: password}, true
	})
	for name, dep := range deployments(t) {
		for _, d := range []*Driver{plain, all} {
			p, err := d.Plan(t.Context(), dep)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if plugins.HasError(p.Diagnostics) {
				continue
			}
			if err := d.Apply(t.Context(), p, nil); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if p, err = d.Plan(t.Context(), dep); err != nil || len(p.Changes) > 0 {
				t.Fatalf("%s: left to do: %v, %v", name, p.Changes, err)
			}
		}
	}
}
