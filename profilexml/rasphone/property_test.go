package rasphone

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// odd are the lines that phone books were seen with, and some that nobody has
// seen: brackets in values, keys that end or begin like others, other case,
// spaces, junk.
var odd = []string{
	"VpnStrategy=7", "VpnStrategy=", "vpnstrategy=6", "xVpnStrategy=7", "VpnStrategyX=7", "VpnStrategy = 7 ", "\tVpnStrategy=7", "VpnStrategy", "=7", "==",
	"IpInterfaceMetric=0", "Ipv6InterfaceMetric=0", "NetworkOutageTime=1800", "xNetworkOutageTime=1", "DisableMobility=0", "UseRasCredentials=1",
	"NumCustomPolicy=0", "NumCustomPolicy=1", "CustomIPSecPolicies=020000000400000003000000050000000200000000000000", "CustomIPSecPolicies=02", "NumEku=0",
	"NumRoutes=2", "Routes=0100", "Routes=XYZ", "NumNrptRules=0", "RouteVersion=1", "IDI=", "Encoding=1", "PBVersion=8", "Guid=00", "Type=2", "Type=5",
	"Comment=[::1]", "Comment=]", "Comment=a=b=c", "[", "]", " [x]", "[]x", "[x", "", "", " ", "\t", "MEDIA=rastapi", "DEVICE=vpn", "NETCOMPONENTS=", "Device=WAN Miniport",
	"Port=VPN2-0", "PhoneNumber=vpn.example.com", "phonenumber=x", "ServerListServerName=a", "serverListServerName=b", "Name=\xe4\xf6", "Name=日本", "\xef\xbb\xbf", "\r", "a\rb",
}

var lineEnds = []string{"\r\n", "\r\n", "\r\n", "\n", "\r\r\n"}

// books generates phone books with every oddity.
var books = rapid.Custom(func(t *rapid.T) string {
	var b strings.Builder
	if rapid.IntRange(0, 9).Draw(t, "mark") == 0 {
		b.WriteString(byteOrderMark)
	}
	end := rapid.SampledFrom(lineEnds)
	text := rapid.SampledFrom(odd)
	names := rapid.SampledFrom([]string{"a", "b", "A", "Büro", "\xfc", "a]b", "", "x [y]", "日本"})
	write := func(n int, label string) {
		for range n {
			b.WriteString(text.Draw(t, label) + end.Draw(t, "end"))
		}
	}
	write(rapid.IntRange(0, 2).Draw(t, "before"), "junk")
	for range rapid.IntRange(0, 4).Draw(t, "entries") {
		if rapid.IntRange(0, 4).Draw(t, "real") == 0 {
			b.WriteString(windowsEntry(names.Draw(t, "name"), nil))
			continue
		}
		b.WriteString("[" + names.Draw(t, "name") + "]" + end.Draw(t, "end"))
		write(rapid.IntRange(0, 12).Draw(t, "lines"), "line")
	}
	s := b.String()
	if rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
		s = strings.TrimRight(s, "\r\n")
	}
	return s
})

var edits = rapid.Custom(func(t *rapid.T) Edit {
	all := []string{
		"VpnStrategy=Ikev2Sstp", "VpnStrategy=7", "IpInterfaceMetric=3", "NetworkOutageTime=60", "Mobility=off", "UseRasCredentials=0", "PhoneNumber=vpn.example.net",
		"Suite=none", "Suite=AuthenticationTransformConstants=GCMAES128,CipherTransformConstants=GCMAES128,PfsGroup=ECP256,DHGroup=Group14,IntegrityCheckMethod=SHA256,EncryptionMethod=AES_GCM_128",
		"Routes=10.0.0.0/8,exclude:10.1.0.0/16,2001:db8::/32@7", "Routes=", "TrustedNetworks=corp.example.com", "IDI=x", "Comment=hello",
	}
	e := Edit{All: rapid.Bool().Draw(t, "all")}
	if !e.All {
		e.Entries = rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "Büro", "x [y]"}), 1, 2).Draw(t, "entries")
	}
	for _, s := range rapid.SliceOfNDistinct(rapid.SampledFrom(all), 1, 4, func(s string) string { k, _, _ := strings.Cut(s, "="); return k }).Draw(t, "set") {
		one, err := ParseSetting(s)
		if err != nil {
			t.Fatal(err)
		}
		e.Set = append(e.Set, one)
	}
	return e
})

