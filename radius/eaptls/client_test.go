package eaptls

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/radius"
)

const secret = "a secret of the test"

// certificate makes a self-signed one with many names, so that it is large.
func certificate(t testing.TB, names int) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nps.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	for range names {
		c.DNSNames = append(c.DNSNames, "a-rather-long-name-to-make-it-large.nps.example.com")
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func serve(t testing.TB, s *standin.CertServer) netip.AddrPort {
	t.Helper()
	conn, at, err := standin.Listen()
	if err != nil {
		t.Skip("no loopback:", err)
	}
	s.Secret = []byte(secret)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(ctx, conn) }) // it ends with ctx
	t.Cleanup(func() { cancel(); wg.Wait() })
	return at
}

func TestLook(t *testing.T) {
	small, large := certificate(t, 1), certificate(t, 150)
	for _, tt := range []struct {
		name   string
		server *standin.CertServer
		client Client
		wants  bool
		rounds int
	}{
		{"PEAP", &standin.CertServer{TLS: &tls.Config{Certificates: []tls.Certificate{small}}}, Client{}, false, 4},
		{"PEAP, small fragments", &standin.CertServer{Fragment: 90, TLS: &tls.Config{Certificates: []tls.Certificate{small}}}, Client{FramedMTU: 100}, false, 10},
		{"PEAP, 8 kB", &standin.CertServer{TLS: &tls.Config{Certificates: []tls.Certificate{large}}}, Client{}, false, 10},
		{"PEAP, TLS 1.3", &standin.CertServer{TLS: &tls.Config{Certificates: []tls.Certificate{large}}}, Client{MaxVersion: tls.VersionTLS13}, false, 10},
		{"EAP-TLS", &standin.CertServer{Method: 13, TLS: &tls.Config{Certificates: []tls.Certificate{small}, ClientAuth: tls.RequireAnyClientCert}}, Client{Method: TLS}, true, 3},
		{"EAP-TLS, TLS 1.3", &standin.CertServer{Method: 13, TLS: &tls.Config{Certificates: []tls.Certificate{small}, ClientAuth: tls.RequireAnyClientCert}}, Client{Method: TLS, MaxVersion: tls.VersionTLS13}, true, 3},
		{"asked for another method", &standin.CertServer{Method: 13, Also: 25, TLS: &tls.Config{Certificates: []tls.Certificate{small}}}, Client{}, false, 5},
		{"asked for TLS, begins with PEAP", &standin.CertServer{Method: 25, Also: 13, TLS: &tls.Config{Certificates: []tls.Certificate{small}, ClientAuth: tls.RequireAnyClientCert}}, Client{Method: TLS}, true, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			at := serve(t, tt.server)
			tt.client.Secret = radius.NewSecret([]byte(secret))
			r, err := tt.client.Look(t.Context(), at)
			if err != nil {
				t.Fatalf("%v; %+v", err, r)
			}
			if len(r.Chain) != 1 || r.Chain[0].Subject.CommonName != "nps.example.com" || !r.Proved || r.Version == 0 {
				t.Errorf("%+v", r)
			}
			if r.WantsCertificate != tt.wants || r.Rounds < tt.rounds {
				t.Errorf("wants a certificate %v, %d rounds", r.WantsCertificate, r.Rounds)
			}
		})
	}
}

func TestLookFails(t *testing.T) {
	cert := &tls.Config{Certificates: []tls.Certificate{certificate(t, 1)}}
	for _, tt := range []struct {
		name   string
		server *standin.CertServer
		client Client
		is     error
		says   string
	}{
		{"user refused", &standin.CertServer{TLS: cert, Users: map[string]bool{"probe": true}}, Client{User: "other"}, ErrRejected, `PEAP with Access-Reject "not today"`},
		{"method refused", &standin.CertServer{TLS: cert, Method: 13}, Client{}, ErrMethod, "PEAP"},
		{"other secret", &standin.CertServer{TLS: cert}, Client{Secret: radius.NewSecret([]byte("other"))}, radius.ErrNoAnswer, "secret is wrong"},
		{"bad MTU", &standin.CertServer{TLS: cert}, Client{FramedMTU: 50}, nil, "FramedMTU"},
		{"TLS fails", &standin.CertServer{TLS: &tls.Config{}}, Client{}, nil, "TLS"},
		{"long attribute", &standin.CertServer{TLS: cert}, Client{Attributes: []Attribute{{radius.CalledStationID, make([]byte, 300)}}}, nil, "longer than 253"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			at := serve(t, tt.server)
			if tt.client.Secret.IsZero() {
				tt.client.Secret = radius.NewSecret([]byte(secret))
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := tt.client.Look(ctx, at)
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q in it", err, tt.says)
			}
		})
	}
	if _, err := new(Client).Look(t.Context(), netip.AddrPort{}); err == nil {
		t.Error("without a secret")
	}
}

