package builtin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// TestLoadTLS: the files that a listener's tls names are read, and what is wrong
// with one is said at its place.
func TestLoadTLS(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "corp"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign, SubjectKeyId: []byte{1},
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}, ca, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	crlDER := write("crl.der", list)
	one := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list})
	crlPEM := write("crl.pem", append(append([]byte("two lists\n"), one...), one...))
	bad := write("bad", []byte("nothing of use"))

	for _, tt := range []struct {
		name string
		tls  plugins.TLS
		crls int
		says string
	}{
		{"none", plugins.TLS{Mode: plugins.TLSOffload}, 0, ""},
		{"a CRL in DER", plugins.TLS{Mode: plugins.TLSOffload, Clients: plugins.ClientTLS{CAFile: roots, CRLFile: crlDER}}, 1, ""},
		{"two in PEM", plugins.TLS{Mode: plugins.TLSReencrypt, Gateway: plugins.GatewayTLS{CAFile: roots}, Clients: plugins.ClientTLS{CAFile: roots, CRLFile: crlPEM}}, 2, ""},
		{"no such file", plugins.TLS{Mode: plugins.TLSReencrypt, Gateway: plugins.GatewayTLS{CAFile: roots + "x"}}, 0, "here.gateway.ca_file"},
		{"no CA in it", plugins.TLS{Mode: plugins.TLSOffload, Clients: plugins.ClientTLS{CAFile: bad}}, 0, "here.clients.ca_file"},
		{"no CRL in it", plugins.TLS{Mode: plugins.TLSOffload, Clients: plugins.ClientTLS{CAFile: roots, CRLFile: bad}}, 0, "here.clients.crl_file"},
		{"a pin", plugins.TLS{Mode: plugins.TLSReencrypt, Gateway: plugins.GatewayTLS{Pins: []string{"x"}}}, 0, "here.gateway.pins[0]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := loadTLS(&plugins.Listener{Protocol: plugins.ProtocolSSTP, TLS: tt.tls}, "here")
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%v, want %s", err, tt.says)
				}
				return
			}
			if err != nil || len(got.crls) != tt.crls || (got.clientCAs != nil) != (tt.tls.Clients.CAFile != "") || (got.gatewayCAs != nil) != (tt.tls.Gateway.CAFile != "") {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	if got, err := loadTLS(&plugins.Listener{Protocol: plugins.ProtocolSSTP}, "here"); got != nil || err != nil {
		t.Errorf("passed through: %+v, %v", got, err)
	}

	// A file that changes is something else, one that doesn't isn't.
	spec := &plugins.Listener{Protocol: plugins.ProtocolSSTP, TLS: plugins.TLS{Mode: plugins.TLSOffload, Clients: plugins.ClientTLS{CAFile: roots, CRLFile: crlDER}}}
	first, err1 := loadTLS(spec, "here")
	same, err2 := loadTLS(spec, "here")
	write("crl.der", one)
	other, err3 := loadTLS(spec, "here")
	if err1 != nil || err2 != nil || err3 != nil || !first.equal(same) || first.equal(other) || first.equal(nil) {
		t.Errorf("%v, %v, %v: %v %v", err1, err2, err3, first.equal(same), first.equal(other))
	}
}

// Clients that are passed unopened can't be asked for a certificate: this driver
// refuses that, and leaves it to others that end their TLS.
func TestUnopenedWithCertificates(t *testing.T) {
	for _, optional := range []bool{false, true} {
		l := plugins.Listener{TLS: plugins.TLS{
			Mode: plugins.TLSOffload, PassNull: true, Clients: plugins.ClientTLS{CAFile: "/ca.pem", Optional: optional},
		}}
		list := adviseTLS(&plugins.Group{Listeners: []plugins.Listener{{}, l}}, "sites[0].groups[1]")
		if optional {
			if len(list) > 0 {
				t.Errorf("optional certificates: %v", list)
			}
			continue
		}
		if !plugins.HasError(list) || list[0].Path != "sites[0].groups[1].listeners[1].tls.pass_null" {
			t.Errorf("certificates that are needed: %v", list)
		}
	}
}
