package sstp

import (
	"crypto/tls"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func shown(t *testing.T, k *Keyring, gateway string) Fingerprint {
	t.Helper()
	c, err := k.Leaf(gateway, &tls.ClientHelloInfo{})
	if err != nil {
		if !errors.Is(err, ErrNoLeaf) {
			t.Errorf("%s: %v isn't ErrNoLeaf", gateway, err)
		}
		return Fingerprint{}
	}
	return FingerprintOf(c.Certificate[0])
}

func TestKeyring(t *testing.T) {
	certs := twoCertificates(t)
	old, next := certs[0].SHA256(), certs[1].SHA256()
	k := &Keyring{Trusting: true}
	if got := shown(t, k, "ras1"); !got.IsZero() {
		t.Errorf("an empty ring shows %v", got)
	}
	for _, c := range certs {
		if _, err := k.Hold(c); err != nil {
			t.Fatal(err)
		}
	}
	step := func(what string, f func(), ras1, ras2, web Fingerprint) {
		t.Helper()
		f()
		got := []Fingerprint{shown(t, k, "ras1"), shown(t, k, "ras2"), shown(t, k, "")}
		if d := cmp.Diff([]Fingerprint{ras1, ras2, web}, got); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	none := Fingerprint{}
	step("the first one held", func() {}, old, old, old)
	step("one is being changed", func() { k.Withhold("ras1", "") }, none, old, old)
	step("it is changed", func() { k.Expect("ras1", next) }, next, old, old)
	step("the other has a hash of its own", func() { k.Expect("ras2", Fingerprint{7}) }, next, none, old)
	step("the other is put right", func() { k.Expect("ras2", old) }, next, old, old)
	step("the new one is the usual one", func() {
		if err := k.SetCurrent(next); err != nil {
			t.Fatal(err)
		}
	}, next, old, next)
	if err := k.Release(old); err == nil || !strings.Contains(err.Error(), "ras2 still expects") {
		t.Errorf("a leaf that is needed is released: %v", err)
	}
	if err := k.Release(next); err == nil {
		t.Error("the current leaf is released")
	}
	step("the other follows", func() { k.Expect("ras2", next) }, next, next, next)
	if err := k.Release(old); err != nil {
		t.Error(err)
	}
	if k.Standing(old) != StandingPast || k.Standing(next) != StandingHeld || k.Standing(Fingerprint{9}) != StandingUnknown {
		t.Error("the hashes are forgotten")
	}
	if err := k.SetCurrent(old); err == nil {
		t.Error("a leaf that isn't held becomes the current one")
	}
	k.Trusting = false
	step("nobody is trusted", func() { k.Forget("ras2") }, next, none, next)
	s := k.Status()
	if s.Current != next || len(s.Leaves) != 1 || s.Leaves[0].Served == 0 || len(s.Gateways) != 1 || s.Gateways[0].Refused != 1 || len(s.Past) != 1 {
		t.Errorf("got %+v", s)
	}
}

func TestKeyringHolds(t *testing.T) {
	certs := twoCertificates(t)
	k := new(Keyring)
	for _, tt := range []struct {
		name string
		cert *Certificate
	}{
		{"nothing", nil},
		{"no key", &Certificate{Leaf: certs[0].Leaf}},
		{"another's key", &Certificate{Leaf: certs[0].Leaf, Key: certs[1].Key}},
	} {
		if _, err := k.Hold(tt.cert); err == nil {
			t.Errorf("%s is held", tt.name)
		}
	}
}

func TestKeyringChallenge(t *testing.T) {
	certs := twoCertificates(t)
	challenge := certs[1].TLS()
	k := &Keyring{Challenge: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &challenge, nil }}
	if _, err := k.Hold(certs[0]); err != nil {
		t.Fatal(err)
	}
	for protos, want := range map[string]Fingerprint{
		"acme-tls/1": certs[1].SHA256(), "http/1.1,acme-tls/1": certs[0].SHA256(), "h2,http/1.1": certs[0].SHA256(), "": certs[0].SHA256(),
	} {
		c, err := k.Leaf("", &tls.ClientHelloInfo{SupportedProtos: strings.Split(protos, ",")})
		if err != nil || FingerprintOf(c.Certificate[0]) != want {
			t.Errorf("%q: got another certificate, %v", protos, err)
		}
	}
}

// TestKeyringNoAllocs: every handshake asks.
func TestKeyringNoAllocs(t *testing.T) {
	certs := twoCertificates(t)
	k := &Keyring{Trusting: true}
	if _, err := k.Hold(certs[0]); err != nil {
		t.Fatal(err)
	}
	k.Expect("ras1", certs[0].SHA256())
	k.Withhold("ras2", "")
	hello := &tls.ClientHelloInfo{SupportedProtos: []string{"http/1.1"}}
	for _, gateway := range []string{"ras1", "ras2", "ras3", ""} {
		if n := testing.AllocsPerRun(100, func() { _, _ = k.Leaf(gateway, hello) }); n != 0 {
			t.Errorf("%q: %v allocations", gateway, n)
		}
	}
}

func TestKeyringConcurrency(t *testing.T) {
	certs := twoCertificates(t)
	k := &Keyring{Trusting: true}
	for _, c := range certs {
		if _, err := k.Hold(c); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = k.Leaf("ras1", nil)
					k.Status()
				}
			}
		})
	}
	for i := range 500 {
		k.Withhold("ras1", "")
		k.Expect("ras1", certs[i%2].SHA256())
		_ = k.SetCurrent(certs[i%2].SHA256())
	}
	close(stop)
	wg.Wait()
}

