package profilexml

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustParse(t testing.TB, text string) *Document {
	t.Helper()
	d, err := ParseString(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func texts(list []Difference) []string {
	var s []string
	for _, d := range list {
		s = append(s, d.Text)
	}
	return s
}

func TestDiff(t *testing.T) {
	file := string(read(t, "golden", "user-names.xml"))
	for _, c := range []struct {
		name    string
		replace []string
		options DiffOptions
		want    []string
	}{
		{"nothing", nil, DiffOptions{}, nil},
		{"value", []string{"Group14", "ECP384"}, DiffOptions{}, []string{"NativeProfile/CryptographySuite/DHGroup was Group14 and is ECP384"}},
		{"gone", []string{"  <AlwaysOn>true</AlwaysOn>\n", ""}, DiffOptions{}, []string{"AlwaysOn is gone: it was true"}},
		{"route", []string{"<Address>10.0.0.0<", "<Address>172.16.0.0<", "<PrefixSize>8<", "<PrefixSize>12<"}, DiffOptions{}, []string{
			"Route[10.0.0.0/8] is gone", "Route[172.16.0.0/12] is new",
		}},
		{"secret", []string{"</NativeProfile>", "<L2tpPsk>hunter2</L2tpPsk></NativeProfile>"}, DiffOptions{}, []string{"NativeProfile/L2tpPsk is new: (a secret)"}},
		{"unknown", []string{"</NativeProfile>", "<Sparkle><A>1</A></Sparkle></NativeProfile>"}, DiffOptions{}, []string{"NativeProfile/Sparkle is new: /|Sparkle/|A=1"}},
		{"means the same", []string{
			"vpn.example.com;vpn.example.com", "vpn.example.com", "IKEv2", "Ikev2", "      <MachineMethod>Eap</MachineMethod>\n", "", "    <Metric>1</Metric>\n", "",
			"aa bb cc dd ee ff 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ", "AABBCCDDEEFF00112233445566778899AABBCCDD", "<AlwaysOn>", "<!-- x --><AlwaysOn>", "SplitTunnel", "splittunnel",
		}, DiffOptions{}, nil},
		{"exactly", []string{"    <Metric>1</Metric>\n", ""}, DiffOptions{Exact: true}, []string{"Route[10.0.0.0/8]/Metric is gone: it was 1"}},
		{"triggers", []string{"</DnsServers>", "</DnsServers><AutoTrigger>true</AutoTrigger>"}, DiffOptions{}, []string{"DomainNameInformation[.corp.example.com]/AutoTrigger is new: true"}},
		{"Windows adds triggers", []string{"</DnsServers>", "</DnsServers><AutoTrigger>true</AutoTrigger>"}, DiffOptions{Readback: true}, nil},
		{"a value of EAP", []string{"nps1.corp.example.com", "nps9.corp.example.com"}, DiffOptions{}, []string{
			"NativeProfile/Authentication/Eap/Configuration/EapHostConfig/Config/Eap/EapType/ServerValidation/ServerNames was nps1.corp.example.com;nps2.corp.example.com and is nps9.corp.example.com;nps2.corp.example.com",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			changed := file
			for i := 0; i < len(c.replace); i += 2 {
				if !strings.Contains(changed, c.replace[i]) {
					t.Fatalf("%q isn't there", c.replace[i])
				}
				changed = strings.Replace(changed, c.replace[i], c.replace[i+1], 1)
			}
			if d := cmp.Diff(c.want, texts(Diff(mustParse(t, file), mustParse(t, changed), c.options))); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestDiffReadback: what Windows derives is no difference, and what it lost is.
func TestDiffReadback(t *testing.T) {
	sent := strings.Replace(string(read(t, "golden", "user-names.xml")), "  <TrustedNetworkDetection>corp.example.com</TrustedNetworkDetection>\n", "", 1)
	back := strings.Replace(sent, "  <NativeProfile>", "  <TrustedNetworkDetection>.corp.example.com</TrustedNetworkDetection>\n  <NativeProfile>", 1)
	if list := Diff(mustParse(t, sent), mustParse(t, back), DiffOptions{Readback: true}); len(list) > 0 {
		t.Errorf("what Windows derives: %q", texts(list))
	}
	if list := Diff(mustParse(t, sent), mustParse(t, back), DiffOptions{}); len(list) != 1 {
		t.Errorf("between two profiles: %q", texts(list))
	}
	before, _, _ := strings.Cut(back, "  <DomainNameInformation>")
	end := strings.Index(back, "</DomainNameInformation>\n") + len("</DomainNameInformation>\n")
	lost := Diff(mustParse(t, sent), mustParse(t, before+back[end:]), DiffOptions{Readback: true})
	if len(lost) != 1 || lost[0].Text != "DomainNameInformation[.corp.example.com] is gone" {
		t.Errorf("Windows lost a rule: %q", texts(lost))
	}
}
