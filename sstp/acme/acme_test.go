package acme

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aovlb/aovlb/sstp"
)

func TestManagerRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		m    *Manager
		want string
	}{
		{"nothing", &Manager{}, "needs a Name and a Dir"},
		{"no directory", &Manager{Name: "vpn.example.org"}, "needs a Name and a Dir"},
		{"key type", &Manager{Name: "vpn.example.org", Dir: "x", KeyType: "dsa"}, `no key type "dsa"`},
		{"no challenge", &Manager{Name: "vpn.example.org", Dir: "x", NoTLSALPN: true, NoHTTP: true}, "without any challenge"},
	} {
		if err := tt.m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Run says %v", tt.name, err)
		}
		if err := tt.m.Renew(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Renew says %v", tt.name, err)
		}
		if _, err := tt.m.Challenge(nil); err == nil {
			t.Errorf("%s: a challenge is answered", tt.name)
		}
	}
}

func TestHTTPHandler(t *testing.T) {
	m := &Manager{Name: "vpn.example.org", Dir: t.TempDir()}
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	defer func() { m.cache.Stop() }()
	for _, tt := range []struct {
		path string
		next http.Handler
		want int
	}{{"/", next, http.StatusTeapot}, {"/", nil, http.StatusNotFound}, {"/.well-known/acme-challenge/abc", next, http.StatusTeapot}} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, tt.path, nil)
		r.Host = "vpn.example.org"
		m.HTTPHandler(tt.next).ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%s: got %d, want %d", tt.path, w.Code, tt.want)
		}
	}
}

func TestEABKeepsItsSecret(t *testing.T) {
	e := EAB{KeyID: "kid-1", Key: "hush"}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "eab", e, "p", &e)
	if text := b.String() + fmt.Sprintf("%v %+v %s %v", e, e, e, &e); strings.Contains(text, "hush") {
		t.Errorf("it says %q", text)
	}
}

func ExampleManager() {
	ring := new(sstp.Keyring)
	m := &Manager{
		Name: "vpn.example.org", Dir: "/var/lib/aovlb/acme", Email: "admin@example.org", NoHTTP: true,
		Obtained: func(c *sstp.Certificate) {
			// It is held from now on, and shown by nobody until a Renewal has
			// told the gateways.
			if _, err := ring.Hold(c); err != nil {
				fmt.Println(err)
			}
		},
	}
	ring.Challenge = m.Challenge // on the shared port 443
	// go m.Run(ctx)
	fmt.Println(m.Status().Error == "")
	// Output: true
}
