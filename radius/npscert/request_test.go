package npscert

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
)

func TestINF(t *testing.T) {
	r := &Request{Cluster: cluster, Hosts: []string{"nps1.corp.example"}, More: []string{"radius.corp.example", "NPS.corp.example"}, Bits: 3072}
	b, err := r.INF()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"[Version]\r\nSignature = \"$Windows NT$\"\r\n", "Subject = \"CN=nps.corp.example\"\r\n", "KeyLength = 3072\r\n", "HashAlgorithm = SHA256\r\n",
		"OID = 1.3.6.1.5.5.7.3.1\r\n", "MachineKeySet = TRUE\r\n", "FriendlyName = \"NPS nps.corp.example\"\r\n",
		"_continue_ = \"dns=nps.corp.example&\"\r\n_continue_ = \"dns=nps1.corp.example&\"\r\n_continue_ = \"dns=radius.corp.example\"\r\n",
		"CertificateTemplate = \"AovlbNPS\"\r\n",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("without %q:\n%s", want, b)
		}
	}
}

func TestPKCS10(t *testing.T) {
	r := &Request{Cluster: cluster, Hosts: []string{"nps1.corp.example"}}
	csr, key, err := r.PKCS10()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(csr)
	got, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.CheckSignature(); err != nil {
		t.Error(err)
	}
	if got.Subject.CommonName != cluster || !slices.Equal(got.DNSNames, []string{cluster, "nps1.corp.example"}) || got.SignatureAlgorithm != x509.SHA256WithRSA {
		t.Errorf("%v %v %v", got.Subject, got.DNSNames, got.SignatureAlgorithm)
	}
	found := false
	for _, e := range got.Extensions {
		found = found || e.Id.Equal(oidEKU) && bytes.Contains(e.Value, []byte{0x2b, 6, 1, 5, 5, 7, 3, 1})
	}
	if !found {
		t.Error("it isn't for server authentication")
	}
	kb, _ := pem.Decode(key)
	k, err := x509.ParsePKCS8PrivateKey(kb.Bytes)
	if err != nil || k.(*rsa.PrivateKey).N.BitLen() != 2048 || !k.(*rsa.PrivateKey).PublicKey.Equal(got.PublicKey) {
		t.Errorf("key: %v", err)
	}
}

// bad are names that could end what they are put into.
var bad = []string{
	`a"b`, "a'b", "a’b", "a\nb", "a\r\nSubject = x", "a;b", "a`b", "a$(calc)b", "a%x%b", "a&dns=b", "a,CN=b", "a b", "", "-a", "a-", "a..b",
	".a", "a.", strings.Repeat("a", 64), strings.Repeat("a.", 130), "ä", "*.a", "a\x00b", "[a]", "@(1)", "#", "a_b",
}

func TestNamesAreChecked(t *testing.T) {
	for _, s := range bad {
		for what, r := range map[string]*Request{
			"cluster": {Cluster: s, Hosts: []string{"a"}},
			"host":    {Cluster: "a", Hosts: []string{s}},
			"more":    {Cluster: "a", Hosts: []string{"a"}, More: []string{s}},
		} {
			if _, err := r.INF(); err == nil {
				t.Errorf("INF: %s %q is taken", what, s)
			}
			if _, err := r.PowerShell(); err == nil {
				t.Errorf("PowerShell: %s %q is taken", what, s)
			}
			if _, _, err := r.PKCS10(); err == nil {
				t.Errorf("PKCS #10: %s %q is taken", what, s)
			}
		}
		if s == "" || s == "a_b" || s == "a-" || s == "-a" {
			continue // an empty one is the default; templates are freer
		}
		if _, err := (&Template{Name: s, Group: "g"}).PowerShell(); err == nil && s != strings.Repeat("a", 64) {
			t.Errorf("template %q is taken", s)
		}
	}
	for _, r := range []*Request{{Cluster: "a"}, {Cluster: "a", Hosts: []string{"a", "b"}}, {Cluster: "a", Hosts: []string{"a"}, Bits: 1024}} {
		if _, err := r.INF(); err == nil {
			t.Errorf("%+v is taken", r)
		}
	}
	if _, err := (&Template{}).PowerShell(); err == nil {
		t.Error("anybody may enroll")
	}
	if _, err := (&Template{Group: "g", Bits: 512}).PowerShell(); err == nil {
		t.Error("512 bits")
	}
}