// TestEditsTouchNothingElse edits phone books with every oddity, and compares
// what is left when the lines that were meant are taken away: it must be the same
// byte for byte. How it finds those lines is written anew here, slowly.
func TestEditsTouchNothingElse(t *testing.T) {
	made := 0
	rapid.Check(t, func(t *rapid.T) {
		text, e := books.Draw(t, "book"), edits.Draw(t, "edit")
		p, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		got, changes, err := p.Apply(e)
		if string(p.Bytes()) != text {
			t.Fatal("the phone book that was edited has changed itself")
		}
		if err != nil {
			if got != nil || len(changes) > 0 {
				t.Fatal("it failed and did something")
			}
			return
		}
		made++
		before, after := without(text, e), without(string(got.Bytes()), e)
		if !strings.HasSuffix(text, "\n") && strings.HasPrefix(after, before) && strings.Trim(after[len(before):], "\r\n") == "" {
			after = before // what was added at the end has given the last line its end
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Fatalf("something else differs: -before +after\n%s", diff)
		}
		readsBack(t, got, e)
		if again, changes, err := got.Apply(e); err != nil || again != got || len(changes) > 0 {
			t.Fatalf("a second time it changes %v, %v", changes, err)
		}
		if (len(changes) == 0) != (text == string(got.Bytes())) {
			t.Fatalf("%d changes are told of", len(changes))
		}
		if d := Diff(p, got, "a", "b"); (d == "") != (len(changes) == 0) || applyDiff(text, d) != withoutSecrets(string(got.Bytes())) && utf8.ValidString(text) && !strings.Contains(text, "\r\r") && !strings.Contains(text, "a\rb") && !strings.Contains(d, "(line end") {
			t.Fatalf("the diff is wrong:\n%s\n%q\n%q", d, applyDiff(text, d), got.Bytes())
		}
	})
	if made == 0 {
		t.Error("no edit could be made")
	}
}

// header finds a line that begins an entry.
var header = regexp.MustCompile(`^\[(.*)\][^\]]*$`)

// without returns a phone book without the lines that an edit is about.
func without(text string, e Edit) string {
	var keep strings.Builder
	text, mark := strings.CutPrefix(text, byteOrderMark)
	if mark {
		keep.WriteString(byteOrderMark)
	}
	meant, group := false, ""
	for _, l := range strings.SplitAfter(text, "\n") {
		bare := strings.TrimRight(l, "\r\n")
		if m := header.FindStringSubmatch(strings.ReplaceAll(bare, "\r", " ")); m != nil {
			meant, group = e.All || slices.Contains(e.Entries, m[1]), ""
		}
		key, _, ok := strings.Cut(bare, "=")
		if slices.Contains([]string{"MEDIA", "DEVICE", "NETCOMPONENTS"}, key) && ok {
			group = key
		}
		if !meant || !ok || !isMeant(strings.Trim(key, " \t"), group, e) {
			keep.WriteString(l)
		}
	}
	return keep.String()
}

func isMeant(key, group string, e Edit) bool {
	for _, s := range e.Set {
		k, known := LookupKey(s.Key)
		if known && k.Group.String() != group {
			continue
		}
		if strings.EqualFold(key, s.Key) || s.List != nil && strings.EqualFold(key, s.List.Counter) {
			return true
		}
	}
	return false
}

