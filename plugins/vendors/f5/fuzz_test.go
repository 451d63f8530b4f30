package f5

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	appliance "github.com/aovlb/aovlb/internal/appliance/f5"
	"github.com/aovlb/aovlb/plugins"
)

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
	f.Add(tenant, `{"items": [{"name": "pool_500", "subPath": "group_vpn", "membersReference": {"items": [{"name": "10.0.1.11:500", "session": "user-disabled"}]}}]}`)
	f.Add(tenant, `{"items": [{"name": "listener_ike", "subPath": "group_vpn", "destination": "::", "persist": [{}]}], "entries": {"x": {"nestedStats": {"entries": {"addr": {"description": "10.0.1.11"}}}}}}`)
	f.Add(`{"aovlb_hq": {"constants": {"owner": "aovlb site=hq", "deployment": "{\"sites\": [{\"name\": \"hq\", \"groups\": [{\"pool\": \"x\"}]}]}"}}}`, `{}`)
	f.Add(`{"aovlb_hq": 7}`, `[]`)
	f.Fuzz(func(t *testing.T, declared, served string) {
		srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			text := served
			switch {
			case strings.HasPrefix(r.URL.Path, "/mgmt/shared/authn"):
				text = `{"token": {"token": "t"}}`
			case strings.HasPrefix(r.URL.Path, "/mgmt/shared/appsvcs/declare"):
				text = declared
			}
			_, _ = w.Write([]byte(text)) // the other side may have gone
		}))
		defer srv.Close()
		d := configured(t, &appliance.Box{Server: srv}, nil, func(s *Settings) { s.NoDryRun, s.TaskTimeout = true, plugins.Duration(time.Second) })
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
