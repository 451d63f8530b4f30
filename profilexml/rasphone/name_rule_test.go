package rasphone

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func rulesOf(t *testing.T, p *Phonebook, name string) []NameRule {
	t.Helper()
	e, err := p.Entry(name)
	if err != nil {
		t.Fatal(err)
	}
	list, err := e.NameRules()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestNameRuleBytes: a rule is written byte for byte as Windows writes it.
func TestNameRuleBytes(t *testing.T) {
	r, err := NewNameRule(".a.b", netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("2001:db8::53"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := EncodeNameRules([]NameRule{r})
	if err != nil {
		t.Fatal(err)
	}
	want := "020000000200000005000000" + strings.Repeat("00", 12) +
		"020000000a000035" + strings.Repeat("00", 12) + "1700000020010db8000000000000000000000053" +
		"2e0061002e0062000000"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("it is\n%s, and should be\n%s", got, want)
	}
}

// TestSetNameRules: rules that an entry has keep what isn't known about them.
func TestSetNameRules(t *testing.T) {
	a := netip.MustParseAddr
	old := []NameRule{
		{Type: 7, Name: "www.example.com", Servers: []netip.Addr{a("10.0.0.1")}, Unknown: [3]uint32{1, 2, 3}},
		{Type: 5, Name: "."},
		{Type: SuffixRule, Name: ".gone.example.com", Servers: []netip.Addr{a("10.0.0.1")}},
	}
	was, err := NameRulesSetting(old)
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := mustParse(t, "[a]\r\nNumNrptRules=0\r\n\r\n[b]\r\nNumNrptRules=0\r\n").Apply(Edit{Entries: []string{"a"}, Set: []Setting{was}})
	if err != nil {
		t.Fatal(err)
	}
	e := Edit{Entries: []string{"a"}, Set: settings(t, "nrptrules=.corp.example.com=10.0.0.53+2001:db8::53, WWW.example.com=10.0.0.2, .=")}
	q, changes, err := p.Apply(e)
	if err != nil {
		t.Fatal(err)
	}
	want := []NameRule{
		{Type: SuffixRule, Name: ".corp.example.com", Servers: []netip.Addr{a("10.0.0.53"), a("2001:db8::53")}},
		{Type: 7, Name: "WWW.example.com", Servers: []netip.Addr{a("10.0.0.2")}, Unknown: [3]uint32{1, 2, 3}},
		{Type: 5, Name: "."},
	}
	if diff := cmp.Diff(want, rulesOf(t, q, "a"), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if want := "[a] NrptRules: www.example.com=10.0.0.1, .=, .gone.example.com=10.0.0.1 -> .corp.example.com=10.0.0.53+2001:db8::53, WWW.example.com=10.0.0.2, .="; len(changes) != 1 || changes[0].String() != want {
		t.Errorf("it says %v", changes)
	}
	if again, more, err := q.Apply(e); err != nil || again != q || len(more) > 0 {
		t.Errorf("a second time it changes %v, %v", more, err)
	}
	if empty, _, err := q.Apply(Edit{Entries: []string{"a"}, Set: settings(t, "NrptRules=")}); err != nil || len(rulesOf(t, empty, "a")) > 0 {
		t.Errorf("they can't be removed: %v", err)
	}
	// The other entry has no such rules to keep anything of.
	for text, why := range map[string]string{
		"NrptRules=www.example.com=10.0.0.2":                        "the number that Windows writes for such rules isn't known",
		"NrptRules=.=10.0.0.2":                                      "every name",
		"NrptRules=." + strings.Repeat("a", 64) + ".com=10.0.0.2":   "more than 63",
		"NrptRules=" + strings.Repeat(".aaaaaaa", 32) + "=10.0.0.2": "more than 253",
		"NrptRules=.example.com=":                                   "without DNS servers",
	} {
		if _, _, err := p.Apply(Edit{Entries: []string{"b"}, Set: settings(t, text)}); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"x", "=10.0.0.1", ".a=b", ".a=10.0.0.1+", ".a=fe80::1%eth0", ".a b=10.0.0.1", ".a=10.0.0.1,.A=10.0.0.2"} {
		if s, err := ParseSetting("NrptRules=" + text); err == nil {
			t.Errorf("%s is read as %v", text, s)
		}
	}
	if _, err := NameRulesSetting([]NameRule{{Name: ".a", Servers: []netip.Addr{a("10.0.0.1")}}}); err == nil {
		t.Error("a rule without a type is written")
	}
}
