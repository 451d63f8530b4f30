package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/profilexml"
)

// suiteElements are the elements of a CryptographySuite in the content table of
// profiles, by name.
func suiteElements(t *testing.T) map[string]*profilexml.Element {
	t.Helper()
	elements := map[string]*profilexml.Element{}
	for e := range profilexml.Content().Walk {
		if strings.HasPrefix(e.Path(), "VPNProfile/NativeProfile/CryptographySuite/") {
			elements[e.Name] = e
		}
	}
	if len(elements) != 6 {
		t.Fatalf("%d elements", len(elements))
	}
	return elements
}

// TestSuiteTables: the table of profiles and that of IKEv2 have the same values,
// under the same names, PowerShell's too.
func TestSuiteTables(t *testing.T) {
	elements := suiteElements(t)
	seen := map[string][]string{}
	for _, v := range ikev2.WindowsValues() {
		e := elements[v.Setting.String()]
		if e == nil {
			t.Fatalf("profiles have no %v", v.Setting)
		}
		if v.ProfileXML == "" {
			if slices.Contains(e.Values, v.PowerShell) {
				t.Errorf("%v %s can be said in a profile, and IKEv2's table doesn't know", v.Setting, v.PowerShell)
			}
			continue
		}
		seen[e.Name] = append(seen[e.Name], v.ProfileXML)
		for _, name := range append(v.Aliases, v.PowerShell) {
			if name != v.ProfileXML && e.Spellings[name] != v.ProfileXML {
				t.Errorf("%v: IKEv2's table calls %s %s too, and profiles %q", v.Setting, v.ProfileXML, name, e.Spellings[name])
			}
		}
	}
	for name, e := range elements {
		if d := cmp.Diff(seen[name], e.Values); d != "" {
			t.Errorf("%s (-ikev2 +profilexml):\n%s", name, d)
		}
	}
}

// allSuites are all suites that there are for IKE and for ESP: each value of a
// field with each of the others that make one proposal with it.
func allSuites(t *testing.T) []profilexml.Suite {
	t.Helper()
	e := suiteElements(t)
	base := profilexml.EnhancedSuite()
	var list []profilexml.Suite
	for _, base.EncryptionMethod = range e["EncryptionMethod"].Values {
		for _, base.IntegrityCheckMethod = range e["IntegrityCheckMethod"].Values {
			for _, base.DHGroup = range e["DHGroup"].Values {
				list = append(list, base)
			}
		}
	}
	for _, base.DHGroup = range []string{"Group14", "ECP384"} {
		for _, base.CipherTransformConstants = range e["CipherTransformConstants"].Values {
			for _, base.AuthenticationTransformConstants = range e["AuthenticationTransformConstants"].Values {
				for _, base.PfsGroup = range e["PfsGroup"].Values {
					list = append(list, base)
				}
			}
		}
	}
	return list
}

// TestSuiteTransforms: a suite means the same transforms to profiles and to
// IKEv2, and the client's proposal is what a gateway with that policy chooses.
func TestSuiteTransforms(t *testing.T) {
	tried := 0
	for _, s := range allSuites(t) {
		c := policyOfSuite(s)
		if c.Check() != nil {
			continue // the two don't go together: what each makes of them means nothing
		}
		tried++
		policy, err := c.Policy("gateway")
		if err != nil {
			t.Fatalf("%v: %v", s, err)
		}
		ike, err := ikeProposal(s)
		if err != nil {
			t.Fatal(err)
		}
		list, err := s.ESP()
		if err != nil {
			t.Fatal(err)
		}
		esp := proposalOf(ikev2.ProtocolESP, list)
		if got, want := describe(ike), describe(policy.IKE[0]); got != want {
			t.Errorf("%v: IKE is %s to profiles and %s to IKEv2", s, got, want)
		}
		if got, want := describe(esp), describe(policy.ESP[0]); got != want {
			t.Errorf("%v: ESP is %s to profiles and %s to IKEv2", s, got, want)
		}
		if n := ikev2.Negotiate([]ikev2.Proposal{ike}, policy); !n.OK {
			t.Errorf("%v: %v", s, n)
		}
		if back, err := c.ProfileXML(); err != nil || suiteOfPolicy(back) != s {
			t.Errorf("%v comes back as %v, %v", s, back, err)
		}
	}
	if tried < 400 {
		t.Errorf("only %d suites were compared", tried)
	}
}

