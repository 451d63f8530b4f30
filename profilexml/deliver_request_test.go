package profilexml

import (
	"strings"
	"testing"
)

func requests() map[string]*CertificateRequest {
	return map[string]*CertificateRequest{
		"gateway":    {For: Gateway, Names: []string{"vpn.example.com", "vpn2.example.com"}, Template: "VPNServers", Bits: 4096},
		"device":     {For: Device, Names: []string{"pc1.corp.example.com"}, Template: "VPN-Devices", TPM: true},
		"user":       {For: User, Names: []string{"jo.m_k@corp.example.com"}, Usages: []string{"1.3.6.1.4.1.311.21.8.1", clientAuthOID}},
		"controller": {For: DomainController, Names: []string{"dc1.corp.example.com", "corp.example.com"}, Template: "KerberosAuthentication"},
	}
}

// TestRequestRefuses: nothing that could end a line or a quotation gets into an
// INF file.
func TestRequestRefuses(t *testing.T) {
	long := strings.Repeat("a", 64)
	list := map[string]*CertificateRequest{
		"no name": {}, "empty name": {Names: []string{""}}, "nobody": {For: 9, Names: []string{"a"}}, "two users": {For: User, Names: []string{"a@b", "c@d"}},
		"no domain": {For: User, Names: []string{"a"}}, "no user": {For: User, Names: []string{"@a"}}, "two signs": {For: User, Names: []string{"a@b@c"}}, "label": {Names: []string{long}}, "hyphen": {Names: []string{"-a.b"}},
		"usage": {Names: []string{"a"}, Usages: []string{"1.2\nOID = 1.3"}}, "bits": {Names: []string{"a"}, Bits: 1024}, "many": {Names: make([]string, maxCertNames+1)}, "template": {Names: []string{"a"}, Template: long + "a"},
	}
	for _, s := range append([]string{"a\"b", "a%b%", "a&dns=b", "a\r\n[b]", "a b", "a;b"}, evil...) {
		list["name "+s] = &CertificateRequest{Names: []string{"a" + s}}
		list["user "+s] = &CertificateRequest{For: User, Names: []string{"a" + s + "@b"}}
		list["domain "+s] = &CertificateRequest{For: User, Names: []string{"a@b" + s}}
		list["template "+s] = &CertificateRequest{Names: []string{"a"}, Template: s}
	}
	for name, r := range list {
		if s, err := r.INF(); err == nil {
			t.Errorf("%q: %s", name, s)
		}
	}
	// A name that is too long for a subject is an alternative name alone.
	name := strings.Repeat("a", 40) + "." + strings.Repeat("b", 40)
	s, err := (&CertificateRequest{Names: []string{name}}).INF()
	if err != nil || strings.Contains(s, "Subject") || !strings.Contains(s, `"dns=`+name+`"`) {
		t.Error(s, err)
	}
	for h := range Holder(4) {
		if got, err := ParseHolder(h.String()); err != nil || got != h {
			t.Error(h, got, err)
		}
	}
	if _, err := ParseHolder("nps"); err == nil {
		t.Error("there is no holder nps here")
	}
}
