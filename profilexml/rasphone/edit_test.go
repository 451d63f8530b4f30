package rasphone

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func setting(t testing.TB, text string) Setting {
	t.Helper()
	s, err := ParseSetting(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func settings(t testing.TB, texts ...string) []Setting {
	t.Helper()
	var list []Setting
	for _, text := range texts {
		list = append(list, setting(t, text))
	}
	return list
}

// TestApply makes edits that scripts get wrong, on the smallest phone book that
// shows it.
func TestApply(t *testing.T) {
	const policy = "AuthenticationTransformConstants=SHA256128,CipherTransformConstants=AES128,PfsGroup=PFS2048,DHGroup=Group14,IntegrityCheckMethod=SHA256,EncryptionMethod=AES128"
	for _, test := range []struct {
		name, book string
		set        []string
		want       string
		changes    int
	}{
		{"value", "[a]\r\nVpnStrategy=7\r\n", []string{"VpnStrategy=Ikev2Sstp"}, "[a]\r\nVpnStrategy=14\r\n", 1},
		{"as it is", "[a]\r\nVpnStrategy=14\r\n", []string{"VpnStrategy=14"}, "[a]\r\nVpnStrategy=14\r\n", 0},
		{"LF", "[a]\nVpnStrategy=7\nX=1\n", []string{"VpnStrategy=8"}, "[a]\nVpnStrategy=8\nX=1\n", 1},
		{"doubled CR", "[a]\r\r\nVpnStrategy=7\r\r\nX=1\r\r\n", []string{"VpnStrategy=8"}, "[a]\r\r\nVpnStrategy=8\r\r\nX=1\r\r\n", 1},
		{"no end", "[a]\r\nVpnStrategy=7", []string{"VpnStrategy=8"}, "[a]\r\nVpnStrategy=8", 1},
		{"other entry", "[b]\r\nVpnStrategy=7\r\n\r\n[a]\r\nVpnStrategy=7\r\n\r\n[aa]\r\nVpnStrategy=7\r\n", []string{"VpnStrategy=5"}, "[b]\r\nVpnStrategy=7\r\n\r\n[a]\r\nVpnStrategy=5\r\n\r\n[aa]\r\nVpnStrategy=7\r\n", 1},
		{"key that ends alike", "[a]\r\nxNetworkOutageTime=1\r\nNetworkOutageTime=2\r\n", []string{"NetworkOutageTime=60"}, "[a]\r\nxNetworkOutageTime=1\r\nNetworkOutageTime=60\r\n", 1},
		{"bracket in a value", "[a]\r\nComment=[::1]\r\nVpnStrategy=7\r\n", []string{"VpnStrategy=8"}, "[a]\r\nComment=[::1]\r\nVpnStrategy=8\r\n", 1},
		{"Device and DEVICE", "[a]\r\n\r\nMEDIA=rastapi\r\nDevice=WAN\r\n\r\nDEVICE=vpn\r\nPhoneNumber=x\r\n", []string{"PhoneNumber=vpn.example.com"}, "[a]\r\n\r\nMEDIA=rastapi\r\nDevice=WAN\r\n\r\nDEVICE=vpn\r\nPhoneNumber=vpn.example.com\r\n", 1},
		{"spaces stay", "[a]\r\nVpnStrategy = 7 \r\n", []string{"VpnStrategy=8"}, "[a]\r\nVpnStrategy = 8 \r\n", 1},
		{"other case", "[a]\r\nvpnstrategy=7\r\n", []string{"VpnStrategy=8"}, "[a]\r\nvpnstrategy=8\r\n", 1},
		{"byte order mark", "\xef\xbb\xbf[a]\r\nVpnStrategy=7\r\n", []string{"VpnStrategy=8"}, "\xef\xbb\xbf[a]\r\nVpnStrategy=8\r\n", 1},
		{"added before what follows", "[a]\r\nDisableMobility=0\r\nUnknown=1\r\nIDI=\r\n", []string{"NetworkOutageTime=60"}, "[a]\r\nDisableMobility=0\r\nUnknown=1\r\nNetworkOutageTime=60\r\nIDI=\r\n", 1},
		{"added after what precedes", "[a]\r\nVpnStrategy=7\r\n\r\nMEDIA=rastapi\r\n", []string{"Mobility=off"}, "[a]\r\nVpnStrategy=7\r\nDisableMobility=1\r\n\r\nMEDIA=rastapi\r\n", 1},
		{"added to nothing", "[a]", []string{"VpnStrategy=8"}, "[a]\r\nVpnStrategy=8", 1},
		{"added at the end, without an end", "[a]\r\nEncoding=1", []string{"VpnStrategy=8", "IpInterfaceMetric=3"}, "[a]\r\nEncoding=1\r\nVpnStrategy=8\r\nIpInterfaceMetric=3", 2},
		{"no value and no end, before what is added there", "[a]\r\nVpnStrategy=", []string{"Suite=" + policy, "VpnStrategy=8"}, "[a]\r\nVpnStrategy=8\r\nNumCustomPolicy=1\r\nCustomIPSecPolicies=020000000200000003000000030000000200000003000000", 2},
		{"no value and no end, amid what is added there", "[a]\r\nNumRoutes=", []string{"VpnStrategy=8", "NetworkOutageTime=60", "Routes=10.0.0.0/8"}, "[a]\r\nVpnStrategy=8\r\nNetworkOutageTime=60\r\nNumRoutes=1\r\nRoutes=0100000002000000080000000A0000000000000000000000000000000000000000000000", 3},
		{"unknown key", "[a]\r\nFuture=1\r\n", []string{"Future=2"}, "[a]\r\nFuture=2\r\n", 1},
		{"policy where there is none", "[a]\r\nNumCustomPolicy=0\r\nNumEku=0\r\n", []string{"Suite=" + policy}, "[a]\r\nNumCustomPolicy=1\r\nCustomIPSecPolicies=020000000200000003000000030000000200000003000000\r\nNumEku=0\r\n", 1},
		{"policy in place of another", "[a]\r\nNumCustomPolicy=1\r\nCustomIPSecPolicies=020000000400000003000000050000000200000000000000\r\nNumEku=0\r\n", []string{"Suite=" + policy}, "[a]\r\nNumCustomPolicy=1\r\nCustomIPSecPolicies=020000000200000003000000030000000200000003000000\r\nNumEku=0\r\n", 1},
		{"no policy", "[a]\r\nNumCustomPolicy=1\r\nCustomIPSecPolicies=020000000400000003000000050000000200000000000000\r\nNumEku=0\r\n", []string{"Suite=none"}, "[a]\r\nNumCustomPolicy=0\r\nNumEku=0\r\n", 1},
		{"list without a counter", "[a]\r\nVpnStrategy=7\r\n", []string{"Suite=" + policy}, "[a]\r\nVpnStrategy=7\r\nNumCustomPolicy=1\r\nCustomIPSecPolicies=020000000200000003000000030000000200000003000000\r\n", 1},
		{"list that is so, in small letters", "[a]\r\nNumRoutes=1\r\nRoutes=0100000002000000080000000a0000000000000000000000000000000000000000000000\r\n", []string{"Routes=10.0.0.0/8"}, "[a]\r\nNumRoutes=1\r\nRoutes=0100000002000000080000000a0000000000000000000000000000000000000000000000\r\n", 0},
		{"counter without its list", "[a]\r\nNumRoutes=12\r\nNumNrptRules=7\r\n", []string{"Routes=10.0.0.0/8"}, "[a]\r\nNumRoutes=1\r\nRoutes=0100000002000000080000000A0000000000000000000000000000000000000000000000\r\nNumNrptRules=7\r\n", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := mustParse(t, test.book)
			got, changes, err := p.Apply(Edit{Entries: []string{"a"}, Set: settings(t, test.set...)})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got.Bytes())); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if len(changes) != test.changes {
				t.Errorf("%d changes, want %d: %v", len(changes), test.changes, changes)
			}
			again, changes, err := got.Apply(Edit{Entries: []string{"a"}, Set: settings(t, test.set...)})
			if err != nil || again != got || len(changes) > 0 {
				t.Errorf("a second time it changes %v, %v", changes, err)
			}
		})
	}
}

