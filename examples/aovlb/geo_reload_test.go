package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/plugins"
)

// geoSpec is a small section with files in dir.
func geoSpec(t *testing.T, dir string) *plugins.Geo {
	t.Helper()
	write(t, dir, "vpn.zone", "@ 300 SOA ns hostmaster 1 3600 600 86400 60\n@ 300 NS ns\nns 300 A 192.0.2.53\n")
	gw := func(a string) []plugins.GeoGateway {
		return []plugins.GeoGateway{{Name: "ras1", Addresses: []netip.Addr{netip.MustParseAddr(a)}}}
	}
	return &plugins.Geo{
		Databases: []string{filepath.Join(dir, "city.mmdb")},
		Zones:     []plugins.GeoZone{{Origin: "vpn.example.com", File: filepath.Join(dir, "vpn.zone")}},
		Sites: []plugins.GeoSite{
			{Name: "berlin", GeoPlace: plugins.GeoPlace{Country: "DE"}, Gateways: gw("198.51.100.1")},
			{Name: "london", GeoPlace: plugins.GeoPlace{Country: "GB"}, Gateways: gw("198.51.100.11")},
		},
		Names: []plugins.GeoName{{Name: "gw.vpn.example.com", Order: []string{"country"}, Method: "first"}},
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serving returns a geoServer that has taken in a section.
func serving(t *testing.T, spec *plugins.Geo) *geoServer {
	t.Helper()
	g := newGeoServer(slog.New(slog.DiscardHandler), "", nil)
	t.Cleanup(g.end)
	b, err := g.build(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.apply(b); err != nil {
		t.Fatal(err)
	}
	return g
}

// TestDatabaseOfARefusedFile: a new database that was read for a file that was then
// refused is used all the same.
func TestDatabaseOfARefusedFile(t *testing.T) {
	dir := t.TempDir()
	spec := geoSpec(t, dir)
	g := serving(t, spec) // without a database, which isn't there yet
	site := func() string {
		a := netip.MustParseAddr("81.2.69.142")
		e, err := g.explain("gw.vpn.example.com", geo.Client{Addr: a, Resolver: a})
		if err != nil {
			t.Fatal(err)
		}
		return e.Tiers[0][0].Name
	}
	if got := site(); got != "berlin" {
		t.Fatalf("a client nowhere gets %s", got)
	}
	db, err := os.ReadFile("../../geo/mmdb/testdata/small.mmdb")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "city.mmdb", string(db))
	bad := *spec
	bad.Networks = []plugins.GeoNetwork{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}, {Prefix: netip.MustParsePrefix("10.0.0.0/8")}}
	if _, err := g.build(t.Context(), &bad); err == nil {
		t.Fatal("a network that is there twice was taken")
	}
	g.look(t.Context())
	if got := site(); got != "london" {
		t.Errorf("a client in London gets %s: the new database is not used", got)
	}
	write(t, dir, "city.mmdb", "damaged")
	b, err := g.build(t.Context(), spec)
	if err != nil || len(b.warnings) != 1 || !strings.Contains(b.warnings[0].String(), "the one before stays in use") {
		t.Errorf("a damaged database: %v, %v", err, b)
	}
}

// TestZoneThatHasAName: what is wrong between zones, names and sites is found before
// anything is changed, and told with its place.
func TestZoneThatHasAName(t *testing.T) {
	dir := t.TempDir()
	spec := geoSpec(t, dir)
	g := serving(t, spec)
	write(t, dir, "vpn.zone", "@ 300 SOA ns hostmaster 1 3600 600 86400 60\n@ 300 NS ns\nns 300 A 192.0.2.53\ngw 300 A 192.0.2.99\n")
	_, err := g.build(t.Context(), spec)
	var field *plugins.FieldError
	if !errors.As(err, &field) || field.Path != "geo.zones" || !strings.Contains(err.Error(), "leave them to the sites") {
		t.Errorf("got %v", err)
	}
}

// TestReloadTakesTheCertificate: a reload reads the certificate of DNS over TLS.
func TestReloadTakesTheCertificate(t *testing.T) {
	dir := t.TempDir()
	spec := geoSpec(t, dir)
	spec.TLS = &plugins.GeoTLS{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, CertificateFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"),
	}
	one := newCertificate(t, dir)
	g := serving(t, spec)
	s, err := g.listen(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	done := make(chan error, 1)
	go func() { done <- g.dns.ServeStream(t.Context(), s.streams...) }()
	defer func() { s.close(); <-done }()
	served := func() string {
		c, err := tls.Dial("tcp", s.streams[0].Addr().String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // only what is served counts
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	if got := served(); got != one {
		t.Fatalf("certificate %s is served, not %s", got, one)
	}
	two := newCertificate(t, dir)
	b, err := g.build(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.apply(b); err != nil {
		t.Fatal(err)
	}
	if got := served(); got != two {
		t.Errorf("after a reload certificate %s is served, not %s", got, two)
	}
	write(t, dir, "key.pem", "no key")
	if _, err := g.build(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "geo.tls.certificate_file") {
		t.Errorf("a key that is none: %v", err)
	}
}

// newCertificate writes a certificate and its key to dir, and returns its number.
func newCertificate(t *testing.T, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	return c.SerialNumber.String()
}

// TestReloadLosesNoQuery: a name whose settings change is answered at once.
func TestReloadLosesNoQuery(t *testing.T) {
	spec := geoSpec(t, t.TempDir())
	g := serving(t, spec)
	g.began = time.Now().Add(-geoPatience - time.Second) // long enough ago
	g.refresh()
	next := *spec
	next.Names = []plugins.GeoName{{Name: "gw.vpn.example.com", Order: []string{"country"}, Method: "first", TTL: plugins.Duration(time.Minute)}}
	b, err := g.build(t.Context(), &next)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.apply(b); err != nil {
		t.Fatal(err)
	}
	if n := g.setting.Load().names[0].dns; n.TTL != time.Minute || n.Selector() == nil {
		t.Error("after a reload the name is answered with SERVFAIL until something happens")
	}
}
