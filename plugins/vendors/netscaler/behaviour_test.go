package netscaler

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

// gateways returns a deployment of IKEv2 and SSTP with two gateways.
func gateways(change func(*plugins.Site)) *plugins.Deployment {
	s := plugins.Site{
		Name: "hq",
		Pools: []plugins.Pool{{
			Name: "ras", Picker: plugins.PickLeastClients, Checks: []plugins.Check{{Type: plugins.CheckSSTP, Host: "vpn.example.com"}},
			Backends: []plugins.Backend{{Name: "ras1", Address: netip.MustParseAddr("10.0.1.11")}, {Name: "ras2", Address: netip.MustParseAddr("10.0.1.12")}},
		}},
		Groups: []plugins.Group{{
			Name: "vpn", Pool: "ras", Affinity: plugins.AffinitySource, ClientAddress: plugins.ClientAddressTransparent,
			Listeners: []plugins.Listener{
				{Name: "ike", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:500")},
				{Name: "natt", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:4500")},
				{Name: "sstp", Protocol: plugins.ProtocolSSTP, Address: netip.MustParseAddrPort("192.0.2.1:443")},
			},
		}},
	}
	if change != nil {
		change(&s)
	}
	return &plugins.Deployment{Sites: []plugins.Site{s}}
}

// apply applies a deployment, and returns the plan.
func apply(t *testing.T, d *Driver, dep *plugins.Deployment) *plugins.Plan {
	t.Helper()
	p, err := d.Plan(t.Context(), dep)
	if err != nil {
		t.Fatal(err)
	}
	if plugins.HasError(p.Diagnostics) {
		t.Fatal(p.Diagnostics)
	}
	if err := d.Apply(t.Context(), p, nil); err != nil {
		t.Fatal(err)
	}
	if again, err := d.Plan(t.Context(), dep); err != nil || len(again.Changes) > 0 {
		t.Fatalf("there is still to do: %v, %v", again.Changes, err)
	}
	return p
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %q, want %q", what, got, want)
	}
}

func TestPersistencyGroup(t *testing.T) {
	b := newBox(t)
	d := b.driver(t)
	apply(t, d, gateways(func(s *plugins.Site) { s.Groups[0].Idle = plugins.Duration(61 * time.Second) }))
	const group = "aovlb_hq_vpn_persistency_SOURCEIP0"
	want(t, "persistence", b.Get("lbgroup", group, "persistencetype"), "SOURCEIP")
	want(t, "timeout in minutes", b.Get("lbgroup", group, "timeout"), "2")
	members := []string{"vservername=aovlb_hq_vpn_ike", "vservername=aovlb_hq_vpn_natt", "vservername=aovlb_hq_vpn_sstp"}
	if diff := cmp.Diff(members, b.Bound("lbgroup_lbvserver_binding", group)); diff != "" {
		t.Error(diff)
	}
	want(t, "usip", b.Get("servicegroup", "aovlb_hq_vpn_ike_to", "usip"), "YES")
	want(t, "useproxyport", b.Get("servicegroup", "aovlb_hq_vpn_ike_to", "useproxyport"), "NO")
	want(t, "type", b.Get("lbvserver", "aovlb_hq_vpn_sstp", "servicetype"), "SSL_BRIDGE")
	want(t, "failover", b.Get("lbvserver", "aovlb_hq_vpn_natt", "connfailover"), "STATEFUL")
	want(t, "request", b.Get("lbmonitor", "aovlb_hq_ras_sstp", "httprequest"), "HEAD /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/")
	want(t, "status", b.Get("lbmonitor", "aovlb_hq_ras_sstp", "respcode"), "[401]")
	want(t, "secure", b.Get("lbmonitor", "aovlb_hq_ras_sstp", "secure"), "YES")
	// One listener fewer by source: it leaves the group, and has its own again.
	apply(t, d, gateways(func(s *plugins.Site) { s.Groups[0].Affinity = "" }))
	if got := b.Bound("lbgroup_lbvserver_binding", group); len(got) != 2 {
		t.Errorf("members are %v, want those of ikev2", got)
	}
	want(t, "persistence of sstp", b.Get("lbvserver", "aovlb_hq_vpn_sstp", "persistencetype"), "NONE")
}

func TestImmutableIsMadeAnew(t *testing.T) {
	b := newBox(t)
	d := b.driver(t)
	apply(t, d, gateways(nil))
	p := apply(t, d, gateways(func(s *plugins.Site) {
		s.Groups[0].Listeners[2].Address = netip.MustParseAddrPort("192.0.2.1:8443")
		s.Groups[0].Listeners[2].BackendPort = 443
	}))
	var got []string
	for _, c := range p.Changes {
		got = append(got, string(c.Action)+" "+c.Kind)
	}
	order := []string{"remove lbgroup_lbvserver_binding", "remove lbvserver_servicegroup_binding", "remove lbvserver", "replace lbvserver", "add lbvserver_servicegroup_binding", "add lbgroup_lbvserver_binding"}
	order = slices.DeleteFunc(order, func(s string) bool { return !slices.Contains(got, s) })
	at := -1
	for _, o := range order {
		i := slices.Index(got, o)
		if i <= at {
			t.Errorf("%s isn't where it belongs in %v", o, got)
		}
		at = i
	}
	want(t, "port", b.Get("lbvserver", "aovlb_hq_vpn_sstp", "port"), "8443")
	if slices.Contains(got, "replace servicegroup") {
		t.Errorf("the servicegroup was made anew without need: %v", got)
	}
	// Two listeners change places.
	apply(t, d, gateways(func(s *plugins.Site) {
		l := s.Groups[0].Listeners
		l[0].Address, l[1].Address = l[1].Address, l[0].Address
	}))
	want(t, "port", b.Get("lbvserver", "aovlb_hq_vpn_ike", "port"), "4500")
}

func TestRADIUS(t *testing.T) {
	b := newBox(t)
	d := b.driver(t)
	secret := filepath.Join(t.TempDir(), "radius")
	write(t, secret, []byte("s3cret-one\n"))
	dep := &plugins.Deployment{Sites: []plugins.Site{{
		Name: "hq",
		Pools: []plugins.Pool{{
			Name: "nps", Backends: []plugins.Backend{{Name: "nps1", Address: netip.MustParseAddr("10.0.2.11")}},
			Checks: []plugins.Check{{Type: plugins.CheckRADIUS, SecretFile: secret}},
		}},
		Groups: []plugins.Group{{Name: "nps", Pool: "nps", Listeners: []plugins.Listener{
			{Name: "auth", Protocol: plugins.ProtocolRADIUS, Address: netip.MustParseAddrPort("192.0.2.1:1812")},
			{Name: "acct", Protocol: plugins.ProtocolRADIUS, Address: netip.MustParseAddrPort("192.0.2.1:1813")},
		}}},
	}}}
	apply(t, d, dep)
	want(t, "rule", b.Get("lbgroup", "aovlb_hq_nps_persistency_RULE0", "rule"), "CLIENT.UDP.RADIUS.USERNAME")
	want(t, "type", b.Get("lbvserver", "aovlb_hq_nps_auth", "servicetype"), "RADIUS")
	monitor := func() string {
		t.Helper()
		list := slices.DeleteFunc(b.Names("lbmonitor"), func(n string) bool { return n == "web_check" })
		if len(list) != 1 {
			t.Fatalf("monitors are %v", list)
		}
		return list[0]
	}
	first := monitor()
	want(t, "key", b.Get("lbmonitor", first, "radkey"), "s3cret-one")
	write(t, secret, []byte("s3cret-two\n"))
	p := apply(t, d, dep)
	if monitor() == first || b.Get("lbmonitor", monitor(), "radkey") != "s3cret-two" {
		t.Error("the new secret isn't there")
	}
	if text, err := json.Marshal(p); err != nil || strings.Contains(string(text), "s3cret") {
		t.Errorf("the plan tells the secret: %s, %v", text, err)
	}
}

func TestStandBy(t *testing.T) {
	b := newBox(t)
	d := b.driver(t)
	apply(t, d, gateways(func(s *plugins.Site) {
		s.Pools[0].Backends[1].Priority, s.Pools[0].Failback = 5, plugins.FailbackManual
	}))
	want(t, "backup", b.Get("lbvserver", "aovlb_hq_vpn_sstp", "backupvserver"), "aovlb_hq_vpn_sstp_standby1")
	want(t, "failback", b.Get("lbvserver", "aovlb_hq_vpn_sstp", "disableprimaryondown"), "ENABLED")
	want(t, "port of the backup", b.Get("lbvserver", "aovlb_hq_vpn_sstp_standby1", "port"), "0")
	// What stands by becomes of another type, and is in use meanwhile.
	apply(t, d, gateways(func(s *plugins.Site) {
		s.Pools[0].Backends[1].Priority = 5
		s.Groups[0].Listeners[2].ProxyProtocol, s.Groups[0].ClientAddress = plugins.ProxyV2, ""
	}))
	want(t, "type of the backup", b.Get("lbvserver", "aovlb_hq_vpn_sstp_standby1", "servicetype"), "TCP")
	apply(t, d, gateways(nil))
	if b.Get("lbvserver", "aovlb_hq_vpn_sstp", "backupvserver") != "" || slices.Contains(b.Names("lbvserver"), "aovlb_hq_vpn_sstp_standby1") {
		t.Error("nothing stands by any more, and yet it is there")
	}
}

func TestNativeDrain(t *testing.T) {
	b := newBox(t)
	d := b.driver(t)
	apply(t, d, gateways(nil))
	ref := plugins.BackendRef{Pool: "ras", Backend: "ras1"}
	if err := d.Drain(t.Context(), plugins.DrainRequest{BackendRef: ref, Deadline: time.Now().Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	_, _, box := d.setUp.Peek()
	state, err := box.list(t.Context(), "config", "servicegroup_servicegroupmember_binding", "aovlb_hq_vpn_ike_to")
	if err != nil || len(state) != 2 {
		t.Fatal(state, err)
	}
	want(t, "graceful", state[0].text("graceful"), "YES")
	if n := state[0].number("delay"); n < 58 || n > 60 {
		t.Errorf("the delay is %d s, want a minute", n)
	}
	b.Count("servicegroupmember", "aovlb_hq_vpn_ike_to?10.0.1.11?500", map[string]any{"cursrvrconnections": 7})
	s, err := d.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x := s.Pools[0].Backends[0]
	if x.State != "draining" || *x.Active != 7 || x.DrainDeadline.IsZero() || s.Pools[0].Backends[1].Share != 1 {
		t.Errorf("statistics of a backend that is drained: %+v", x)
	}
	if n, unsaved := b.Saves(); n != 2 || unsaved {
		t.Errorf("saved %d times, unsaved %t", n, unsaved)
	}
}

func TestBackendIsDown(t *testing.T) {
	b := newBox(t)
	d := b.driver(t)
	apply(t, d, gateways(nil))
	server := b.Names("server")[0]
	b.SetDown("aovlb_hq_vpn_sstp_to", server, true)
	b.Count("lbvserver", "aovlb_hq_vpn_sstp", map[string]any{"curclntconnections": 3, "tothits": 40, "totalrequestbytes": 1000, "curpersistencesessions": 5})
	s, err := d.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if x := s.Pools[0].Backends[0]; x.State != "down" || !strings.Contains(x.Cause, "aovlb_hq_vpn_sstp_to") || x.Share != 0 || s.Pools[0].Backends[1].Share != 1 {
		t.Errorf("statistics of a backend that is down: %+v", x)
	}
	if l := s.Listeners[2]; l.State != "open" || *l.Active != 3 || *l.Total != 40 || l.In.Bytes != 1000 || *s.Groups[0].Clients != 5 {
		t.Errorf("statistics of a listener: %+v", l)
	}
}

func TestIsNotLedElsewhere(t *testing.T) {
	b := newBox(t)
	var elsewhere atomic.Int64
	other := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	d := b.driver(t)
	here := httptest.NewTLSServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer here.Close()
	var s map[string]any
	if err := json.Unmarshal(b.settings, &s); err != nil {
		t.Fatal(err)
	}
	s["url"] = here.URL
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	d.Client = here.Client()
	if err := d.Configure(t.Context(), plugins.Config{Site: "hq", Settings: raw}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read(t.Context()); err == nil || elsewhere.Load() > 0 {
		t.Errorf("the password went elsewhere %d times: %v", elsewhere.Load(), err)
	}
}

func TestSessionsEnd(t *testing.T) {
	b := newBox(t)
	d := b.driver(t)
	b.SessionsLast(5)
	apply(t, d, gateways(nil))
	if b.Logins() < 5 {
		t.Errorf("logged in %d times", b.Logins())
	}
}

func TestPartialFailure(t *testing.T) {
	b := newBox(t)
	d := b.driver(t)
	dep := gateways(nil)
	p, err := d.Plan(t.Context(), dep)
	if err != nil {
		t.Fatal(err)
	}
	b.Refuse(func(method, kind, _ string) int {
		if method == http.MethodPost && kind == "lbgroup" {
			return 1299
		}
		return 0
	})
	done := 0
	err = d.Apply(t.Context(), p, func(g plugins.Progress) { done = g.Done })
	if e, ok := errors.AsType[*nitroError](err); !ok || e.Code != 1299 || !strings.Contains(err.Error(), "make lbgroup aovlb_hq_vpn") {
		t.Fatalf("Apply: %v", err)
	}
	if n, _ := b.Saves(); n != 0 || done == 0 {
		t.Errorf("saved %d times after %d changes", n, done)
	}
	b.Refuse(nil)
	p = apply(t, d, dep)
	if len(p.Changes) != 4 {
		t.Errorf("what is left is %v, want a group and its three members", p.Changes)
	}
	if n, unsaved := b.Saves(); n != 1 || unsaved {
		t.Errorf("saved %d times, unsaved %t", n, unsaved)
	}
}

// An Apply that was broken off before the configuration was saved has it saved by
// the next one, also if it only put right what somebody altered.
func TestSaveIsMadeUpFor(t *testing.T) {
	b := newBox(t)
	d := b.driver(t)
	dep := gateways(nil)
	apply(t, d, dep)
	b.Put("lbmonitor", "aovlb_hq_ras_sstp", map[string]any{"retries": 9})
	p, err := d.Plan(t.Context(), dep)
	if err != nil {
		t.Fatal(err)
	}
	b.Refuse(func(_, kind, _ string) int { return map[string]int{"nsconfig": 1}[kind] })
	if err := d.Apply(t.Context(), p, nil); err == nil {
		t.Fatal("the save that is refused isn't told of")
	}
	b.Refuse(nil)
	if p = apply(t, d, dep); len(p.Changes) > 0 {
		t.Error(p.Changes)
	}
	if _, unsaved := b.Saves(); unsaved {
		t.Error("it isn't saved")
	}
	w := b.Writes()
	if apply(t, d, dep); b.Writes() != w {
		t.Error("it was written again")
	}
}

func TestUnsaved(t *testing.T) {
	b := newBox(t)
	var s map[string]any
	if err := json.Unmarshal(b.settings, &s); err != nil {
		t.Fatal(err)
	}
	s["save"] = false
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	b.settings = raw
	apply(t, b.driver(t), gateways(nil))
	if n, _ := b.Saves(); n != 0 {
		t.Errorf("saved %d times, though nobody wants it", n)
	}
}

// Another's name for an address is used, since NetScaler takes each address once.
func TestServerOfAnother(t *testing.T) {
	b := newBox(t)
	b.Put("server", "RAS01", map[string]any{"ipaddress": "10.0.1.11"})
	foreign := b.Except("aovlb_hq_")
	d := b.driver(t)
	apply(t, d, gateways(nil))
	if got := b.Bound("servicegroup_servicegroupmember_binding", "aovlb_hq_vpn_ike_to"); !strings.HasPrefix(got[0], "servername=RAS01 port=500") {
		t.Errorf("members are %v", got)
	}
	if err := d.Drain(t.Context(), plugins.DrainRequest{BackendRef: plugins.BackendRef{Backend: "ras1"}}); err != nil {
		t.Fatal(err)
	}
	apply(t, d, nil)
	if diff := cmp.Diff(foreign, b.Except("aovlb_hq_")); diff != "" {
		t.Error(diff)
	}
}

func TestFeatureIsOff(t *testing.T) {
	b := newBox(t)
	b.SetFeatures("SSL")
	if _, err := b.driver(t).Plan(t.Context(), gateways(nil)); err == nil || !strings.Contains(err.Error(), "enable ns feature LB") {
		t.Errorf("Plan: %v", err)
	}
}

func TestWrongPassword(t *testing.T) {
	b := newBox(t)
	d := b.driver(t)
	file := filepath.Join(t.TempDir(), "password")
	write(t, file, []byte("wrong-"+plugintest.Canary))
	_, _, box := d.setUp.Peek()
	box.password = plugins.Secret{File: file}
	_, err := d.Read(t.Context())
	if err == nil || !strings.Contains(err.Error(), "354") || strings.Contains(err.Error(), plugintest.Canary) {
		t.Errorf("Read: %v", err)
	}
}

func TestUnknownCertificate(t *testing.T) {
	b := newBox(t)
	var s Settings
	if err := json.Unmarshal(b.settings, &s); err != nil {
		t.Fatal(err)
	}
	s.CAFile = ""
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	d := new(Driver)
	if err := d.Configure(t.Context(), plugins.Config{Site: "hq", Settings: raw}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read(t.Context()); err == nil || b.Logins() > 0 {
		t.Errorf("an appliance that nobody vouches for was given the password: %v", err)
	}
}

// ending returns a deployment whose TLS is ended here.
func ending(cert, ca string, change func(*plugins.TLS)) *plugins.Deployment {
	return gateways(func(s *plugins.Site) {
		g := &s.Groups[0]
		g.Affinity, g.Listeners = "", g.Listeners[2:]
		g.Listeners[0].TLS = plugins.TLS{Mode: plugins.TLSReencrypt, IPHTTPS: true, PassNull: true, Gateway: plugins.GatewayTLS{CAFile: ca, ServerName: "ras.example.com"}}
		g.Listeners[0].TLS.Clients.CAFile = ca
		s.Certificates = []plugins.Certificate{{Name: "web", Pool: "ras", CertFile: cert}}
		if change != nil {
			change(&g.Listeners[0].TLS)
		}
	})
}

func TestEndsTLS(t *testing.T) {
	b := newBox(t)
	d := b.driver(t)
	dir := t.TempDir()
	cert, ca := filepath.Join(dir, "web.pem"), filepath.Join(dir, "ca.pem")
	write(t, cert, chain(t, true))
	write(t, ca, chain(t, false))
	apply(t, d, ending(cert, ca, nil))
	const v, sg = "aovlb_hq_vpn_sstp", "aovlb_hq_vpn_sstp_to"
	want(t, "type", b.Get("lbvserver", v, "servicetype"), "SSL_TCP")
	want(t, "TLS 1.1", b.Get("sslvserver", v, "tls11"), "DISABLED")
	want(t, "client authentication", b.Get("sslvserver", v, "clientcert"), "Mandatory")
	want(t, "verification", b.Get("sslservicegroup", sg, "serverauth"), "ENABLED")
	want(t, "name", b.Get("sslservicegroup", sg, "commonname"), "ras.example.com")
	if got := b.Bound("sslvserver_sslcipher_binding", v); len(got) != 1 || got[0] != "ciphername=SSL3-NULL-SHA" {
		t.Errorf("ciphers are %v", got)
	}
	if got := b.Bound("sslvserver_sslcertkey_binding", v); len(got) != 2 || !strings.Contains(strings.Join(got, " "), "ca=true") {
		t.Errorf("certificates are %v", got)
	}
	before := b.Get("sslcertkey", "aovlb_hq_cert_web", "cert")
	linked := b.Get("sslcertkey", "aovlb_hq_cert_web", "linkcertkeyname")
	want(t, "issuer", linked, "aovlb_hq_cert_web_issuer1")
	// A new certificate: the name stays bound.
	write(t, cert, chain(t, true))
	p := apply(t, d, ending(cert, ca, nil))
	if b.Get("sslcertkey", "aovlb_hq_cert_web", "cert") == before {
		t.Error("the new certificate isn't there")
	}
	for _, c := range p.Changes {
		if c.Kind != "systemfile" && c.Kind != "sslcertkey" {
			t.Errorf("a new certificate has changed something else: %v", c)
		}
	}
	if n := len(b.Names("systemfile")); n != 1+3+1+1 {
		t.Errorf("files are %v, want that of others, the key, two certificates, a CA and a note", b.Names("systemfile"))
	}
	apply(t, d, ending(cert, ca, func(x *plugins.TLS) {
		*x = plugins.TLS{Mode: plugins.TLSOffload, MinVersion: plugins.TLS13}
	}))
	want(t, "type of the group", b.Get("servicegroup", sg, "servicetype"), "TCP")
	want(t, "client authentication", b.Get("sslvserver", v, "clientauth"), "DISABLED")
	apply(t, d, gateways(nil))
	apply(t, d, nil)
	if got := b.Names("systemfile"); len(got) != 1 {
		t.Errorf("files are left: %v", got)
	}
}

// chain returns a certificate and its issuer, and a key with them or only the issuer.
func chain(t *testing.T, whole bool) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var certs [][]byte
	for _, name := range []string{"vpn.example.com", "Issuer"} {
		c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"vpn.example.com"}}
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	if !whole {
		return certs[1]
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(certs[0], certs[1], pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSettings(t *testing.T) {
	for raw, path := range map[string]string{
		`{"url":"http://ns.example.com","user":"u","password":{"env":"P"}}`:                  "settings.url",
		`{"url":"https://ns.example.com/nitro","user":"u","password":{"env":"P"}}`:           "settings.url",
		`{"url":"https://u:p@ns.example.com","user":"u","password":{"env":"P"}}`:             "settings.url",
		`{"url":"https://ns.example.com","password":{"env":"P"}}`:                            "settings.user",
		`{"url":"https://ns.example.com","user":"u"}`:                                        "settings.password",
		`{"url":"https://ns.example.com","user":"u","password":{"env":"P","file":"/p"}}`:     "settings.password",
		`{"url":"https://ns.example.com","user":"u","password":{"env":"P"},"rate":-1}`:       "settings.rate",
		`{"url":"https://ns.example.com","user":"u","password":{"env":"P"},"insecure":true}`: "settings",
	} {
		err := new(Driver).Configure(t.Context(), plugins.Config{Settings: json.RawMessage(raw)})
		if list := plugins.FieldErrors(err); len(list) != 1 || list[0].Path != path {
			t.Errorf("%s: %v, want a fault of %s", raw, err, path)
		}
	}
	if _, err := new(Driver).Read(t.Context()); !errors.Is(err, errConfigure) {
		t.Errorf("a driver that isn't configured: %v", err)
	}
}

// advice holds what is said of deployments that NetScaler does otherwise than asked.
func TestAdvice(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*plugins.Site)
		path   string
		level  plugins.Severity
	}{
		"any address":      {func(s *plugins.Site) { s.Groups[0].Listeners[0].Address = netip.MustParseAddrPort("0.0.0.0:500") }, "sites[0].groups[0].listeners[0].address", plugins.SeverityError},
		"a long time":      {func(s *plugins.Site) { s.Groups[0].Idle = plugins.Duration(48 * time.Hour) }, "sites[0].groups[0].idle", plugins.SeverityWarning},
		"NAT":              {func(s *plugins.Site) { s.Groups[0].ClientAddress = "" }, "sites[0].groups[0].client_address", plugins.SeverityWarning},
		"a rise":           {func(s *plugins.Site) { s.Pools[0].Checks[0].Rise = 40 }, "sites[0].pools[0].checks[0].rise", plugins.SeverityWarning},
		"limits":           {func(s *plugins.Site) { s.Pools[0].Backends[0].MaxClients = 4 }, "sites[0].pools[0].backends", plugins.SeverityWarning},
		"weights":          {func(s *plugins.Site) { s.Pools[0].Backends[0].Weight, s.Pools[0].Picker = new(3), "" }, "sites[0].pools[0].picker", plugins.SeverityWarning},
		"a long name":      {func(s *plugins.Site) { s.Name = strings.Repeat("x", 40) }, "sites[0].name", plugins.SeverityError},
		"no CA":            {func(s *plugins.Site) { *s = ending("/c", "", nil).Sites[0] }, "sites[0].groups[0].listeners[0].tls.gateway.ca_file", plugins.SeverityError},
		"the fast path":    {func(s *plugins.Site) { s.FastPath = plugins.FastPathRequire }, "sites[0].fastpath", plugins.SeverityError},
		"a limit a source": {func(s *plugins.Site) { s.Groups[0].Limits.MaxPerSource = 5 }, "sites[0].groups[0].limits.max_per_source", plugins.SeverityError},
	} {
		plugintest.Advised(t, new(Driver), what, gateways(c.change), c.path, c.level)
	}
}