// readsBack requires that each entry says what was set.
func readsBack(t *rapid.T, p *Phonebook, e Edit) {
	for _, entry := range p.Entries() {
		if !e.All && !slices.Contains(e.Entries, entry.Name()) {
			continue
		}
		for _, s := range e.Set {
			if s.List == nil {
				if v, ok := entry.Get(s.Key); !ok || v != s.Value {
					t.Fatalf("[%s] %s is %q, %v, and should be %q", entry.Name(), s.Key, v, ok, s.Value)
				}
				continue
			}
			if got := entry.Values(s.Key); !strings.EqualFold(strings.Join(got, ""), strings.Join(s.List.Lines, "")) {
				t.Fatalf("[%s] %s is %q", entry.Name(), s.Key, got)
			}
			if n, _ := entry.Get(s.List.Counter); n != fmt.Sprint(s.List.Count) {
				t.Fatalf("[%s] %s is %s", entry.Name(), s.List.Counter, n)
			}
		}
	}
}

// applyDiff makes the changes of a diff in text, all lines ending in LF.
func applyDiff(text, diff string) string {
	old := strings.SplitAfter(withoutSecrets(text), "\n")
	if diff == "" {
		return strings.Join(old, "")
	}
	var out strings.Builder
	at := 0
	for _, l := range strings.Split(strings.TrimSuffix(diff, "\n"), "\n")[2:] {
		switch l[0] {
		case '@':
			var from, n, to, m int
			if _, err := fmt.Sscanf(l, "@@ -%d,%d +%d,%d @@", &from, &n, &to, &m); err != nil {
				return err.Error()
			}
			for ; at < from-1; at++ {
				out.WriteString(old[at])
			}
		case ' ':
			out.WriteString(l[1:] + "\n")
			at++
		case '-':
			at++
		case '+':
			out.WriteString(l[1:] + "\n")
		}
	}
	out.WriteString(strings.Join(old[min(at, len(old)):], ""))
	return withoutSecrets(out.String())
}

// withoutSecrets returns a phone book as a diff shows it.
func withoutSecrets(text string) string {
	lines := strings.Split(strings.ReplaceAll(strings.ReplaceAll(text, "\r\r\n", "\n"), "\r\n", "\n"), "\n")
	for i, l := range lines {
		for _, k := range []string{"PreSharedKey=", "ApnInfoPassword="} {
			if strings.HasPrefix(l, k) {
				lines[i] = k + "(secret)"
			}
		}
		lines[i] = printable(lines[i])
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
}

// TestParseIsLossless: nothing that is read is lost, whatever it is.
func TestParseIsLossless(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := books.Draw(t, "book")
		p, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var all []byte
		if p.Len() > 0 {
			all = append(all, text[:p.entries[0].start]...)
		} else {
			all = append(all, text...)
		}
		for _, e := range p.Entries() {
			all = append(all, text[e.span().start:e.span().body]...)
			for _, l := range e.lines(nil) {
				all = append(all, text[l.start:l.end]...)
			}
		}
		if !bytes.Equal(all, []byte(text)) {
			t.Fatalf("%q became %q", text, all)
		}
		Check(p)
	})
}

// TestBinaryListsRoundTrip: what is encoded is decoded again.
func TestBinaryListsRoundTrip(t *testing.T) {
	address := rapid.Custom(func(t *rapid.T) netip.Addr {
		if rapid.Bool().Draw(t, "v4") {
			return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "bytes")))
		}
		return netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes")))
	})
	name := rapid.StringMatching(`\.?[a-zäß日\x{1F600}]{1,20}(\.[a-z0-9-]{1,10}){0,3}`)
	rapid.Check(t, func(t *rapid.T) {
		routes := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Route {
			a := address.Draw(t, "address")
			return Route{netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits")), rapid.Bool().Draw(t, "exclude"), rapid.Uint32().Draw(t, "metric"), rapid.Uint32().Draw(t, "unknown")}
		}), 0, 20).Draw(t, "routes")
		roundTrip(t, routes, EncodeRoutes, DecodeRoutes)
		rules := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) NameRule {
			return NameRule{rapid.Uint32().Draw(t, "type"), name.Draw(t, "name"), rapid.SliceOfN(address, 0, 4).Draw(t, "servers"), [3]uint32{0, 0, rapid.Uint32().Draw(t, "unknown")}}
		}), 0, 10).Draw(t, "rules")
		roundTrip(t, rules, EncodeNameRules, DecodeNameRules)
		roundTrip(t, rapid.SliceOfN(name, 0, 5).Draw(t, "names"), EncodeNames, DecodeNames)
	})
}

