package profilexml

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"pgregory.net/rapid"
)

// drawProfile draws a profile by walking the content table, so that an element
// that is added there is drawn too.
func drawProfile(t *rapid.T) *Profile {
	p := new(Profile)
	drawGroup(t, contentTable, reflect.ValueOf(p).Elem())
	return p
}

func drawGroup(t *rapid.T, e *Element, v reflect.Value) {
	for _, c := range e.Children {
		f := fieldOf(v, c.Name)
		if f.IsValid() && (c.Required || rapid.IntRange(0, 2).Draw(t, c.Name) == 0) {
			drawElement(t, c, f)
		}
	}
}

func drawElement(t *rapid.T, e *Element, v reflect.Value) {
	switch {
	case e.Name == "Eap":
		v.Set(reflect.ValueOf(drawEAP(t)))
	case e.Repeats:
		for range rapid.IntRange(1, 3).Draw(t, "number of "+e.Name) {
			item := reflect.New(v.Type().Elem()).Elem()
			drawGroup(t, e, item)
			v.Set(reflect.Append(v, item))
		}
	case e.Type == List:
		for range rapid.IntRange(1, 3).Draw(t, "items of "+e.Name) {
			item := reflect.New(v.Type().Elem()).Elem()
			drawValue(t, e, item)
			v.Set(reflect.Append(v, item))
		}
	default:
		if v.Kind() == reflect.Pointer {
			v.Set(reflect.New(v.Type().Elem()))
			v = v.Elem()
		}
		if e.Type == Group {
			drawGroup(t, e, v)
			return
		}
		drawValue(t, e, v)
	}
}

func drawValue(t *rapid.T, e *Element, v reflect.Value) {
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.AddrFrom4([4]byte{10, rapid.Byte().Draw(t, "a"), rapid.Byte().Draw(t, "b"), 0})))
		return
	case Server:
		v.Set(reflect.ValueOf(Server{drawName(t), rapid.SampledFrom([]string{"", "VPN & more", "вот"}).Draw(t, "name")}))
		return
	}
	switch {
	case e.Type == Boolean:
		v.SetBool(rapid.Bool().Draw(t, e.Name))
	case e.Type == Number:
		v.SetUint(rapid.Uint64Range(e.Least, min(e.Most, 1<<32-1)).Draw(t, e.Name))
	case e.Type == Enumeration:
		v.SetString(rapid.SampledFrom(e.Values).Draw(t, e.Name))
	default:
		v.SetString(drawText(t, e.Separator))
	}
}

func drawName(t *rapid.T) string {
	return rapid.StringMatching(`[a-z][a-z0-9]{0,8}(\.[a-z]{2,5}){0,2}`).Draw(t, "host")
}

// drawText draws text that XML must escape, without what would be trimmed.
func drawText(t *rapid.T, separator string) string {
	s := rapid.StringMatching(`[a-z<>&"'.é中0-9]{1,12}`).Draw(t, "text")
	if separator != "" {
		s = strings.ReplaceAll(s, separator, "x")
	}
	return s
}

func drawThumbprint(t *rapid.T) (p Thumbprint) {
	copy(p[:], rapid.SliceOfN(rapid.Byte(), 20, 20).Draw(t, "thumbprint"))
	return p
}

func drawEAP(t *rapid.T) *EAP {
	e := &EAP{
		Method:            EAPMethod(rapid.IntRange(0, 2).Draw(t, "method")),
		ServerNames:       []string{drawName(t)},
		TrustedRoots:      []Thumbprint{drawThumbprint(t)},
		PromptUser:        rapid.Bool().Draw(t, "prompt"),
		DifferentUsername: rapid.Bool().Draw(t, "different"),
	}
	if e.Method != EAPTLS {
		e.NoFastReconnect = rapid.Bool().Draw(t, "slow")
		e.NoCryptoBinding = rapid.Bool().Draw(t, "unbound")
	}
	if e.Method == PEAPMSCHAPv2 {
		e.UseWinlogon, e.DifferentUsername = rapid.Bool().Draw(t, "winlogon"), false
		return e
	}
	e.SmartCard = rapid.Bool().Draw(t, "card")
	if rapid.Bool().Draw(t, "filter") {
		e.Certificate.Issuers = []Thumbprint{drawThumbprint(t)}
		e.Certificate.EKUs = []EKU{{"VPN & Co", "1.3.6.1.5.5.7.3.2"}, ConditionalAccessEKU()}
		e.Certificate.AllPurpose = rapid.Bool().Draw(t, "all purpose")
	}
	return e
}

