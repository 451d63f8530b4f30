package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aovlb/aovlb/plugins/plugintest"
)

// TestNamesOnProducts: products answer for the names of geo, and nothing else; a site is
// drained, called otherwise and removed, as an administrator does it.
func TestNamesOnProducts(t *testing.T) {
	for name, gslb := range map[string]any{"f5": true, "kemp": true, "netscaler": map[string]any{"address": "10.0.0.5"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			put(t, filepath.Join(dir, "secret"), plugintest.Canary+"\n")
			w := &desk{t: t, dir: dir, product: balancers()[name](t, dir)}
			w.driver, w.settings["gslb"] = name, gslb
			w.names()
		})
	}
}

// names is the life of names.
func (w *desk) names() {
	w.t.Helper()
	settings, err := json.Marshal(w.settings)
	if err != nil {
		w.t.Fatal(err)
	}
	put(w.t, w.file(), fmt.Sprintf(`geo:
  listen: ["192.0.2.53:53", "192.0.2.54:53"]
  zones: [{origin: vpn.example.com, file: /etc/aovlb/vpn.example.com.zone}]
  sites:
    - {name: berlin, gateways: [{name: ras1, addresses: [198.51.100.1, "2001:db8::1"]}, {name: ras2, addresses: [198.51.100.2]}], checks: [{type: sstp}]}
    - {name: munich, priority: 1, gateways: [{name: ras3, addresses: [198.51.100.3]}], checks: [{type: sstp}]}
  names:
    - {name: gw.vpn.example.com, order: [priority]}
    - {name: backup.vpn.example.com, sites: [munich]}
targets:
  - {name: box, driver: %s, settings: %s}
`, w.driver, settings))
	file, before := w.file(), w.holds()
	drain := func(code int, command, site string) string {
		w.t.Helper()
		return w.run(code, command, "--file", file, site)
	}
	again := func() {
		w.t.Helper()
		w.shows(w.run(0, "drift", file), "box is as the file says")
		w.shows(w.run(0, "apply", file), "box serves it, 0 changes")
	}
	w.shows(w.run(0, "plan", file), "gw.vpn.example.com", "198.51.100.3")
	w.shows(w.run(0, "render", "--to", w.driver, file), "gw.vpn.example.com", "198.51.100.3")
	if w.holds() != before {
		w.t.Error("plan has changed something")
	}
	w.shows(w.run(0, "apply", file), "box serves it, ")
	again()

	served := w.holds()
	w.shows(drain(0, "drain", "geo:berlin"), "geo:berlin is drained")
	if w.holds() == served {
		w.t.Error("the drain has changed nothing")
	}
	w.shows(w.run(0, "drift", file), "geo:berlin is drained, which is no drift")
	again()
	w.shows(drain(0, "undrain", "geo:berlin"), "geo:berlin gets new clients again")
	if out := w.run(0, "drift", file); strings.Contains(out, "drained") {
		w.t.Errorf("it is drained still: %s", out)
	}
	w.shows(drain(1, "undrain", "geo:berlin"), "isn't being drained")
	w.shows(drain(1, "drain", "geo:rome"), "not found")
	w.shows(drain(1, "drain", "berlin"), "not found")

	// What is called otherwise, and what changes its place.
	for _, r := range [][2]string{
		{"name: ras2", "name: ras9"}, {"munich", "muc"}, {`"192.0.2.53:53", `, ""}, {"198.51.100.2]", "198.51.100.9]"}, {"198.51.100.3]", "198.51.100.2]"}, {"backup.vpn", "spare.vpn"},
	} {
		w.replace(r[0], r[1])
		w.run(0, "apply", file)
		again()
	}
	drain(0, "drain", "geo:muc")
	w.replace("- {name: muc, priority: 1", "- {name: nuremberg, priority: 1")
	w.replace("[muc]", "[nuremberg]")
	w.run(0, "apply", file)
	if out := w.run(0, "drift", file); strings.Contains(out, "drained") {
		w.t.Errorf("a site that is gone is drained: %s", out)
	}
	w.shows(w.run(0, "apply", "--remove", file), "box has nothing of it any more")
	if left := w.holds(); left != before {
		w.t.Errorf("after the removal there is\n%s\nand before there was\n%s", left, before)
	}
	if strings.Contains(w.said.String(), plugintest.Canary) {
		w.t.Error("a secret was printed")
	}
}
