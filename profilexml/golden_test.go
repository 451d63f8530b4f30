package profilexml

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// A goldenProfile is a profile that is kept as a file in testdata/golden.
type goldenProfile struct {
	name    string
	profile *Profile
	// beyond says what in it the published schema doesn't know.
	beyond string
	// findings are the rules that it breaks on purpose.
	findings []string
}

func thumbprint(digits string) Thumbprint {
	t, err := ParseThumbprint(digits)
	if err != nil {
		panic(err)
	}
	return t
}

var (
	exampleRoot   = thumbprint("aabbccddeeff00112233445566778899aabbccdd")
	exampleIssuer = thumbprint("00112233445566778899aabbccddeeff00112233")
)

func exampleEAP(m EAPMethod) EAP {
	e := EAP{Method: m, ServerNames: []string{"nps1.corp.example.com", "nps2.corp.example.com"}, TrustedRoots: []Thumbprint{exampleRoot}}
	if m != PEAPMSCHAPv2 {
		e.Certificate.Issuers = []Thumbprint{exampleIssuer}
	}
	return e
}

// user is a user tunnel that nothing is to be said against, with changes.
func user(change ...func(p *Profile)) *Profile {
	p := NewUserTunnel(exampleEAP(PEAPTLS), "vpn.example.com")
	p.Route = []Route{RouteTo(netip.MustParsePrefix("10.0.0.0/8"))}
	p.TrustedNetworkDetection = []string{"corp.example.com"}
	for _, f := range change {
		f(p)
	}
	return p
}

func device(change ...func(p *Profile)) *Profile {
	p := NewDeviceTunnel("vpn.example.com")
	p.Route = []Route{RouteTo(netip.MustParsePrefix("10.0.0.1/32")), RouteTo(netip.MustParsePrefix("10.0.0.2/32"))}
	for _, f := range change {
		f(p)
	}
	return p
}

func eap(e EAP) func(*Profile) {
	return func(p *Profile) { p.NativeProfile.Authentication.EAP = &e }
}

func suite(s Suite) func(*Profile) {
	return func(p *Profile) { p.NativeProfile.CryptographySuite = &s }
}

func force(p *Profile) {
	p.NativeProfile.RoutingPolicyType, p.NativeProfile.DisableClassBasedDefaultRoute, p.Route = "ForceTunnel", nil, nil
}