// unquote reads an expression that powershell made, as PowerShell would.
func unquote(s string) (string, bool) {
	if strings.HasPrefix(s, "(") && strings.HasSuffix(s, ")") {
		s = s[1 : len(s)-1]
	}
	literal := regexp.MustCompile(`^'((?:[^']|'')*)'`)
	char := regexp.MustCompile(`^\[string\]\[char\]0x([0-9A-F]{4})`)
	var units []uint16
	for {
		if m := literal.FindStringSubmatch(s); m != nil {
			units = append(units, utf16.Encode([]rune(strings.ReplaceAll(m[1], "''", "'")))...)
			s = s[len(m[0]):]
		} else if m := char.FindStringSubmatch(s); m != nil {
			n, _ := strconv.ParseUint(m[1], 16, 16)
			units = append(units, uint16(n))
			s = s[len(m[0]):]
		} else {
			return "", false
		}
		if s == "" {
			return string(utf16.Decode(units)), true
		}
		if !strings.HasPrefix(s, " + ") {
			return "", false
		}
		s = s[3:]
	}
}

// FuzzScripts puts any text into the fields that take some, and sees to it that a
// script differs in that one value alone, and holds just that text.
func FuzzScripts(f *testing.F) {
	for _, s := range bad {
		f.Add(s)
	}
	f.Add("NPS-Server der Zentrale ‘Köln’")
	f.Add("'; Remove-Item -Recurse C:\\; '")
	f.Add("\U0001F600")
	plain, err := (&Template{Group: "G", DisplayName: "D"}).PowerShell()
	if err != nil {
		f.Fatal(err)
	}
	lines := strings.Split(string(plain), "\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := (&Template{Group: s, DisplayName: "D"}).PowerShell()
		if err != nil {
			return
		}
		for _, c := range got {
			if c > 0x7e || c < ' ' && c != '\r' && c != '\n' {
				t.Fatalf("%q isn't plain ASCII", got)
			}
		}
		now := strings.Split(string(got), "\r\n")
		if len(now) != len(lines) {
			t.Fatalf("%d lines, want %d", len(now), len(lines))
		}
		for i, l := range now {
			if !strings.HasPrefix(lines[i], "$group ") {
				if l != lines[i] {
					t.Fatalf("line %d is %q", i, l)
				}
				continue
			}
			value, ok := unquote(strings.TrimPrefix(l, "$group   = "))
			if !ok || value != s {
				t.Fatalf("%q is read as %q, %v", s, value, ok)
			}
		}
		r := &Request{Cluster: "a", Hosts: []string{"b"}, FriendlyName: s}
		if inf, err := r.INF(); err == nil && s != "" {
			if n := strings.Count(string(inf), "\n"); n != 32 || !strings.Contains(string(inf), "\nFriendlyName = \""+s+"\"\r\n") {
				t.Fatalf("%d lines: %s", n, inf)
			}
		}
	})
}

func TestPowerShell(t *testing.T) {
	r := &Request{Cluster: cluster, Hosts: []string{"nps1.corp.example", "nps2.corp.example"}, FriendlyName: "NPS ‘Köln’'s"}
	b, err := r.PowerShell()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"$cluster  = 'nps.corp.example'\r\n", "$servers  = @('nps1.corp.example', 'nps2.corp.example')\r\n", "$more     = @()\r\n",
		"$friendly = ('NPS ' + [string][char]0x2018 + 'K' + [string][char]0x00F6 + 'ln' + [string][char]0x2019 + '''s')\r\n",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("without %q:\n%s", want, b)
		}
	}
	if strings.Contains(string(b), "%!") {
		t.Errorf("formatted wrongly:\n%s", b)
	}
	b, err = (&Template{Group: "NPS servers", NoApproval: true}).PowerShell()
	if err != nil || strings.Contains(string(b), "%!") || !strings.Contains(string(b), "$flags   = 0 ") {
		t.Errorf("%v\n%s", err, b)
	}
}