func roundTrip[T any](t *rapid.T, list []T, encode func([]T) ([]byte, error), decode func([]byte) ([]T, error)) {
	b, err := encode(list)
	if err != nil {
		t.Fatal(err)
	}
	values := EncodeBinary(b)
	for i, v := range values {
		if i+1 < len(values) && len(v) != 128 || len(v) > 128 || strings.ToUpper(v) != v {
			t.Fatalf("line %d is %q", i, v)
		}
	}
	again, err := DecodeBinary(values)
	if err != nil || !bytes.Equal(again, b) {
		t.Fatal(err)
	}
	got, err := decode(again)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(list, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Fatalf("-want +got\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(windowsEntry("a", map[string]string{"NumCustomPolicy": "1", "CustomIPSecPolicies": "020000000400000003000000050000000200000000000000"}), "a", "VpnStrategy=14")
	f.Add("[a]\r\nVpnStrategy=7\n[a]]\n\r\n[b", "a", "Suite=none")
	f.Add("\xef\xbb\xbf[\xe4]\n=\n", "ä", "Routes=10.0.0.0/8")
	f.Add(strings.Join(odd, "\r\n"), "x", "Future=1")
	f.Fuzz(func(t *testing.T, text, name, set string) {
		p, err := Parse([]byte(text))
		if err != nil {
			return
		}
		Check(p)
		for _, e := range p.Entries() {
			e.Lines()
		}
		s, err := ParseSetting(set)
		if err != nil {
			return
		}
		e := Edit{Entries: []string{name}, Set: []Setting{s}}
		got, changes, err := p.Apply(e)
		if err != nil {
			return
		}
		if again, more, err := got.Apply(e); err != nil || again != got || len(more) > 0 {
			t.Errorf("a second time it changes %v, %v", more, err)
		}
		if got.Len() != p.Len() || (len(changes) == 0) != bytes.Equal(got.Bytes(), p.Bytes()) {
			t.Errorf("%d entries became %d, with %d changes", p.Len(), got.Len(), len(changes))
		}
		for i, e := range p.Entries() {
			if other := got.Entries()[i]; e.Name() != name && entryBytes(e) != entryBytes(other) && strings.TrimRight(entryBytes(other), "\r\n") != entryBytes(e) {
				t.Errorf("entry %q has changed", e.Name())
			}
		}
		Diff(p, got, "a", "b")
	})
}

func entryBytes(e Entry) string { return string(e.book.data[e.span().start:e.span().end]) }

func FuzzBinary(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0})
	for _, list := range [][]NameRule{{{Type: 2, Name: ".a.example", Servers: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}}, {{Type: 2, Name: "."}, {Type: 2, Name: ".b", Unknown: [3]uint32{1, 2, 3}}}} {
		if b, err := EncodeNameRules(list); err == nil {
			f.Add(b)
		}
	}
	b, err := EncodeRoutes([]Route{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Metric: 1}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(bytes.Repeat([]byte{'a', 0}, 256))
	f.Add([]byte("v\x002\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, err := DecodePolicies(b); err == nil && !bytes.Equal(EncodePolicies(list), b) {
			t.Error("policies")
		}
		again(t, b, DecodeRoutes, EncodeRoutes)
		again(t, b, DecodeNameRules, EncodeNameRules)
		if names, err := DecodeNames(b); err == nil {
			if c, err := EncodeNames(names); err == nil {
				if same, err := DecodeNames(c); err != nil || !slices.Equal(same, names) {
					t.Error("names", err)
				}
			}
		}
		if _, err := DecodeTrafficFilters(b); err != nil && errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
	})
}