func goldenProfiles() []goldenProfile {
	addrs := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
	return []goldenProfile{
		{name: "user-peap-tls", profile: user()},
		{name: "user-eap-tls", profile: user(eap(exampleEAP(EAPTLS)))},
		{name: "user-peap-mschapv2", profile: user(eap(exampleEAP(PEAPMSCHAPv2))), findings: []string{"AOV233"}},
		{name: "user-smart-card", profile: user(func(p *Profile) { p.NativeProfile.Authentication.EAP.SmartCard = true })},
		{name: "user-eku-filter", profile: user(func(p *Profile) {
			p.NativeProfile.Authentication.EAP.Certificate = CertificateFilter{EKUs: []EKU{{"Always On VPN", "1.3.6.1.4.1.311.21.8.1.2.3"}}, AllPurpose: true}
		})},
		{name: "user-conditional-access", profile: user(func(p *Profile) {
			p.UseConditionalAccess(exampleRoot)
		})},
		{name: "user-standard-suite", profile: user(suite(StandardSuite()))},
		{name: "user-strong-suite", profile: user(suite(StrongSuite()))},
		{name: "user-weak-suite", profile: user(suite(Suite{"SHA196", "DES3", "None", "Group2", "SHA196", "DES3"})), findings: []string{"AOV124"}},
		{name: "user-no-suite", profile: user(func(p *Profile) { p.NativeProfile.CryptographySuite = nil }), findings: []string{"AOV120"}},
		{name: "user-force-tunnel", profile: user(force, func(p *Profile) {
			p.Proxy = &Proxy{Manual: &ManualProxy{Server: "proxy.corp.example.com:8080"}}
			excluded := RouteTo(netip.MustParsePrefix("192.0.2.0/24"))
			excluded.ExclusionRoute = new(true)
			p.Route = []Route{excluded}
		})},
		{name: "user-proxy-pac", profile: user(force, func(p *Profile) { p.Proxy = &Proxy{AutoConfigURL: "https://pac.example.com/proxy.pac"} })},
		{name: "user-class-based", profile: user(func(p *Profile) {
			p.NativeProfile.DisableClassBasedDefaultRoute = nil
			p.Route = nil
		})},
		{name: "user-names", profile: user(func(p *Profile) {
			p.DNSSuffix = []string{"corp.example.com", "example.com"}
			p.DomainNameInformation = []DomainNameInformation{
				{DomainName: ".corp.example.com", DNSServers: addrs},
				{DomainName: "www.corp.example.com"},
				{DomainName: ".web.example.com", WebProxyServers: "10.0.0.8:8080", Persistent: new(true)},
			}
			p.RegisterDNS = new(true)
		})},
		{name: "user-trigger-name", profile: user(func(p *Profile) {
			p.AlwaysOn = nil
			p.DomainNameInformation = []DomainNameInformation{{DomainName: ".corp.example.com", DNSServers: addrs, AutoTrigger: new(true)}}
		})},
		{name: "user-trigger-app", profile: user(func(p *Profile) {
			p.AlwaysOn = nil
			p.AppTrigger = []AppTrigger{{App{`C:\Program Files\App & Co\app.exe`}}, {App{"Microsoft.RemoteDesktop_8wekyb3d8bbwe"}}}
		})},
		{name: "user-filters", profile: user(func(p *Profile) {
			p.TrafficFilter = []TrafficFilter{
				{Protocol: new(uint32(6)), RemotePortRanges: []string{"443", "8000-8100"}, RemoteAddressRanges: []string{"10.0.0.0/8", "192.0.2.1-192.0.2.9"}},
				{App: &App{"SYSTEM"}, RoutingPolicyType: "SplitTunnel", Claims: "O:SYG:SYD:(A;;CC;;;AU)"},
				{Protocol: new(uint32(6)), LocalPortRanges: []string{"3389"}, Direction: "Inbound"},
			}
		})},
		{name: "user-several-gateways", profile: user(func(p *Profile) {
			p.NativeProfile.Servers = []Server{{"eu.vpn.example.com", "Europe"}, {"us.vpn.example.com", "America"}}
		})},
		{name: "user-buttons", profile: user(func(p *Profile) {
			p.DisableAdvancedOptionsEditButton, p.DisableDisconnectButton = new(true), new(true)
		})},
		{name: "user-sstp", profile: user(func(p *Profile) {
			p.NativeProfile.NativeProtocolType, p.NativeProfile.CryptographySuite = "SSTP", nil
		})},
		{name: "user-protocol-list", beyond: "ProtocolList", profile: user(func(p *Profile) {
			p.NativeProfile.NativeProtocolType = "ProtocolList"
			p.NativeProfile.ProtocolList = &ProtocolList{[]NativeProtocol{{"Ikev2"}, {"Sstp"}}, new(uint32(1))}
		})},
		{name: "user-l2tp", profile: user(func(p *Profile) {
			p.NativeProfile.NativeProtocolType, p.NativeProfile.CryptographySuite = "L2TP", nil
			p.NativeProfile.L2TPPSK = "<example & secret>"
		}), findings: []string{"AOV106", "AOV107"}},
		{name: "user-24h2", beyond: "the elements of Windows 11 24H2", profile: user(func(p *Profile) {
			p.NetworkOutageTime, p.IPv4InterfaceMetric, p.IPv6InterfaceMetric = new(uint32(1800)), new(uint32(3)), new(uint32(3))
			p.UseRasCredentials, p.DataEncryption, p.PrivateNetwork, p.DisableIKEv2Fragmentation = new(false), "Max", new(true), new(false)
		})},
		{name: "user-not-ticked", beyond: "AlwaysOnActive", profile: user(func(p *Profile) { p.AlwaysOnActive = new(false) })},
		{name: "user-ipv6", profile: user(func(p *Profile) {
			p.Route = append(p.Route, RouteTo(netip.MustParsePrefix("2001:db8::/32")))
			p.DomainNameInformation = []DomainNameInformation{{DomainName: ".corp.example.com", DNSServers: []netip.Addr{netip.MustParseAddr("2001:db8::53")}}}
		}), findings: []string{"AOV309"}},
		{name: "user-selectors", profile: user(func(p *Profile) {
			p.NativeProfile.PlumbIKEv2TSAsRoutes, p.Route = new(true), nil
		})},
		{name: "user-mschapv2-sstp", profile: user(func(p *Profile) {
			p.NativeProfile.NativeProtocolType, p.NativeProfile.CryptographySuite = "SSTP", nil
			p.NativeProfile.Authentication = Authentication{UserMethod: "MSChapv2"}
			p.RememberCredentials = new(true)
		}), findings: []string{"AOV233"}},
		{name: "device", profile: device()},
		{name: "device-register", profile: device(func(p *Profile) { p.RegisterDNS = new(true) })},
		{name: "lockdown", profile: NewLockDown("vpn.example.com"), findings: []string{"AOV606"}},
		{name: "plugin", profile: NewPlugin("Example.VPNClient_0a1b2c3d4e5f6", "<config><user>a & b</user></config>", "vpn.example.com", "vpn2.example.com")},
		{name: "plugin-app-ui", profile: func() *Profile {
			p := NewPlugin("Example.VPNClient_0a1b2c3d4e5f6", "", "vpn.example.com")
			p.RequireVPNClientAppUI, p.TrustedNetworkDetection = new(true), []string{"corp.example.com"}
			return p
		}()},
		{name: "reserved", profile: user(func(p *Profile) {
			p.ProfileName, p.EdpModeID, p.ByPassForLocal = "Always On VPN", "corp.example.com", new(true)
			p.APNBinding = &APNBinding{ProviderID: "p", AccessPointName: "a", UserName: "u", Password: "s", IsCompressionEnabled: new(false), AuthenticationType: "x"}
		}), findings: []string{"AOV107"}},
	}
}

