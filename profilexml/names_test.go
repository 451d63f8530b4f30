package profilexml

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseWindows(t *testing.T) {
	for s, want := range map[string]Windows{
		"10-1809": Windows10v1809, "11-24H2": Windows11v24H2, "24h2": Windows11v24H2, "22H2": Windows11v22H2, "10-22H2": Windows10v22H2,
		"Windows 11 23H2": Windows11v23H2, "1607": Windows10v1607, "22621": Windows11v22H2, "26300": 26300, "11": newestWindows, "10": Windows10v22H2,
	} {
		if got, err := ParseWindows(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "7", "12-24H2", "XP", "-1"} {
		if w, err := ParseWindows(s); err == nil {
			t.Errorf("%q: %v", s, w)
		}
	}
	for _, w := range windowsNames {
		b, _ := w.build.MarshalText()
		if got, err := ParseWindows(string(b)); got != w.build || err != nil {
			t.Errorf("%s: %v, %v", b, got, err)
		}
	}
}

func TestParseThumbprint(t *testing.T) {
	const want = "aa bb cc dd ee ff 00 11 22 33 44 55 66 77 88 99 aa bb cc dd "
	for _, s := range []string{want, "AABBCCDDEEFF00112233445566778899AABBCCDD", "aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd", "\u200eaabbccddeeff00112233445566778899aabbccdd"} {
		if got, err := ParseThumbprint(s); err != nil || got.String() != want {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "aabb", strings.Repeat("a", 64), strings.Repeat("g", 40)} {
		if got, err := ParseThumbprint(s); err == nil {
			t.Errorf("%q: %q", s, got)
		}
	}
}

func TestParseSuite(t *testing.T) {
	for _, s := range []Suite{StandardSuite(), EnhancedSuite(), StrongSuite()} {
		for _, text := range []string{s.String(), s.PowerShell().String(), strings.ToLower(s.String())} {
			if got, err := ParseSuite(text); err != nil || got != s {
				t.Errorf("%s: %v, %v", text, got, err)
			}
		}
		if len(s.Differences(s.PowerShell())) != 0 {
			t.Errorf("%v differs from itself in another spelling", s)
		}
		for i, f := range suiteFields {
			o := s
			*valuesOf(&o)[i] = f.values[0].name
			if d := o.Differences(s); len(d) != 1 && !(i == 0 && strings.HasPrefix(s.CipherTransformConstants, "GCM")) {
				t.Errorf("one other value: %v", d)
			}
		}
	}
	for _, s := range []string{"", "fast", "DHGroup=Group14", "Color=red", "DHGroup=Group15"} {
		if got, err := ParseSuite(s); err == nil {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestFindSuite(t *testing.T) {
	enhanced := EnhancedSuite()
	listing := "CustomPolicy                     : True\r\n"
	for i, v := range valuesOf(new(enhanced.PowerShell())) {
		listing += suiteFields[i].name + "     : " + *v + "\r\n"
	}
	script, err := (&ServerSetup{Suite: &enhanced}).Script()
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{
		"script":  []byte(script),
		"profile": read(t, "golden", "user-peap-tls.xml"),
		"listing": append([]byte("\xff\xfe"), utf16Bytes(listing, false)...),
		"JSON":    []byte(`{"authenticationtransformconstants": "GCMAES128", "CipherTransformConstants":"GCMAES128", "PfsGroup":"ECP256","DHGroup":"Group14","IntegrityCheckMethod":"SHA256","EncryptionMethod":"GCMAES128"}`),
	} {
		if got, err := FindSuite(file); err != nil || got != enhanced {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                               "there is no AuthenticationTransformConstants",
		listing[40:] + "DHGroup: Group2": "DHGroup is there twice, as Group14 and as Group2",
		strings.Replace(listing, "Group14", "Group15", 1):      `DHGroup can't be "Group15"`,
		strings.Replace(listing, "PfsGroup ", "PfsGroups ", 1): "there is no PfsGroup",
		strings.Replace(listing, "Group14", "$group", 1):       `DHGroup can't be ""`,
		"\xff\xfeodd": "odd number of bytes",
		strings.Replace(listing, ": True", ": False", 1): "CustomPolicy is False",
	} {
		if s, err := FindSuite([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, %v", text, s, err)
		}
	}
}

// TestContentAndProfile: every element has a field, and every field an element.
func TestContentAndProfile(t *testing.T) {
	fields := 0
	var walk func(e *Element, typ reflect.Type)
	walk = func(e *Element, typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ == reflect.TypeFor[EAP]() || e.Type != Group {
			return
		}
		known := map[string]bool{}
		for _, c := range e.Children {
			if c.Path() == "VPNProfile/NativeProfile/Authentication/Certificate" {
				continue
			}
			v := fieldOf(reflect.New(typ).Elem(), c.Name)
			if !v.IsValid() {
				t.Errorf("%s has no field", c.Path())
				continue
			}
			known[c.Name] = true
			fields++
			walk(c, v.Type())
		}
		if typ.NumField() != len(known) {
			t.Errorf("%v has %d fields, and %s %d elements", typ, typ.NumField(), e.Path(), len(known))
		}
	}
	walk(contentTable, reflect.TypeFor[Profile]())
	if fields < 70 {
		t.Errorf("only %d elements", fields)
	}
}

// TestContentTexts holds the table to one form.
func TestContentTexts(t *testing.T) {
	for e := range contentTable.Walk {
		if e.About == "" || !strings.HasSuffix(e.About, ".") || e.Trap != "" && !strings.HasSuffix(e.Trap, ".") {
			t.Errorf("%s: %q %q", e.Path(), e.About, e.Trap)
		}
		if e.Type == Enumeration && len(e.Values) == 0 || e.Type == List && e.Separator == "" || e.Type == Number && e.Most == 0 {
			t.Errorf("%s says too little for %v", e.Path(), e.Type)
		}
		if (e.Type == Group) != (len(e.Children) > 0) {
			t.Errorf("%s is a %v with %d children", e.Path(), e.Type, len(e.Children))
		}
		places := map[int]bool{}
		for _, c := range e.Children {
			if c.Schema != 0 && places[c.Schema] {
				t.Errorf("%s shares place %d in the schema", c.Path(), c.Schema)
			}
			places[c.Schema] = true
		}
	}
}

func TestDocumentFaults(t *testing.T) {
	for name, c := range map[string]struct {
		profile *Profile
		want    string
	}{
		"no server name of EAP": {NewUserTunnel(EAP{TrustedRoots: []Thumbprint{{}}}, "vpn.example.com"), "needs the names"},
		"no root":               {NewUserTunnel(EAP{ServerNames: []string{"a"}}, "vpn.example.com"), "needs the thumbprint"},
		"no server":             {NewDeviceTunnel(), "Servers: it is needed"},
		"semicolon":             {NewDeviceTunnel("a;b"), "comma or a semicolon"},
		"value":                 {device(func(p *Profile) { p.NativeProfile.NativeProtocolType = "WireGuard" }), `"WireGuard" is not one of`},
		"range":                 {device(func(p *Profile) { p.IPv4InterfaceMetric = new(uint32(10000)) }), "10000 is not from 1 to 9999"},
		"item":                  {device(func(p *Profile) { p.DNSSuffix = []string{"a,b"} }), "can't be an item"},
		"NUL":                   {device(func(p *Profile) { p.ProfileName = "\x00" }), "holds what XML can't"},
		"EKU":                   {user(func(p *Profile) { p.NativeProfile.Authentication.EAP.Certificate.EKUs = []EKU{{"a", "b"}} }), "object identifier"},
	} {
		_, err := c.profile.Document(OrderReadback)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestProfileFaults: what a Profile can't hold is named, with its place.
func TestProfileFaults(t *testing.T) {
	d, err := ParseString("<VPNProfile>\n <AlwaysOn>yes</AlwaysOn>\n <Sparkle/>\n <Route><Address>x</Address><PrefixSize>300</PrefixSize></Route>\n <RegisterDNS>true</RegisterDNS><RegisterDNS>false</RegisterDNS>\n</VPNProfile>")
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Profile()
	for _, want := range []string{`2:2: VPNProfile/AlwaysOn: "yes" is neither`, "3:2: VPNProfile/Sparkle: there is no such element", "4:9: VPNProfile/Route/Address", `4:29: VPNProfile/Route/PrefixSize: "300"`, "there twice"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v doesn't say %s", err, want)
		}
	}
	if p == nil || p.RegisterDNS == nil || !*p.RegisterDNS {
		t.Error("what could be read was lost")
	}
	other, err := ParseString("<a/>")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Profile(); err == nil {
		t.Error("<a> is a profile")
	}
}

// TestUnknownEAP: settings of EAP that this package can't say are kept as they
// are.
func TestUnknownEAP(t *testing.T) {
	text := strings.Replace(string(read(t, "golden", "user-eap-tls.xml")), "<DifferentUsername>", "<!-- kept --><Extra/><DifferentUsername>", 1)
	d, err := ParseString(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Profile()
	if err != nil {
		t.Fatal(err)
	}
	if e := p.NativeProfile.Authentication.EAP; !strings.Contains(e.Raw, "<!-- kept --><Extra/>") {
		t.Fatalf("EAP is %+v", e)
	}
	again, err := p.Document(OrderReadback)
	if err != nil {
		t.Fatal(err)
	}
	if list := Diff(d, again, DiffOptions{Exact: true}); len(list) > 0 {
		t.Errorf("lost: %+v", list)
	}
}