// again requires that what can be decoded is encoded as it was, or not at all.
func again[T any](t *testing.T, b []byte, decode func([]byte) ([]T, error), encode func([]T) ([]byte, error)) {
	list, err := decode(b)
	if err != nil {
		return
	}
	if c, err := encode(list); err == nil && !bytes.Equal(b, c) {
		t.Errorf("%x became %x", b, c)
	}
}

// The phone book that is measured with: entries as Windows 11 writes them.
const crowdSize = 10_000

// TestOnly: what finds a key by a look at each line agrees with what makes a list
// of all lines first.
func TestOnly(t *testing.T) {
	keys := []string{"VpnStrategy", "Device", "Encoding", "NumRoutes", "Port", "MEDIA", "DEVICE", "Kſ", "_x", "x"}
	text := rapid.Custom(func(t *rapid.T) string {
		key := rapid.SampledFrom(append(keys, "NETCOMPONENTS", "vpnstrategy", "Media", "ſevice", "K")).Draw(t, "key")
		space := rapid.SampledFrom([]string{"", "", "", " ", "\t", "\x01"})
		return space.Draw(t, "before") + key + space.Draw(t, "behind") + rapid.SampledFrom([]string{"=", "=1", "", "=1=2", "= 1 "}).Draw(t, "value") + rapid.SampledFrom([]string{"\r\n", "\n", "\r\r\n", "\r\n\r\n"}).Draw(t, "end")
	})
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		all := "[a]\r\n" + strings.Join(rapid.SliceOf(text).Draw(t, "lines"), "")
		if rapid.Bool().Draw(t, "cut") {
			all = strings.TrimRight(all, "\r\n")
		}
		p, err := Parse([]byte(all))
		if err != nil {
			t.Fatal(err)
		}
		if p.Len() == 0 {
			return
		}
		g, key := Group(rapid.IntRange(0, int(anyGroup)).Draw(t, "group")), rapid.SampledFrom(keys).Draw(t, "wanted")
		e := p.Entries()[0]
		w := editor{book: p, lines: e.lines(nil)}
		want := w.lookUp(g, key, nil)
		l, ok := e.only(g, key)
		if !ok {
			return // it may always leave it to the other
		}
		found++
		if len(want) != 1 || w.lines[want[0]].start != l.start || w.lines[want[0]].eq != l.eq || w.lines[want[0]].stop != l.stop || w.lines[want[0]].end != l.end {
			t.Fatalf("%q in %v of %q is in the lines %v of %v, and was found at %v", key, g, all, want, w.lines, l)
		}
	})
	if found == 0 {
		t.Error("it never found anything")
	}
}

func BenchmarkEditOne(b *testing.B) {
	data := crowd(crowdSize)
	e := Edit{Entries: []string{"VPN 5000"}, Set: []Setting{IKEv2SSTP.Setting()}}
	benchmarkEdit(b, data, e)
}

func BenchmarkEditAll(b *testing.B) {
	data := crowd(crowdSize)
	benchmarkEdit(b, data, Edit{All: true, Set: []Setting{IKEv2SSTP.Setting()}})
}

func benchmarkEdit(b *testing.B, data []byte, e Edit) {
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		p, err := Parse(data)
		if err != nil {
			b.Fatal(err)
		}
		if _, changes, err := p.Apply(e); err != nil || len(changes) == 0 {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	p := mustParse(b, string(crowd(1000)))
	b.ReportAllocs()
	for b.Loop() {
		Check(p)
	}
}
