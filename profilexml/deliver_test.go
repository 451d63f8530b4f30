package profilexml

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// delivered are profiles that are delivered here.
func delivered(t testing.TB) map[string]*Delivery {
	t.Helper()
	root, err := ParseThumbprint("0123456789abcdef0123456789abcdef01234567")
	if err != nil {
		t.Fatal(err)
	}
	user := NewUserTunnel(EAP{Method: PEAPTLS, ServerNames: []string{"nps.corp.example.com"}, TrustedRoots: []Thumbprint{root}}, "vpn.example.com", "vpn2.example.com")
	user.Route = []Route{RouteTo(netip.MustParsePrefix("10.0.0.0/8")), {Address: netip.MustParseAddr("10.9.0.0"), PrefixSize: 16, ExclusionRoute: new(true)}}
	user.TrustedNetworkDetection = []string{"corp.example.com"}
	user.DNSSuffix = []string{"corp.example.com", "b&b.example"}
	user.DomainNameInformation = []DomainNameInformation{{DomainName: ".corp.example.com", DNSServers: []netip.Addr{netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("10.0.1.53")}}}
	user.Proxy = &Proxy{AutoConfigURL: "http://wpad/bücher.pac?a=1&b='2'"}
	device := NewDeviceTunnel("vpn.example.com")
	device.Route = []Route{RouteTo(netip.MustParsePrefix("10.0.0.10/32"))}
	sstp := NewUserTunnel(EAP{Method: PEAPTLS, ServerNames: []string{"nps.corp.example.com"}, TrustedRoots: []Thumbprint{root}}, "vpn.example.com")
	sstp.NativeProfile.NativeProtocolType, sstp.NativeProfile.CryptographySuite = "SSTP", nil
	sstp.Route = []Route{RouteTo(netip.MustParsePrefix("2001:db8::/32"))}
	list := map[string]*Delivery{}
	for name, p := range map[string]*Profile{"user": user, "device": device, "all-users": sstp} {
		doc, err := p.Document(OrderReadback)
		if err != nil {
			t.Fatal(err)
		}
		list[name] = &Delivery{Name: "Always On VPN", Document: doc}
	}
	list["device"].Name, list["device"].KeepStrategy = "Device Tunnel", true
	list["all-users"].Scope, list["all-users"].Name = DeviceScope, "It's (all) $users"
	return list
}

// deliveryScripts are all scripts of a delivery.
func deliveryScripts(t testing.TB, d *Delivery) map[string]string {
	t.Helper()
	m := map[string]string{}
	for name, f := range map[string]func() (string, error){
		"install": d.InstallScript, "detect": d.DetectScript, "remove": d.RemoveScript,
		"cmdlets": func() (string, error) { s, _, err := d.CmdletScript(); return s, err },
	} {
		s, err := f()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		m[name+".ps1"] = s
	}
	return m
}

// TestDeliveryGolden compares all that is delivered with files, and reads what is
// PowerShell.
func TestDeliveryGolden(t *testing.T) {
	files := map[string]string{}
	for name, d := range delivered(t) {
		for file, script := range deliveryScripts(t, d) {
			files[name+"-"+file] = script
		}
		graph, err := d.Graph()
		if err != nil {
			t.Fatal(err)
		}
		files[name+"-graph.json"] = string(graph)
		sync, err := d.SyncML(name == "user")
		if err != nil {
			t.Fatal(err)
		}
		files[name+"-syncml.xml"] = string(sync)
	}
	for name, f := range otherScripts() {
		s, err := f()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files[name+".ps1"] = s
	}
	for name, r := range requests() {
		s, err := r.INF()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files["request-"+name+".inf"] = s
	}
	for name, got := range files {
		t.Run(name, func(t *testing.T) {
			if strings.HasSuffix(name, ".ps1") {
				if _, err := readPS(got); err != nil {
					t.Errorf("%v", err)
				}
			}
			path := filepath.Join("testdata", "delivery", name)
			if os.Getenv("UPDATE_DELIVERY") != "" {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got (UPDATE_DELIVERY=1 writes it anew)\n%s", diff)
			}
		})
	}
}

