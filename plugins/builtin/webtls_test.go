package builtin

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aovlb/aovlb/plugins"
)

// TestWebCAFile: the web server beside SSTP is accepted if its certificate comes from
// the CA in web_tls.ca_file, and only then; a file that changes counts from the next
// reload on.
func TestWebCAFile(t *testing.T) {
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "the site") }))
	defer web.Close()
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	s := newRingSite(t)
	s.hooks()
	foreign := s.dep.Sites[0].Certificates[0].CertFile
	newRingCert(t, foreign)
	right := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	wrong, err := os.ReadFile(foreign)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.dir, "web-ca.pem")
	put := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := &s.dep.Sites[0].Groups[0].Listeners[0]
	l.Protocol = plugins.ProtocolSSTP
	l.TLS = plugins.TLS{
		Mode: plugins.TLSOffload, Web: netip.MustParseAddrPort(web.Listener.Addr().String()),
		WebTLS: plugins.WebTLS{ServerName: "example.com", CAFile: file},
	}

	refused := func(d *Driver, says string) {
		t.Helper()
		p, err := d.Plan(t.Context(), s.dep)
		if err == nil {
			err = d.Apply(t.Context(), p, nil)
		}
		if err == nil || !strings.Contains(err.Error(), ".listeners[0].tls.web_tls.ca_file: ") || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %s", err, says)
		}
	}
	refused(&Driver{StateDir: t.TempDir()}, "no such file")
	put([]byte("nothing of use"))
	refused(&Driver{StateDir: t.TempDir()}, "no certificate in PEM")
	put(right)
	d, _ := s.serve()
	get := func() string {
		t.Helper()
		browser := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
		r, err := browser.Get("https://" + l.Address.String() + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		return fmt.Sprint(r.StatusCode, " ", string(b), err)
	}
	for _, tt := range []struct {
		name string
		ca   []byte
		want string
	}{
		{"its CA", right, "200 the site<nil>"},
		{"another CA", wrong, "503 <nil>"},
		{"its CA among others", append(append([]byte(nil), wrong...), right...), "200 the site<nil>"},
	} {
		put(tt.ca)
		s.apply(d)
		if got := get(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	put([]byte("nothing of use")) // what serves goes on
	refused(d, "no certificate in PEM")
	if got := get(); got != "200 the site<nil>" {
		t.Errorf("after a reload that failed: %q", got)
	}
	put(right)
	l.TLS.WebTLS.ServerName = "www.example.net"
	s.apply(d)
	if got := get(); got != "503 <nil>" {
		t.Errorf("another name: %q", got)
	}
}