// describe lists the transforms of a proposal, without those that say "none".
func describe(p ikev2.Proposal) string {
	var list []string
	for _, t := range p.Transforms {
		if t.Type == ikev2.TransformESN || t.ID == 0 {
			continue
		}
		list = append(list, fmt.Sprintf("%d:%d:%d", t.Type, t.ID, t.KeyBits))
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// TestSuiteNames: the suites that both packages name are the same, and so are
// the commands for a gateway.
func TestSuiteNames(t *testing.T) {
	for name, c := range map[string]ikev2.CustomPolicy{"standard": ikev2.StandardPolicy(), "enhanced": ikev2.EnhancedPolicy(), "strong": ikev2.HighSecurityPolicy()} {
		s, err := profilexml.ParseSuite(name)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := c.ProfileXML(); err != nil || suiteOfPolicy(p) != s {
			t.Errorf("%s is %v to profiles and %v to IKEv2 (%v)", name, s, p, err)
		}
		script, err := policyOfSuite(s).ServerPowerShell(ikev2.RecommendedSetup())
		if err != nil {
			t.Fatal(err)
		}
		words := func(s string) []string {
			list := strings.Fields(strings.ReplaceAll(s, "`", ""))
			slices.Sort(list)
			return list
		}
		command, _, _ := strings.Cut(script, "#")
		setup, err := (&profilexml.ServerSetup{Suite: &s, NoRestart: true}).Script()
		if err != nil {
			t.Fatal(err)
		}
		_, setup, _ = strings.Cut(setup, "'Stop'\n")
		if d := cmp.Diff(words(command), words(setup)); d != "" {
			t.Errorf("the commands for %s (-ikev2 +profilexml):\n%s", name, d)
		}
	}
	for _, text := range []string{"high", "enhanced,DHGroup=ECP384", "GCMAES128,GCMAES128,GCMAES128,SHA256,Group14,ECP256", "aes256gcm16-prfsha384-ecp384/aes256gcm16-ecp384"} {
		if s, err := parseSuite(text); err != nil || s.EncryptionMethod == "" || strings.HasPrefix(s.EncryptionMethod, "GCMAES") {
			t.Errorf("%s: %v, %v", text, s, err)
		}
	}
}

// deployments are as varied as they come: each protocol, several sites, names in
// checks, in certificates and in DNS.
func deployments() map[string]string {
	return map[string]string{
		"ikev2": `sites: [{name: a, pools: [{name: ras, backends: [{name: r1, address: 10.0.0.1}]}], groups: [{name: vpn, pool: ras, listeners: [{name: ike, protocol: ikev2, address: "192.0.2.1:500"}]}]}]`,
		"both": `sites: [{name: a, pools: [{name: ras, backends: [{name: r1, address: 10.0.0.1}], checks: [{type: sstp, host: vpn.example.com}]}],
  groups: [{name: vpn, pool: ras, listeners: [{name: ike, protocol: ikev2, address: "192.0.2.1:500"}, {name: sstp, protocol: sstp, address: "192.0.2.1:443"}]}]}]`,
		"sites": `sites:
  - {name: a, pools: [{name: ras, backends: [{name: r1, address: 10.0.0.1}]}], groups: [{name: vpn, pool: ras, listeners: [{name: ike, protocol: ikev2, address: "10.0.0.7:500"}]}]}
  - {name: b, pools: [{name: ras, backends: [{name: r1, address: 10.1.0.1}]}], groups: [{name: vpn, pool: ras, listeners: [{name: ike, protocol: ikev2, address: "0.0.0.0:500"}]}]}
site: a`,
	}
}

// TestFromDeploymentNegotiates: whatever profile is made from whatever
// deployment, a client with it is taken by a gateway with the policy that is
// emitted beside it, for the IKE SA, the tunnel, and its renewal.
func TestFromDeploymentNegotiates(t *testing.T) {
	suites := []string{"standard", "enhanced", "strong", "enhanced,DHGroup=ECP384", "SHA196,AES128,AES128,SHA1,Group2,PFS2"}
	files := []string{}
	for name, text := range deployments() {
		file := filepath.Join(t.TempDir(), name+".yaml")
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	tried := 0
	for _, file := range files {
		for _, kind := range []string{"user", "device", "lockdown"} {
			for _, suite := range suites {
				fromDeploymentNegotiates(t, file, "--type", kind, "--suite", suite)
				tried++
			}
		}
	}
	if tried < 20 {
		t.Errorf("only %d were tried", tried)
	}
}

func fromDeploymentNegotiates(t *testing.T, file string, flags ...string) {
	t.Helper()
	script := filepath.Join(t.TempDir(), "server.ps1")
	args := append([]string{
		"profile", "from-deployment", file, "--server-script", script, "--server", "vpn.example.com", "--route", "10.0.0.0/8", "--nps", "nps.example.com", "--root", strings.Repeat("ab", 20),
	}, flags...)
	var out, errs bytes.Buffer
	env := &environment{stdout: &out, stderr: &errs, getenv: func(string) string { return "" }}
	if code := run(t.Context(), env, args); code != 0 {
		t.Fatalf("%v: %s", args, &errs)
	}
	d, err := profilexml.Parse(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Profile()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	// The server's side is read from the script that an administrator runs.
	server, err := profilexml.FindSuite(b)
	if err != nil {
		t.Fatalf("%v:\n%s", err, b)
	}
	gateway, err := policyOfSuite(server).Policy("gateway")
	if err != nil {
		t.Fatal(err)
	}
	client, err := policyOfSuite(*p.NativeProfile.CryptographySuite).Policy("client")
	if err != nil {
		t.Fatal(err)
	}
	if n := ikev2.Negotiate(client.IKE, gateway); !n.OK {
		t.Errorf("%v: IKE: %v", flags, n)
	}
	for _, initial := range []bool{true, false} {
		if n := ikev2.NegotiateChild(client.ESP, gateway, initial); !n.OK {
			t.Errorf("%v: ESP, initial %v: %v", flags, initial, n)
		}
	}
	if list := p.NativeProfile.CryptographySuite.Differences(server); len(list) > 0 {
		t.Errorf("%v: %v", flags, list)
	}
}

// TestCheckProbe asks a gateway on loopback whether it takes a profile's suite.
func TestCheckProbe(t *testing.T) {
	udp := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Skip("no loopback:", err)
		}
		return c
	}
	c, natt := udp(), udp()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	g := &standin.IKEGateway{Name: "ras1", Secret: []byte("x")}
	wg.Go(func() { _ = g.Serve(ctx, c, natt) }) // ends with ctx
	check := func(suite, at string) (string, int) {
		file := filepath.Join(t.TempDir(), "p.xml")
		var out bytes.Buffer
		env := &environment{stdout: &out, stderr: &out, getenv: func(string) string { return "" }}
		if code := run(ctx, env, []string{"profile", "new", "--type", "device", "--server", "vpn.example.com", "--route", "10.0.0.1", "--suite", suite, "--out", file}); code != 0 {
			t.Fatal(&out)
		}
		out.Reset()
		code := run(ctx, env, []string{"profile", "check", "--probe", at, "--timeout", "2s", file})
		return out.String(), code
	}
	at := c.LocalAddr().String()
	if out, code := check("strong", at); code != 0 {
		t.Errorf("what the gateway takes: %s", out)
	}
	if out, code := check("SHA196,DES3,DES3,SHA1,Group2,PFS2", at); code != 1 || !strings.Contains(out, "AOV125") || !strings.Contains(out, "13868 or 800") {
		t.Errorf("what the gateway refuses: %d %s", code, out)
	}
	cancel()
	wg.Wait()
	ctx = t.Context()
	if out, code := check("strong", at); code != 1 || strings.Contains(out, "AOV125") || !strings.Contains(out, "isn't known whether the gateway takes the suite") {
		t.Errorf("nobody is there: %d %s", code, out)
	}
}

// TestCheckProbeOnce: a gateway is asked once, however many files and rounds of
// fixes there are; and whoever asks hears if it wasn't asked.
func TestCheckProbeOnce(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Skip("no loopback:", err)
	}
	defer c.Close()
	spis := make(chan map[string]bool)
	go func() {
		seen := map[string]bool{}
		b := make([]byte, 4096)
		for {
			n, _, err := c.ReadFromUDP(b)
			if err != nil {
				spis <- seen
				return
			}
			if n >= 28 {
				seen[string(b[:8])] = true
			}
		}
	}()
	dir := t.TempDir()
	var out bytes.Buffer
	env := &environment{stdout: &out, stderr: &out, getenv: func(string) string { return "" }}
	profile := func(name string, flags ...string) string {
		file := filepath.Join(dir, name)
		args := append([]string{"profile", "new", "--server", "vpn.example.com", "--route", "10.0.0.1", "--out", file}, flags...)
		if code := run(t.Context(), env, args); code != 0 {
			t.Fatal(&out)
		}
		return file
	}
	a := profile("a.xml", "--type", "device")
	b := profile("b.xml", "--type", "device")
	text, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a, bytes.Replace(text, []byte(">true<"), []byte(">True<"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	sstp := profile("sstp.xml", "--protocol", "SSTP", "--nps", "nps.example.com", "--root", strings.Repeat("ab", 20))
	out.Reset()
	code := run(t.Context(), env, []string{"profile", "check", "--fix", "--probe", c.LocalAddr().String(), "--timeout", "200ms", a, b, sstp})
	if code != 1 || !strings.Contains(out.String(), "sstp.xml: "+c.LocalAddr().String()+" wasn't asked") || strings.Contains(out.String(), "a.xml: "+c.LocalAddr().String()) {
		t.Errorf("%d %s", code, &out)
	}
	_ = c.Close()
	if seen := <-spis; len(seen) != 1 {
		t.Errorf("the gateway was asked %d times", len(seen))
	}
}