// TestApplyRefuses asks for what can't be done for certain.
func TestApplyRefuses(t *testing.T) {
	for _, test := range []struct {
		name, book string
		edit       Edit
		is         error
		want       string
	}{
		{"no such entry", "[A]\r\n", Edit{Entries: []string{"a"}, Set: []Setting{{Key: "X", Value: "1"}}}, ErrNoEntry, `entry "a": there is no such entry; there is "A"`},
		{"empty", "", Edit{All: true, Set: []Setting{IKEv2Only.Setting()}}, ErrNoEntry, "the phone book is empty"},
		{"twice", "[a]\r\n[b]\r\n[a]\r\n", Edit{Entries: []string{"a"}, Set: []Setting{IKEv2Only.Setting()}}, ErrTwice, "in lines 1 and 3"},
		{"twice, and all are meant", "[a]\r\n[b]\r\n[a]\r\n", Edit{All: true, Set: []Setting{IKEv2Only.Setting()}}, ErrTwice, "in lines 1 and 3"},
		{"key twice", "[a]\r\nVpnStrategy=1\r\nVpnStrategy=2\r\n", Edit{All: true, Set: []Setting{IKEv2Only.Setting()}}, ErrTwice, "in lines 2 and 3"},
		{"key twice, in another case", "[a]\r\nVpnStrategy=1\r\nvpnstrategy=2\r\n", Edit{All: true, Set: []Setting{IKEv2Only.Setting()}}, ErrTwice, "in lines 2 and 3"},
		{"line ends of CR", "[a]\rVpnStrategy=1\r", Edit{All: true, Set: []Setting{IKEv2Only.Setting()}}, ErrRefused, "lines end in CR alone"},
		{"no such key", "[a]\r\n", Edit{All: true, Set: []Setting{{Key: "Future", Value: "1"}}}, ErrNoKey, "only keys that are known can be added"},
		{"line end in a value", "[a]\r\nX=1\r\n", Edit{All: true, Set: []Setting{{Key: "X", Value: "1\r\n[b]"}}}, nil, "can't have the character U+000D"},
		{"bracket in a value", "[a]\r\nX=1\r\n", Edit{All: true, Set: []Setting{{Key: "X", Value: "[b]"}}}, nil, "can't have the character U+005B"},
		{"no key", "[a]\r\nX=1\r\n", Edit{All: true, Set: []Setting{{Key: "X=1\r\nY", Value: "1"}}}, nil, "is no key"},
		{"group", "[a]\r\nDEVICE=vpn\r\n", Edit{All: true, Set: []Setting{{Key: "DEVICE", Value: "x"}}}, nil, "is no key"},
		{"kept", "[a]\r\nGuid=1\r\n", Edit{All: true, Set: []Setting{{Key: "Guid", Value: "2"}}}, ErrRefused, "belongs to Windows"},
		{"counter alone", "[a]\r\nNumRoutes=1\r\n", Edit{All: true, Set: []Setting{{Key: "NumRoutes", Value: "2"}}}, ErrRefused, "must agree"},
		{"strategy 15", "[a]\r\nVpnStrategy=1\r\n", Edit{All: true, Set: []Setting{ProtocolList.Setting()}}, ErrRefused, "can't be read back"},
		{"set twice", "[a]\r\nVpnStrategy=1\r\n", Edit{All: true, Set: []Setting{IKEv2Only.Setting(), SSTPOnly.Setting()}}, nil, "VpnStrategy is set twice"},
		{"nobody", "[a]\r\n", Edit{Set: []Setting{IKEv2Only.Setting()}}, nil, "must say which entries"},
		{"everybody and somebody", "[a]\r\n", Edit{All: true, Entries: []string{"a"}, Set: []Setting{IKEv2Only.Setting()}}, nil, "not for both"},
		{"nothing", "[a]\r\n", Edit{All: true}, nil, "nothing to set"},
		{"letters in an old encoding", "[\xe4]\r\nIpDnsSuffix=\r\n", Edit{All: true, Set: []Setting{{Key: "IpDnsSuffix", Value: "ä.example"}}}, nil, "old encoding"},
		{"ambiguous group", "[a]\r\nX=1\r\n\r\nMEDIA=\r\nX=1\r\n", Edit{All: true, Set: []Setting{{Key: "X", Value: "2"}}}, ErrTwice, "say which is right"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := mustParse(t, test.book).Apply(test.edit)
			if err == nil || !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestForce(t *testing.T) {
	p, changes, err := mustParse(t, "[a]\r\nOptions=2\r\nVpnStrategy=7\r\n").Apply(Edit{All: true, Force: true, Set: []Setting{{Key: "Options", Value: "26"}, ProtocolList.Setting()}})
	if err != nil || len(changes) != 2 || string(p.Bytes()) != "[a]\r\nOptions=26\r\nVpnStrategy=15\r\n" {
		t.Errorf("%q, %v, %v", p.Bytes(), changes, err)
	}
}

func TestGroupOfKey(t *testing.T) {
	p, _, err := mustParse(t, "[a]\r\nX=1\r\n\r\nMEDIA=\r\nX=1\r\n").Apply(Edit{All: true, Set: []Setting{{Key: "MEDIA/X", Value: "2"}}})
	if err != nil || string(p.Bytes()) != "[a]\r\nX=1\r\n\r\nMEDIA=\r\nX=2\r\n" {
		t.Errorf("%v, %v", p, err)
	}
}

// TestNames finds entries whose names are odd.
func TestNames(t *testing.T) {
	p := mustParse(t, "junk\r\n[a]\r\n[b]c]\r\n [d]\r\n[]\r\n[e\r\n[\xe4\x80]\r\n[日本]\r\n[ f ] \r\n")
	var names []string
	for _, e := range p.Entries() {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{"a", "b]c", "", "ä€", "日本", " f "}, names); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if e, err := p.Entry("日本"); err != nil || e.Line() != 8 {
		t.Errorf("%v, %v", e.Line(), err)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"\xff\xfe[\x00a\x00]\x00": "UTF-16",
		"[a]\r\nX=1\r\nY=\x00":    "line 3: there is a zero byte",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// TestRealShape edits an entry as Windows 11 writes it.
func TestRealShape(t *testing.T) {
	text := windowsEntry("Büro ☕", nil) + windowsEntry("Other [x]", map[string]string{"PhoneNumber": "2001:db8::1"})
	p := mustParse(t, text)
	got, changes, err := p.Apply(Edit{Entries: []string{"Büro ☕"}, Set: settings(t, "VpnStrategy=14", "IpInterfaceMetric=3", "Ipv6InterfaceMetric=3", "NetworkOutageTime=600", "UseRasCredentials=off", "CacheCredentials=0", "IpDnsFlags=register", "IKENameEkuCheck=on")})
	if err != nil {
		t.Fatal(err)
	}
	want := text
	for _, c := range [][2]string{{"VpnStrategy=7", "VpnStrategy=14"}, {"\nIpInterfaceMetric=0", "\nIpInterfaceMetric=3"}, {"Ipv6InterfaceMetric=0", "Ipv6InterfaceMetric=3"}, {"NetworkOutageTime=0", "NetworkOutageTime=600"}, {"UseRasCredentials=1", "UseRasCredentials=0"}, {"IpDnsFlags=0", "IpDnsFlags=1"}} {
		want = strings.Replace(want, c[0], c[1], 1)
	}
	if diff := cmp.Diff(want, string(got.Bytes())); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if len(changes) != 6 {
		t.Errorf("%v", changes)
	}
	if d := Diff(p, got, "a", "b"); strings.Count(d, "\n-") != 6 || strings.Count(d, "\n+") != 7 || !strings.Contains(d, "@@ [Büro ☕]\n") {
		t.Error(d)
	}
}

// TestGolden compares all that is read from the phone book of testdata, and what
// is said against it.
func TestGolden(t *testing.T) {
	p := fixture(t, "office.pbk")
	var b strings.Builder
	for _, e := range p.Entries() {
		b.WriteString("[" + e.Name() + "]\n")
		for _, l := range e.Lines() {
			if k, ok := LookupKey(l.Key); ok && k.isFor(l.Group) && k.Kind != Binary {
				b.WriteString(l.Key + "=" + withWord(&k, l.Value) + "\n")
			}
		}
		for _, k := range listKeys {
			text, err := e.describeList(k.key)
			if err != nil {
				text = err.Error()
			}
			b.WriteString(k.key + ": " + text + "\n")
		}
	}
	for _, f := range Check(p) {
		b.WriteString(f.String() + "\n    " + f.Do + "\n")
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile("testdata/office.golden", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/office.golden")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
