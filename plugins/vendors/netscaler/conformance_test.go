package netscaler

import (
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	appliance "github.com/aovlb/aovlb/internal/appliance/netscaler"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

// box is an appliance with an address, and with things of others on it.
type box struct {
	*appliance.Appliance
	settings json.RawMessage
	logs     *plugintest.Log
}

func newBox(t *testing.T) *box {
	t.Helper()
	b := &box{Appliance: appliance.New("nsaovlb", plugintest.Canary), logs: new(plugintest.Log)}
	b.Put("server", "web1", map[string]any{"ipaddress": "10.0.9.9"})
	b.Put("lbvserver", "web", map[string]any{"servicetype": "HTTP", "ipv46": "192.0.2.80", "port": 80})
	b.Put("servicegroup", "web_group", map[string]any{"servicetype": "HTTP"})
	b.Put("lbmonitor", "web_check", map[string]any{"type": "HTTP", "httprequest": "GET /"})
	b.Put("systemfile", "ns-server.cert", map[string]any{"filelocation": folder, "filecontent": "Y2VydA=="})
	b.Put("sslcertkey", "ns-server-certificate", map[string]any{"cert": "ns-server.cert"})
	b.Put("lbgroup", "aovlb_other_group", map[string]any{"persistencetype": "SOURCEIP"})
	server := httptest.NewUnstartedServer(b)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	dir := t.TempDir()
	ca, password := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "password")
	for name, content := range map[string][]byte{
		ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), password: []byte(plugintest.Canary + "\n"),
	} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := json.Marshal(map[string]any{
		"url": server.URL, "user": "nsaovlb", "password": plugins.Secret{File: password}, "ca_file": ca, "server_name": "example.com", "rate": 100000,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.settings = raw
	return b
}

// driver returns a driver for the site hq of the appliance.
func (b *box) driver(t *testing.T) *Driver {
	t.Helper()
	d := &Driver{Logger: slog.New(slog.NewTextHandler(b.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if err := d.Configure(t.Context(), plugins.Config{Site: "hq", Settings: b.settings}); err != nil {
		t.Fatal(err)
	}
	return d
}

var _ http.Handler = (*box)(nil)

// TestConformance holds the driver to what all drivers promise.
func TestConformance(t *testing.T) { conformance(t, nil, nil) }

// TestConformanceOfNames holds it to that where names lead to sites, of an appliance
// with a GSLB site and without.
func TestConformanceOfNames(t *testing.T) {
	conformance(t, plugintest.Names(plugintest.Layout{}), func(b *box) { b.withGSLB(t, `{"address": "10.0.0.5"}`) })
	conformance(t, plugintest.Names(plugintest.Layout{})[:4], func(b *box) {
		b.withGSLB(t, `{}`)
		b.Put("gslbsite", "headquarters", map[string]any{"sitetype": "LOCAL", "siteipaddress": "10.0.0.6"})
	})
}

// withGSLB turns GSLB on, and has the driver use it.
func (b *box) withGSLB(t *testing.T, settings string) {
	t.Helper()
	b.SetFeatures("LB", "SSL", "GSLB")
	b.Put("location", "192.0.2.0-192.0.2.255", map[string]any{"ipfrom": "192.0.2.0", "ipto": "192.0.2.255", "preferredlocation": "EU.IT.*.*.*.somebody"})
	b.Put("gslbvserver", "intranet", map[string]any{"servicetype": "HTTP"})
	var s map[string]json.RawMessage
	if err := json.Unmarshal(b.settings, &s); err != nil {
		t.Fatal(err)
	}
	s["gslb"] = json.RawMessage(settings)
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	b.settings = raw
}

func conformance(t *testing.T, intents []plugintest.Intent, change func(*box)) {
	plugintest.Suite{
		Site: "hq", Intents: intents,
		Open: func(t *testing.T) plugintest.Target {
			b := newBox(t)
			if change != nil {
				change(b)
			}
			return plugintest.Target{
				Driver: func(t *testing.T) plugins.Driver { return b.driver(t) },
				Writes: b.Writes, BreakAfter: b.BreakAfter, Logs: b.logs.String,
				Foreign: func() string { return b.Except("aovlb_hq_") },
				Tamper: func(t *testing.T) {
					for _, name := range b.Names("lbmonitor") {
						if name != "web_check" {
							b.Put("lbmonitor", name, map[string]any{"retries": 99})
							return
						}
					}
					t.Fatal("there is nothing to alter")
				},
			}
		},
	}.Run(t)
}
