package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReloadReadsTheCAsFirst: what a CA is asked with is read before anything is
// changed, and a CA is asked anew if it differs, whether the name of the file does or
// not.
func TestReloadReadsTheCAsFirst(t *testing.T) {
	s := newServer(t)
	s.cas.state = t.TempDir()
	s.config.State = s.cas.state
	t.Cleanup(s.cas.close)
	b, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	roots := filepath.Join(dir, "ca.pem")
	serve := func(text []byte) error {
		t.Helper()
		write(t, filepath.Dir(s.file), filepath.Base(s.file), string(text))
		_, err := s.reload(t.Context())
		return err
	}
	before, _ := s.driver.Read(t.Context())
	b = bytes.ReplaceAll(b, []byte("      - name: ras\n"), []byte("      - name: ras\n        checks: [{type: sstp}]\n"))
	b = append(bytes.ReplaceAll(b, []byte("name: ras2"), []byte("name: ras3")),
		"    certificates: [{name: vpn, pool: ras, acme: {host: vpn.example.com, directory: 'https://127.0.0.1:1/', ca_file: "+roots+"}}]\nstate: "+s.cas.state+"\n"...)
	err = serve(b)
	if err == nil || !strings.Contains(err.Error(), "sites[0].certificates[0].acme.ca_file") || !strings.Contains(err.Error(), ":11:") {
		t.Errorf("without the file: %v", err)
	}
	if after, _ := s.driver.Read(t.Context()); after.Revision != before.Revision || s.cas.get("vpn") != nil {
		t.Error("something has changed")
	}

	newCertificate(t, dir)
	pem, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "ca.pem", string(pem))
	if err := serve(b); err != nil {
		t.Fatal(err)
	}
	first := s.cas.get("vpn")
	if err := serve(b); err != nil || s.cas.get("vpn") != first || first == nil {
		t.Errorf("the CA is asked anew for nothing: %v", err)
	}
	newCertificate(t, dir)
	if pem, err = os.ReadFile(filepath.Join(dir, "cert.pem")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "ca.pem", string(pem))
	if err := serve(b); err != nil || s.cas.get("vpn") == first {
		t.Errorf("other roots under the same name aren't taken: %v", err)
	}
}