// oddities are what people, scripts and editors do to profiles.
var oddities = []func(t *rapid.T, s string) string{
	func(_ *rapid.T, s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
	func(_ *rapid.T, s string) string { return strings.Replace(s, "<AlwaysOn>true", "<AlwaysOn>True", 1) },
	func(_ *rapid.T, s string) string { return strings.ReplaceAll(s, ",", ", ") },
	func(_ *rapid.T, s string) string { return strings.Replace(s, "<Route>", "<!-- a & b --><Route>", 1) },
	func(_ *rapid.T, s string) string {
		return strings.Replace(s, "</Route>", "</Route> <!-- behind -->", 1)
	},
	func(_ *rapid.T, s string) string { return strings.Replace(s, "<Route>", "<route a='1' >", 1) },
	func(_ *rapid.T, s string) string { return strings.ReplaceAll(s, "PrefixSize", "Prefix") },
	func(_ *rapid.T, s string) string {
		return strings.Replace(s, "<Metric>", "<Unknown><Deep/>text</Unknown><Metric>", 1)
	},
	func(_ *rapid.T, s string) string { return `<?xml version="1.0" encoding="utf-16"?>` + "\n" + s },
	func(_ *rapid.T, s string) string {
		return strings.Replace(s, "<DnsServers>", "<DnsServers><![CDATA[1.2.3.4]]>,", 1)
	},
	func(_ *rapid.T, s string) string { return strings.ReplaceAll(s, "Authentication>", "authentication>") },
	func(_ *rapid.T, s string) string { return strings.ReplaceAll(s, "> <", "><") },
	func(_ *rapid.T, s string) string {
		return strings.Replace(s, "<VPNProfile>", "<VPNProfile xmlns:i='http://example.com/i'>", 1)
	},
	func(_ *rapid.T, s string) string {
		return strings.Replace(s, "</VPNProfile>", ">\n</VPNProfile>\n<!-- end -->", 1)
	},
	func(_ *rapid.T, s string) string {
		return strings.ReplaceAll(s, "http://www.microsoft.com", "https://www.microsoft.com")
	},
	func(_ *rapid.T, s string) string {
		return strings.Replace(s, "</NativeProfile>", "<AlwaysOn/></NativeProfile>", 1)
	},
	shuffleLines,
}

// shuffleLines moves an element of one line somewhere else.
func shuffleLines(t *rapid.T, s string) string {
	lines := strings.Split(s, "\n")
	if len(lines) < 5 {
		return s
	}
	from := rapid.IntRange(1, len(lines)-3).Draw(t, "from")
	to := rapid.IntRange(1, len(lines)-3).Draw(t, "to")
	line := lines[from]
	if !strings.Contains(line, "</") || !strings.Contains(line, "<") || strings.HasPrefix(strings.TrimSpace(line), "</") {
		return s
	}
	return strings.Join(slices.Insert(slices.Delete(slices.Clone(lines), from, from+1), to, line), "\n")
}

// drawFile draws a file as it may come: a profile with oddities, in some
// encoding.
func drawFile(t *rapid.T) []byte {
	d, err := drawProfile(t).Document(Order(rapid.IntRange(0, 1).Draw(t, "order")))
	if err != nil {
		t.Fatalf("a drawn profile can't be written: %v", err)
	}
	text := Format(d, Style{Order: OrderKeep, Indent: rapid.SampledFrom([]string{"", " ", "\t"}).Draw(t, "indent")}).Text
	for range rapid.IntRange(0, 4).Draw(t, "oddities") {
		i := rapid.IntRange(0, len(oddities)-1).Draw(t, "oddity")
		odd := oddities[i](t, text)
		if _, err := ParseString(odd); err == nil {
			text = odd
		}
	}
	e := Encoding(rapid.IntRange(0, 5).Draw(t, "encoding"))
	return appendEncoded([]byte(e.mark()), text, e)
}

// drawChecker draws whom a profile is for.
func drawChecker(t *rapid.T) *Checker {
	return &Checker{
		Windows: rapid.SampledFrom([]Windows{0, Windows10v1809, Windows11v21H2}).Draw(t, "windows"),
		Channel: Channel(rapid.IntRange(0, 1).Draw(t, "channel")),
		Scope:   Scope(rapid.IntRange(0, 2).Draw(t, "scope")),
		Name:    fmt.Sprint("profile ", rapid.IntRange(0, 9).Draw(t, "name")),
	}
}