// TestGolden: profiles across all features are written as they were, read back
// as they are, and nothing is said against them but what is named.
func TestGolden(t *testing.T) {
	for _, g := range goldenProfiles() {
		t.Run(g.name, func(t *testing.T) {
			d, err := g.profile.Document(OrderReadback)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "golden", g.name+".xml"), string(Format(d, EditorStyle()).Bytes()))
			golden(t, filepath.Join("testdata", "golden", g.name+".intune.xml"), string(Format(d, ChannelStyle()).Bytes()))
			if diff := Diff(d, Format(d, EditorStyle()), DiffOptions{Exact: true}); len(diff) > 0 {
				t.Errorf("the layout changes %+v", diff)
			}
			var found []string
			for _, f := range new(Checker).Check(d) {
				if f.Severity > Info && !slices.Contains(found, f.Rule) {
					found = append(found, f.Rule)
				}
			}
			slices.Sort(found)
			if !slices.Equal(found, g.findings) {
				t.Errorf("rules %v are broken, and should be %v", found, g.findings)
			}
		})
	}
	if n := len(goldenProfiles()); n < 25 {
		t.Errorf("only %d profiles", n)
	}
}

// TestGoldenSchema has the published schema judge the goldens, where it knows
// what is in them.
func TestGoldenSchema(t *testing.T) {
	schema := publishedSchema(t)
	for _, g := range goldenProfiles() {
		t.Run(g.name, func(t *testing.T) {
			d, err := g.profile.Document(OrderSchema)
			if err != nil {
				t.Fatal(err)
			}
			err = validate(t, schema, d.Bytes())
			switch {
			case g.beyond != "" && err == nil:
				t.Errorf("the schema knows %s after all", g.beyond)
			case g.beyond != "":
				t.Skipf("the published schema doesn't know %s", g.beyond)
			case err != nil:
				t.Errorf("%v\n%s", err, Format(d, Style{Order: OrderKeep, Indent: " "}).Text)
			}
		})
	}
}

// TestOwnSchema has the schema that is made of the content table judge the
// goldens, and refuse what is wrong.
func TestOwnSchema(t *testing.T) {
	xmllint(t)
	schema := filepath.Join("..", "docs", "profilexml.xsd")
	for _, g := range goldenProfiles() {
		if err := validate(t, schema, read(t, "golden", g.name+".xml")); err != nil {
			t.Errorf("%s: %v", g.name, err)
		}
	}
	for _, id := range []string{"AOV007", "AOV008", "AOV009", "AOV010", "AOV017", "AOV019", "AOV022"} {
		if validate(t, schema, read(t, "rules", id+".bad.xml")) == nil {
			t.Errorf("the failing example of %s is valid", id)
		}
	}
}

func xmllint(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("xmllint"); err != nil {
		t.Skip("there is no xmllint to judge by a schema")
	}
}

func publishedSchema(t *testing.T) string {
	t.Helper()
	xmllint(t)
	dir := os.Getenv("AOVLB_TESTDATA")
	if dir == "" {
		t.Skip("AOVLB_TESTDATA isn't set, where the published schema is")
	}
	file := filepath.Join(dir, "profilexml", "VPNProfile_DDF2024.xsd")
	if _, err := os.Stat(file); err != nil {
		t.Skipf("the published schema isn't there: %v", err)
	}
	return file
}

func validate(t *testing.T, schema string, profile []byte) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "xmllint", "--noout", "--nonet", "--schema", schema, "-")
	cmd.Stdin = bytes.NewReader(profile)
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.New(string(out))
	}
	return nil
}
