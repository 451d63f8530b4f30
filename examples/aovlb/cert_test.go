package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/sstp"
)

// runWith runs the program, and returns its exit code and all that it prints.
func runWith(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	code := run(t.Context(), &environment{stdout: &out, stderr: &out, getenv: func(string) string { return "" }}, args)
	return code, out.String()
}

// TestCertConvertWritesBothOrNone: what would be refused halfway is refused before.
func TestCertConvertWritesBothOrNone(t *testing.T) {
	dir := t.TempDir()
	in, out, key := filepath.Join(dir, "in.pem"), filepath.Join(dir, "out.pem"), filepath.Join(dir, "key.pem")
	made, _, err := standin.SelfSigned("vpn.example.com")
	if err != nil {
		t.Fatal(err)
	}
	c, err := sstp.CertificateOf(&made)
	if err != nil {
		t.Fatal(err)
	}
	k, err := c.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{in: string(c.ChainPEM()) + string(k), out: "is there"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, said := runWith(t, "cert", "convert", in, "--out", out, "--key-out", key); code != 1 || !strings.Contains(said, out+" is there already") {
		t.Errorf("exit code %d: %s", code, said)
	}
	if code, said := runWith(t, "cert", "convert", in, "--out", key, "--key-out", key, "--force"); code != 2 || !strings.Contains(said, "one file") {
		t.Errorf("exit code %d: %s", code, said)
	}
	if _, err := os.Stat(key); err == nil {
		t.Error("a private key was written by a call that was refused")
	}
	missing := filepath.Join(dir, "no", "out.pem")
	if code, said := runWith(t, "cert", "convert", in, "--out", missing); code != 1 || !strings.Contains(said, "write "+missing+": no such") {
		t.Errorf("exit code %d: %s", code, said)
	}
	if code, said := runWith(t, "cert", "convert", in, "--out", out, "--key-out", key, "--force"); code != 0 {
		t.Fatalf("exit code %d: %s", code, said)
	}
	if code, said := runWith(t, "cert", "check", "--name", "vpn.example.com", out, key); code != 0 && !strings.Contains(said, "chain") {
		t.Errorf("exit code %d: %s", code, said)
	}
}

// TestRenewByEmptyNames: a variable of a shell that is empty must not begin a
// renewal, which would drain gateways; and no script is printed for a gateway that
// isn't there.
func TestRenewByEmptyNames(t *testing.T) {
	w := newOffload(t, "offload", "")
	served := w.gateway.Hash.String()
	for _, args := range [][]string{{"renew", "--script", ""}, {"renew", "--confirm="}} {
		if out, err := w.command(args...); err == nil || !strings.Contains(err.Error(), "needs the name of a gateway") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
	if out, err := w.command("renew", "--script", "ras9"); err == nil || !strings.Contains(err.Error(), `no gateway "ras9"`) {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := w.command("renew", "--script", "ras1"); err != nil || !strings.Contains(out, served) {
		t.Errorf("without a renewal the script should set the hash of what is shown: %v\n%s", err, out)
	}
	for _, command := range []string{"status", "renew --status"} {
		out, err := w.command(strings.Fields(command)...)
		if err != nil || !strings.Contains(out, "expects "+served+", it is assumed") || strings.Contains(out, `\"`) {
			t.Errorf("aovlb %s: %v\n%s", command, err, out)
		}
	}
	if out, err := w.command("sessions", "--problems"); err != nil || !strings.Contains(out, "no session had a problem") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := w.command("probe", "sstp", "--ip-https", "--plain-http", "127.0.0.2:"+itoa(w.port)); err != nil || !strings.Contains(out, "serves ip-https") {
		t.Errorf("%v\n%s", err, out)
	}
}