func BenchmarkKeyringLeaf(b *testing.B) {
	certs := twoCertificates(b)
	k := new(Keyring)
	if _, err := k.Hold(certs[0]); err != nil {
		b.Fatal(err)
	}
	k.Expect("ras1", certs[0].SHA256())
	hello := &tls.ClientHelloInfo{SupportedProtos: []string{"http/1.1"}}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = k.Leaf("ras1", hello)
	}
}

func TestKeyStore(t *testing.T) {
	certs := twoCertificates(t)
	s := &KeyStore{Dir: filepath.Join(t.TempDir(), "ring")}
	if state, list, err := s.Load(); err != nil || len(list) != 0 || state.Renewal != nil {
		t.Fatalf("an empty store: %v, %v, %v", state, list, err)
	}
	k := &Keyring{}
	for _, c := range certs {
		if err := s.Keep(c); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Hold(c); err != nil {
			t.Fatal(err)
		}
	}
	k.Expect("ras1", certs[1].SHA256())
	k.Withhold("ras2", "so it is")
	state := k.State()
	var err error
	if state.Renewal, err = NewRenewal(k, certs[1].SHA256(), []string{"ras1", "ras2"}, k.held[certs[1].SHA256()].since.UTC().Round(0)); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(state); err != nil {
		t.Fatal(err)
	}
	got, list, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(state, got); d != "" || len(list) != 2 {
		t.Errorf("%d certificates, %s", len(list), d)
	}
	again := &Keyring{Trusting: true}
	for _, c := range list {
		if _, err := again.Hold(c); err != nil {
			t.Fatal(err)
		}
	}
	again.Restore(got)
	if shown(t, again, "ras1") != certs[1].SHA256() || !shown(t, again, "ras2").IsZero() || shown(t, again, "") != certs[0].SHA256() {
		t.Error("the ring is another")
	}
	files, err := os.ReadDir(s.Dir)
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
	if err := s.Drop(certs[0].SHA256()); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, ringFile), []byte(`{"version":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Load(); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("got %v", err)
	}
}

func FuzzParseRing(f *testing.F) {
	f.Add([]byte(`{"version":1,"current":"` + strings.Repeat("0a", 32) + `","gateways":{"a":{"expects":""}},"renewal":{"to":"` + strings.Repeat("0a", 32) + `","began":"2026-11-21T12:00:00Z","gateways":[{"gateway":"a","from":"","phase":"setting"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseRing(b)
		if err != nil {
			return
		}
		new(Keyring).Restore(s)
		if s.Renewal != nil && s.Renewal.Next() == nil && !s.Renewal.Done() {
			t.Fatal("a renewal with nothing to do that isn't done")
		}
	})
}

func TestHashChange(t *testing.T) {
	f, err := ParseFingerprint(goldenHash)
	if err != nil {
		t.Fatal(err)
	}
	old := FingerprintSHA1Of([]byte("x"))
	for name, text := range map[string][]byte{
		"offload.reg":   (&HashChange{SHA256: f, PlainHTTP: true}).Reg(),
		"both.reg":      (&HashChange{SHA256: f, SHA1: old}).Reg(),
		"one.ps1":       []byte((&HashChange{SHA256: f, SHA1: old}).PowerShell()),
		"remote.ps1":    []byte((&HashChange{SHA256: f, PlainHTTP: true, Restart: true, Gateways: []string{"ras1", "o'neill"}}).PowerShell()),
		"read.ps1":      []byte(ReadHashPowerShell("")),
		"read-ras1.ps1": []byte(ReadHashPowerShell("ras1")),
	} {
		file := filepath.Join("testdata", "hash", name)
		if *update {
			if err := os.WriteFile(file, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(text)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if strings.Contains(string(text), "@") && !strings.Contains(string(text), "@(") {
			t.Errorf("%s has a place that wasn't filled", name)
		}
	}
}
