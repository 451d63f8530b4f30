package f5

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// answers is a network that answers by itself.
type answers func(*http.Request) string

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(a(r))), Request: r}, nil
}

// FuzzAnswers has a box answer anything: reading it ends with a state or an error,
// and so does what is done then.
func FuzzAnswers(f *testing.F) {
	dep, err := json.Marshal(gateways())
	if err != nil {
		f.Fatal(err)
	}
	memory, err := json.Marshal(string(dep))
	if err != nil {
		f.Fatal(err)
	}
	tenant := `{"aovlb_hq": {"class": "Tenant", "constants": {"owner": "aovlb site=hq", "deployment": ` + string(memory) + `},
		"group_vpn": {"class": "Application", "pool_500": {"class": "Pool", "members": [{"serverAddresses": ["10.0.1.11"], "servicePort": 500}]}}}}`
	password := filepath.Join(f.TempDir(), "password")
	if err := os.WriteFile(password, []byte("p"), 0o600); err != nil {
		f.Fatal(err)
	}
	settings := `{"url": "https://bigip.example.com", "username": "admin", "password": {"file": "` + password + `"}, "rate": 1000, "no_dry_run": true}`
	f.Add(tenant, `{"items": [{"name": "pool_500", "subPath": "group_vpn", "membersReference": {"items": [{"name": "10.0.1.11:500", "session": "user-disabled"}]}}]}`)
	f.Add(tenant, `{"items": [{"name": "listener_ike", "subPath": "group_vpn", "destination": "::", "persist": [{}]}], "entries": {"x": {"nestedStats": {"entries": {"addr": {"description": "10.0.1.11"}}}}}}`)
	f.Add(`{"aovlb_hq": {"constants": {"owner": "aovlb site=hq", "deployment": "{\"sites\": [{\"name\": \"hq\", \"groups\": [{\"pool\": \"x\"}]}]}"}}}`, `{}`)
	f.Add(`{"aovlb_hq": 7}`, `[]`)
	f.Fuzz(func(t *testing.T, declared, served string) {
		d := &Driver{pause: time.Millisecond, Client: &http.Client{Transport: answers(func(r *http.Request) string {
			switch {
			case strings.HasPrefix(r.URL.Path, "/mgmt/shared/authn"):
				return `{"token": {"token": "t"}}`
			case strings.HasPrefix(r.URL.Path, "/mgmt/shared/appsvcs/declare"):
				return declared
			}
			return served
		})}}
		if err := d.Configure(t.Context(), plugins.Config{Site: "hq", Settings: json.RawMessage(settings)}); err != nil {
			t.Fatal(err)
		}
		ref := plugins.BackendRef{Backend: "ras1"}
		if s, err := d.Read(t.Context()); (s == nil) == (err == nil) {
			t.Errorf("Read: %v, %v", s, err)
		}
		if s, err := d.Stats(t.Context()); (s == nil) == (err == nil) {
			t.Errorf("Stats: %v, %v", s, err)
		}
		if p, err := d.Plan(t.Context(), gateways()); (p == nil) == (err == nil) {
			t.Errorf("Plan: %v, %v", p, err)
		}
		_ = d.Drain(t.Context(), plugins.DrainRequest{BackendRef: ref, Deadline: time.Now()}) // it may fail, but not more
	})
}