func TestAssembly(t *testing.T) {
	for _, tt := range []struct {
		name  string
		parts []string
		want  string // or
		err   error
	}{
		{"one", []string{"\x00abc"}, "abc", nil},
		{"one with its length", []string{"\x80\x00\x00\x00\x03abc"}, "abc", nil},
		{"two", []string{"\xc0\x00\x00\x00\x06abc", "\x00def"}, "abcdef", nil},
		{"length in each", []string{"\xc0\x00\x00\x00\x06abc", "\x80\x00\x00\x00\x06def"}, "abcdef", nil},
		{"PEAP version 1", []string{"\x01abc"}, "abc", nil},
		{"empty", []string{"\x00"}, "", nil},
		{"no flags", []string{""}, "", errFragment},
		{"length cut off", []string{"\x80\x00\x00"}, "", errFragment},
		{"too short", []string{"\x80\x00\x00\x00\x09abc"}, "", errFragment},
		{"too long", []string{"\x80\x00\x00\x00\x02abc"}, "", errFragment},
		{"two lengths", []string{"\xc0\x00\x00\x00\x06abc", "\x80\x00\x00\x00\x07def"}, "", errFragment},
		{"length only later", []string{"\x40abc", "\x80\x00\x00\x00\x06def"}, "", errFragment},
		{"huge", []string{"\xc0\x7f\xff\xff\xffabc"}, "", errTooLong},
		{"more of nothing", []string{"\x40"}, "", errFragment},
	} {
		var a assembly
		var whole bool
		var err error
		for _, p := range tt.parts {
			if whole, err = a.add([]byte(p)); err != nil {
				break
			}
		}
		if !errors.Is(err, tt.err) || err == nil && (!whole || string(a.b) != tt.want) {
			t.Errorf("%s: %q, whole %v, %v", tt.name, a.b, whole, err)
		}
	}
	var a assembly
	for range 1000 {
		if _, err := a.add(append([]byte{flagMore}, make([]byte, 1000)...)); err != nil {
			if !errors.Is(err, errTooLong) || len(a.b) > maxMessage {
				t.Error(err, len(a.b))
			}
			return
		}
	}
	t.Error("it grows without end")
}

// FuzzAssembly cuts b into requests as their first bytes say.
func FuzzAssembly(f *testing.F) {
	f.Add([]byte("\x05\xc0\x00\x00\x00\x06abc\x03\x00def"))
	f.Add([]byte("\x01\x40\x01\x40"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a assembly
		for len(b) > 0 {
			n := min(int(b[0]), len(b)-1)
			whole, err := a.add(b[1 : 1+n])
			if len(a.b) > maxMessage {
				t.Fatal("too long")
			}
			if whole || err != nil {
				break
			}
			b = b[1+n:]
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte{1, 2, 0, 6, 25, 0x20})
	f.Add([]byte{4, 2, 0, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, code, err := parseRequest(b)
		if err == nil && code == radius.EAPRequest && len(r.data) != len(b)-5 {
			t.Error(r)
		}
	})
}

// FuzzSplit: what is split is put together again.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("a message"), 7)
	f.Fuzz(func(t *testing.T, message []byte, most int) {
		if most < 6 || most > 5000 || len(message) > maxMessage {
			return
		}
		var a assembly
		for i, p := range split(message, 0, most) {
			if len(p) > most {
				t.Fatalf("part %d has %d bytes of %d", i, len(p), most)
			}
			whole, err := a.add(p)
			if err != nil {
				t.Fatal(err)
			}
			if whole && string(a.b) != string(message) {
				t.Fatal("another message")
			}
		}
	})
}