// otherScripts are those that are for no profile.
func otherScripts() map[string]func() (string, error) {
	server := &ServerSetup{
		Suite: new(EnhancedSuite()), Fragmentation: true, Root: Thumbprint{1, 2, 3}, EKUs: []string{"1.3.6.1.5.5.7.3.2"}, UserMethods: []string{"EAP", "Certificate"},
		CheckRevocation: true, Offload: &SSTPOffload{Enabled: true, Certificate: [32]byte{1, 2, 0xff}}, IKEv2Ports: 500, SSTPPorts: 500, RADIUS: []string{"nps1.corp.example.com", "10.0.0.5"},
		Balanced: true,
	}
	access := &DirectAccess{
		ISATAP: &ISATAP{Router: "isatap.corp.example.com", Prefix: netip.MustParsePrefix("2001:db8:0:1::/64")}, NetworkLocation: "https://nls.corp.example.com/",
		Probes: &CorporateProbes{WebsiteURL: "http://probe.corp.example.com/", DNSHost: "probe.corp.example.com", DNSAddress: netip.MustParseAddr("::1"), LocationURL: "https://nls.corp.example.com/", Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8::/48")}},
		Experience: &ClientExperience{PolicyStore: `corp.example.com\DirectAccess Client Settings`, Resources: []string{"HTTP:https://inside.example.com/it's", "PING:10.0.0.1"}, Name: "Büro", Email: "help@example.com", GSLB: "da.example.com", ManualEntryPoint: true, EntryPoints: []EntryPoint{
			{Name: "Köln", Site: "It's Köln", Address: netip.MustParseAddr("2001:db8::1"), Range: netip.MustParsePrefix("2001:db8:0:1::/64"), GSLB: netip.MustParseAddr("192.0.2.1")},
			{Name: "Paris", Site: "Paris", Address: netip.MustParseAddr("2001:db8::2"), Range: netip.MustParsePrefix("2001:db8:0:2::/64")},
		}},
		RenewDays: 60,
	}
	strategy := &PhonebookSetting{Connection: "Büro VPN", Key: "VpnStrategy", Value: "14"}
	return map[string]func() (string, error){
		"server": server.Script, "nps": (&NPSSetup{MessageAuthenticator: true, IgnoreNoRevocation: true}).Script, "server-tls": (&ServerSetup{Offload: &SSTPOffload{}, NoRestart: true}).Script, "directaccess": access.Script,
		"phonebook-detect": strategy.DetectScript, "phonebook-remediate": strategy.RemediateScript,
		"task": func() (string, error) {
			return ScheduledTask("Keep VPN", `C:\Program Files\aovlb\aovlb.exe`, `rasphone watch --all VpnStrategy=14`)
		},
	}
}

// TestScriptsHoldTheProfile: the profile that a script makes is the one that was
// given, letters beyond ASCII and & included.
func TestScriptsHoldTheProfile(t *testing.T) {
	for name, d := range delivered(t) {
		literals, err := readPS(deliveryScripts(t, d)["install.ps1"])
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(literals, func(s string) bool { return strings.HasPrefix(s, "<VPNProfile") })
		if i < 0 {
			t.Fatalf("%s: there is no profile in %q", name, literals)
		}
		got, err := ParseString(literals[i])
		if err != nil {
			t.Fatal(err)
		}
		if diff := Diff(d.Document, got, DiffOptions{Readback: true}); len(diff) > 0 {
			t.Errorf("%s: %v", name, diff)
		}
	}
}

func TestGraphHoldsTheProfile(t *testing.T) {
	d := delivered(t)["user"]
	b, err := d.Graph()
	if err != nil {
		t.Fatal(err)
	}
	var c graphConfiguration
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	text, err := base64.StdEncoding.DecodeString(c.OMASettings[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	want, err := d.Profile()
	if err != nil || string(text) != string(want.Bytes()) || strings.HasPrefix(string(text), "\xef\xbb\xbf") || strings.Contains(string(text), "<?xml") || strings.Contains(string(text), "\n") {
		t.Errorf("%q, %v", text, err)
	}
	if c.OMASettings[0].OMAURI != "./User/Vendor/MSFT/VPNv2/Always%20On%20VPN/ProfileXML" {
		t.Error(c.OMASettings[0].OMAURI)
	}
}

func TestSyncMLHoldsTheProfile(t *testing.T) {
	d := delivered(t)["device"]
	b, err := d.SyncML(true)
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Body struct {
			Atomic struct {
				Delete, Add struct {
					URI  string `xml:"Item>Target>LocURI"`
					Data string `xml:"Item>Data"`
				}
			}
		} `xml:"SyncBody"`
	}
	if err := xml.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	want, err := d.Profile()
	if a := s.Body.Atomic; err != nil || a.Add.Data != want.Text || a.Add.URI != "./Device/Vendor/MSFT/VPNv2/Device%20Tunnel/ProfileXML" || a.Delete.URI != "./Device/Vendor/MSFT/VPNv2/Device%20Tunnel" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestDeliveryRefuses(t *testing.T) {
	device := delivered(t)["device"].Document
	for name, d := range map[string]*Delivery{
		"no profile": {Name: "a"}, "no name": {Document: device}, "slash": {Name: "a/b", Document: device}, "ampersand": {Name: "a&b", Document: device},
		"letters": {Name: "Büro", Document: device}, "percent": {Name: "a%20b", Document: device}, "quote": {Name: `a"b`, Document: device}, "line": {Name: "a\nb", Document: device}, "period": {Name: ".a", Document: device}, "parent": {Name: "..", Document: device}, "signs": {Name: "-_-", Document: device},
		"device tunnel of a user": {Name: "a", Document: device, Scope: UserScope}, "long": {Name: strings.Repeat("a", 256), Document: device},
	} {
		if s, err := d.InstallScript(); err == nil {
			t.Errorf("%s: %s", name, s)
		}
		if _, err := d.Graph(); err == nil {
			t.Errorf("%s: Graph", name)
		}
	}
}

func TestSetupRefuses(t *testing.T) {
	for name, f := range map[string]func() (string, error){
		"method": (&ServerSetup{UserMethods: []string{"EAP; Stop-Computer"}}).Script, "eku": (&ServerSetup{EKUs: []string{"1.2'"}}).Script, "ports": (&ServerSetup{IKEv2Ports: 40000}).Script,
		"radius": (&ServerSetup{RADIUS: []string{"a b"}}).Script, "offload without a hash": (&ServerSetup{Offload: &SSTPOffload{Enabled: true}}).Script, "suite": (&ServerSetup{Suite: &Suite{DHGroup: "Group14; Stop-Computer"}}).Script, "half a suite": (&ServerSetup{Suite: &Suite{DHGroup: "Group14"}}).Script,
		"nps": new(NPSSetup).Script, "router": (&DirectAccess{ISATAP: &ISATAP{Router: "a'b"}}).Script, "prefix": (&DirectAccess{ISATAP: &ISATAP{Router: "a", Prefix: netip.MustParsePrefix("10.0.0.0/8")}}).Script,
		"location": (&DirectAccess{NetworkLocation: "http://a"}).Script, "probes": (&DirectAccess{Probes: &CorporateProbes{}}).Script, "dns": (&DirectAccess{Probes: &CorporateProbes{DNSHost: "a"}}).Script,
		"renewal": (&DirectAccess{RenewDays: -1}).Script, "no gpo": (&DirectAccess{Experience: &ClientExperience{}}).Script, "resource": (&DirectAccess{Experience: &ClientExperience{PolicyStore: "a", Resources: []string{"PING:a b"}}}).Script,
		"key": (&PhonebookSetting{Connection: "a", Key: "a=b"}).DetectScript, "value": (&PhonebookSetting{Connection: "a", Key: "a", Value: "\r\n[b]"}).RemediateScript,
		"connection": (&PhonebookSetting{Key: "a"}).RemediateScript, "task": func() (string, error) { return ScheduledTask(`a\b`, "x", "y") }, "command": func() (string, error) { return ScheduledTask("a", "x\n", "y") },
	} {
		if s, err := f(); err == nil {
			t.Errorf("%s: %s", name, s)
		}
	}
}

// TestServerSetup: RRAS takes one root and no list of them, and no RADIUS server
// before it has turned from Windows to RADIUS.
func TestServerSetup(t *testing.T) {
	script, err := (&ServerSetup{Root: Thumbprint{1}, RADIUS: []string{"nps1", "nps2"}}).Script()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(script, "-RootCertificateNameToAccept (Get-Item ") {
		t.Errorf("the root is no certificate:\n%s", script)
	}
	choose, add := strings.Index(script, "Set-VpnAuthType"), strings.Index(script, "Add-RemoteAccessRadius")
	if choose < 0 || add < choose || !strings.Contains(script, "Get-RemoteAccessRadius") {
		t.Errorf("a server is added before there is RADIUS, or twice:\n%s", script)
	}
	// Windows takes one spelling.
	odd := EnhancedSuite()
	odd.CipherTransformConstants, odd.DHGroup = "aes_gcm_128", "group14"
	script, err = (&ServerSetup{Suite: &odd}).Script()
	if err != nil || !strings.Contains(script, "-CipherTransformConstants GCMAES128 ") || !strings.Contains(script, "-DHGroup Group14 ") {
		t.Errorf("%s, %v", script, err)
	}
}

// evil are values that would do something if they were more than values.
var evil = []string{
	"'; Stop-Computer; '", "$(Stop-Computer)", "`n Stop-Computer", "\u2019; Stop-Computer; \u2018", "\n'@\nStop-Computer\n@'\n", "\r'@; Stop-Computer", "\"; Stop-Computer; \"", "a\x60\x24x", "${x}", "@(Stop-Computer)",
	"é'@\n'@", "]]>", "-Force; x", "x | iex", "# x", "<# x", "\u2028Stop-Computer",
}

// TestInjection puts evil values into every field of a profile that takes text,
// and into those of the other scripts: nothing of them may be more than a literal.
func TestInjection(t *testing.T) {
	for _, s := range evil {
		p := &Profile{
			AlwaysOn: new(true), DNSSuffix: []string{"a" + noCommas(s), "b"}, TrustedNetworkDetection: []string{noCommas(s)}, EdpModeID: s,
			Proxy: &Proxy{Manual: &ManualProxy{Server: s}}, DomainNameInformation: []DomainNameInformation{{DomainName: s, DNSServers: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, WebProxyServers: s}},
			AppTrigger: []AppTrigger{{App{s}}}, TrafficFilter: []TrafficFilter{{App: &App{s}, Claims: s}}, DeviceCompliance: &DeviceCompliance{Sso: &Sso{EKU: []string{noCommas(s)}}},
			NativeProfile: &NativeProfile{
				Servers: []Server{{noCommas(s), ""}, {"b", noCommas(s)}}, NativeProtocolType: "IKEv2", L2TPPSK: s,
				Authentication: Authentication{UserMethod: "Eap", EAP: &EAP{Method: PEAPTLS, ServerNames: []string{noCommas(s)}, TrustedRoots: []Thumbprint{{}}}},
			},
		}
		doc, err := p.Document(OrderReadback)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		for name, script := range deliveryScripts(t, &Delivery{Name: "It's `$(x)", Document: doc}) {
			if _, err := readPS(script); err != nil {
				t.Errorf("%s with %q: %v", name, s, err)
			}
		}
		for name, f := range map[string]func() (string, error){
			"router": (&DirectAccess{ISATAP: &ISATAP{Router: s}}).Script, "location": (&DirectAccess{NetworkLocation: "https://a/" + s}).Script,
			"experience": (&DirectAccess{Experience: &ClientExperience{PolicyStore: s, Name: s, Email: s, Resources: []string{"FILE:" + s}, EntryPoints: []EntryPoint{{Name: "a" + s, Site: "a" + s, Address: netip.MustParseAddr("::1"), Range: netip.MustParsePrefix("2001:db8::/64")}}}}).Script,
			"gslb":       (&DirectAccess{Experience: &ClientExperience{PolicyStore: "a", GSLB: s}}).Script,
			"radius":     (&ServerSetup{RADIUS: []string{s}}).Script, "task": func() (string, error) { return ScheduledTask("a"+s, "a"+s, s) },
			"phonebook": (&PhonebookSetting{Connection: "a" + s, Key: "VpnStrategy", Value: s}).RemediateScript,
		} {
			if script, err := f(); err == nil {
				if _, err := readPS(script); err != nil {
					t.Errorf("%s with %q: %v", name, s, err)
				}
			}
		}
	}
}

// noCommas returns what may be in a list.
func noCommas(s string) string {
	s = strings.NewReplacer(",", "", ";", "", "\n", "", "\r", "").Replace(s)
	return strings.TrimSpace("x" + s)
}

// FuzzDeliver delivers any profile under any name: what comes out is PowerShell
// that holds the profile, or an error.
func FuzzDeliver(f *testing.F) {
	for _, d := range delivered(f) {
		f.Add(d.Name, d.Document.Text, false)
	}
	for _, s := range evil {
		f.Add("a"+s, "<VPNProfile><NativeProfile><Servers>"+escape(s)+"</Servers><NativeProtocolType>IKEv2</NativeProtocolType><CryptographySuite><DHGroup>"+escape(s)+"</DHGroup></CryptographySuite></NativeProfile></VPNProfile>", true)
	}
	f.Add("a", "<VPNProfile><!-- é --><![CDATA[\n'@\nStop-Computer]]><Ünknown a='\n'/></VPNProfile>", true)
	f.Fuzz(func(t *testing.T, name, text string, all bool) {
		doc, err := ParseString(text)
		if err != nil {
			return
		}
		d := &Delivery{Name: name, Document: doc}
		if all {
			d.Scope = DeviceScope
		}
		for i, write := range []func() (string, error){
			d.InstallScript, d.DetectScript, d.RemoveScript, func() (string, error) { s, _, err := d.CmdletScript(); return s, err },
		} {
			script, err := write()
			if err != nil {
				continue
			}
			if _, err := readPS(script); err != nil {
				t.Errorf("script %d: %v\n%s", i, err, hex.Dump([]byte(script)))
			}
		}
		if b, err := d.SyncML(all); err == nil {
			if err := xml.Unmarshal(b, new(struct{})); err != nil {
				t.Error(err)
			}
		}
		if b, err := d.Graph(); err == nil && !json.Valid(b) {
			t.Error("no JSON")
		}
	})
}
