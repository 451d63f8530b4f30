package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	f5box "github.com/aovlb/aovlb/internal/appliance/f5"
	kempbox "github.com/aovlb/aovlb/internal/appliance/kemp"
	netscalerbox "github.com/aovlb/aovlb/internal/appliance/netscaler"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

// A product is a balancer of somebody else's, as an administrator has it.
type product struct {
	driver   string
	settings map[string]any
	// listen is where SSTP is served, gateways where from: what is before the last
	// number of their addresses, and their port. They are 192.0.2.10:443, 10.0.1.
	// and 443 if nothing is said.
	listen   string
	gateways string
	port     int
	// more are groups that the product can serve besides, pools what serves them.
	pools, more string
	// certificate has the product end TLS.
	certificate bool
	// occupy has ras1 have some clients; nil where nobody can tell.
	occupy func(t *testing.T)
	// keepsDeadlines says that it ends drains itself.
	keepsDeadlines bool
	// tamper alters something by hand.
	tamper func(t *testing.T)
	// holds is something that must not be on the balancer after a removal.
	holds func() string
}

// These are for more than SSTP.
const (
	ikeGroup = `
      - name: ike
        pool: ras
        affinity: source
        client_address: transparent
        idle: 8h
        listeners:
          - {name: ike, protocol: ikev2, address: "192.0.2.10:500"}
          - {name: nat-t, protocol: ikev2, address: "192.0.2.10:4500"}`
	npsPool = `
      - name: nps
        picker: round-robin
        panic: false
        backends:
          - {name: nps1, address: 10.0.2.11}
          - {name: nps2, address: 10.0.2.12}
        checks:
          - {type: radius, user: ping, secret_file: SECRET}`
	npsGroup = `
      - name: nps
        pool: nps
        affinity: user
        listeners:
          - {name: auth, protocol: radius, address: "192.0.2.10:1812"}
          - {name: acct, protocol: radius, address: "192.0.2.10:1813"}`
)

// balancers are all that drivers come with. HAProxy is in a file of its own.
func balancers() map[string]func(t *testing.T, dir string) *product {
	return map[string]func(t *testing.T, dir string) *product{
		"f5": newF5, "kemp": newKemp, "netscaler": newNetScaler, "keepalived": newKeepalived, "haproxy": newHAProxy,
	}
}

// TestProducts: plan, apply, drift, drain and undrain, as an administrator uses them,
// on each product. What they print holds no secret.
func TestProducts(t *testing.T) {
	for name, open := range balancers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			put(t, filepath.Join(dir, "secret"), plugintest.Canary+"\n")
			w := &desk{t: t, dir: dir, product: open(t, dir)}
			w.driver = name
			w.write()
			w.day()
		})
	}
}

// A desk is where an administrator works.
type desk struct {
	*product

	t    *testing.T
	dir  string
	said strings.Builder
}

func (w *desk) file() string { return filepath.Join(w.dir, "a.yaml") }

// write writes the file of a deployment onto the product.
func (w *desk) write() {
	w.t.Helper()
	settings, err := json.Marshal(w.settings)
	if err != nil {
		w.t.Fatal(err)
	}
	tls, certificates := "", ""
	if w.certificate {
		file := filepath.Join(w.dir, "vpn.pem")
		put(w.t, file, certificate(w.t, "vpn.example.com").file)
		certificates = fmt.Sprintf("\n    certificates: [{name: vpn, pool: ras, cert_file: %s}]", file)
		tls = ", tls: {mode: offload}"
	}
	listen, gateways, port := cmp.Or(w.listen, "192.0.2.10:443"), cmp.Or(w.gateways, "10.0.1."), cmp.Or(w.port, 443)
	text := strings.NewReplacer("SECRET", filepath.Join(w.dir, "secret")).Replace(fmt.Sprintf(`sites:
  - name: hq%[1]s
    pools:
      - name: ras
        picker: round-robin
        panic: false
        backends:
          - {name: ras1, address: %[2]s11, weight: 3}
          - {name: ras2, address: %[2]s12}
        checks:
          - {type: sstp, host: vpn.example.com, interval: 10s, port: %[3]d}%[4]s
    groups:
      - name: vpn
        pool: ras
        affinity: source
        listeners:
          - {name: sstp, protocol: sstp, address: "%[5]s", backend_port: %[3]d%[6]s}%[7]s
geo:
  listen: ["192.0.2.53:53"]
  zones: [{origin: vpn.example.com, file: /etc/aovlb/vpn.example.com.zone}]
  sites: [{name: berlin, gateways: [{name: ras1, addresses: [198.51.100.1]}], checks: [{type: sstp}]}]
  names: [{name: gw.vpn.example.com, sites: [berlin]}]
targets:
  - {name: box, driver: %[8]s, settings: %[9]s}
`, certificates, gateways, port, w.pools, listen, tls, w.more, w.driver, settings))
	put(w.t, w.file(), text)
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *desk) replace(from, to string) {
	w.t.Helper()
	b, err := os.ReadFile(w.file())
	if err != nil || !strings.Contains(string(b), from) {
		w.t.Fatalf("%s isn't there: %v", from, err)
	}
	put(w.t, w.file(), strings.ReplaceAll(string(b), from, to))
}

// run runs aovlb, which must end with that code, and returns what it prints.
func (w *desk) run(code int, args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "aovlb", args...)
	cmd.Env = append(os.Environ(), "AOVLB_DRAIN_INTERVAL=20ms", "AOVLB_ADMIN=unix:"+filepath.Join(w.dir, "nobody"))
	out, err := cmd.CombinedOutput()
	w.t.Logf("$ aovlb %s\n%s", strings.Join(args, " "), out)
	if got := cmd.ProcessState.ExitCode(); got != code {
		w.t.Fatalf("aovlb %s: %v, want code %d", strings.Join(args, " "), err, code)
	}
	w.said.Write(out)
	return string(out)
}

// shows has text hold all of want.
func (w *desk) shows(text string, want ...string) {
	w.t.Helper()
	for _, s := range want {
		if !strings.Contains(text, s) {
			w.t.Errorf("it doesn't say %q: %s", s, text)
		}
	}
}

// day is what happens to a balancer in its life.
func (w *desk) day() {
	w.t.Helper()
	file := w.file()
	before := w.holds()
	plan := w.run(0, "plan", file)
	w.shows(plan, "+ ", "box: ", " changes", "geo: info: this balancer has no part in it; aovlb serve serves it")
	w.run(0, "render", "--to", w.driver, file)
	if w.holds() != before {
		w.t.Error("plan has changed something")
	}
	apply := w.run(0, "apply", file)
	w.shows(apply, "/", "box serves it, ")
	for line := range strings.Lines(plan) {
		if head, _, _ := strings.Cut(strings.TrimSpace(line), ": "); strings.HasPrefix(head, "+ ") && !strings.Contains(apply, head) {
			w.t.Errorf("apply doesn't say %q", head)
		}
		if len(line) > 400 {
			w.t.Errorf("a line of %d bytes: %s", len(line), line)
		}
	}
	w.shows(w.run(0, "plan", file), "box: nothing to change")
	w.shows(w.run(0, "apply", file), "box serves it, 0 changes")
	w.shows(w.run(0, "drift", file), "box is as the file says")

	w.tamper(w.t)
	w.shows(w.run(1, "drift", file), "~ ", "box was changed there since the file was applied")
	w.shows(w.run(1, "drift", "--json", file), `"where": "balancer"`)
	w.shows(w.run(0, "plan", "--json", file), `"changes"`)
	w.run(0, "apply", file)
	w.run(0, "drift", file)

	w.replace("interval: 10s", "interval: 12s")
	w.shows(w.run(1, "drift", file), "~ ", "the file was changed since it was applied to box")
	w.run(0, "apply", file)
	w.run(0, "drift", file)
	w.drains()

	w.shows(w.run(0, "plan", "--remove", file), "- ")
	w.shows(w.run(0, "apply", "--remove", file), "box has nothing of it any more")
	if left := w.holds(); left != before {
		w.t.Errorf("after the removal there is\n%s\nand before there was\n%s", left, before)
	}
	for _, secret := range w.secrets() {
		if strings.Contains(w.said.String(), secret) {
			w.t.Errorf("%.12s… was printed", secret)
		}
	}
}

// secrets are what must not be printed.
func (w *desk) secrets() []string {
	out := []string{plugintest.Canary}
	if b, err := os.ReadFile(filepath.Join(w.dir, "vpn.pem")); err == nil {
		_, rest := pem.Decode(b)
		lines := strings.Split(strings.TrimSpace(string(rest)), "\n")
		out = append(out, lines[1])
	}
	return out
}

func (w *desk) drains() {
	w.t.Helper()
	file := w.file()
	if w.occupy == nil {
		w.shows(w.run(1, "drain", "--file", file, "ras1"), "ras1 goes on draining, and box doesn't say how many clients it has", "--deadline")
		w.run(0, "drain", "--file", file, "--no-wait", "ras1")
	} else {
		w.occupy(w.t)
		w.interrupts("drain", "--file", file, "--deadline", "1h", "ras1")
		w.shows(w.run(0, "drain", "--file", file, "--deadline", "400ms", "ras1"), "ras1 gets no new clients, ", " left", "ras1 is drained", " cut off")
	}
	w.shows(w.run(0, "drain", "--file", file, "--deadline", "100ms", "ras/ras1"), "ras/ras1 is drained")
	w.shows(w.run(0, "drift", file), "ras/ras1 is drained, which is no drift", "box is as the file says")
	w.shows(w.run(0, "apply", file), "0 changes")
	w.shows(w.run(0, "undrain", "--file", file, "ras1"), "ras1 gets new clients again")
	if out := w.run(0, "drift", file); strings.Contains(out, "drained") {
		w.t.Errorf("it is drained still: %s", out)
	}
	w.shows(w.run(1, "drain", "--file", file, "ras9"), "not found")
	w.shows(w.run(1, "undrain", "--file", file, "ras1"), "isn't being drained")
}

// interrupts runs aovlb, and interrupts it as soon as it says how long it takes.
func (w *desk) interrupts(args ...string) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), "aovlb", args...)
	cmd.Env = append(os.Environ(), "AOVLB_DRAIN_INTERVAL=20ms")
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan()
	w.shows(lines.Text(), " left, for 1h0m0s at most")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		w.t.Fatal(err)
	}
	for lines.Scan() {
		w.t.Logf("then it said %q", lines.Text())
	}
	if err := cmd.Wait(); err == nil {
		w.t.Error("it ended as if nothing had happened")
	}
	w.shows(said.String(), "ras1 goes on draining", "aovlb undrain ends it")
	if keeps := strings.Contains(said.String(), "box cuts off the clients that are left at "); keeps != w.keepsDeadlines {
		w.t.Errorf("does the balancer keep deadlines itself: %v, and yet %q", w.keepsDeadlines, &said)
	}
}

func newF5(t *testing.T, dir string) *product {
	box := f5box.New()
	box.Polls = 0
	t.Cleanup(box.Server.Close)
	put(t, filepath.Join(dir, "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: box.Server.Certificate().Raw})))
	return &product{
		settings: map[string]any{
			"url": box.Server.URL, "username": f5box.User, "password": map[string]any{"file": filepath.Join(dir, "secret")},
			"ca_file": filepath.Join(dir, "ca.pem"), "rate": 1000,
		},
		pools: npsPool, more: ikeGroup + npsGroup, certificate: true,
		occupy: func(*testing.T) {
			box.Do(func(_ map[string]*f5box.Virtual, _ map[string]*f5box.Pool, flows *[]f5box.Flow) {
				*flows = append(*flows, f5box.Flow{Client: "203.0.113.5:50000", Virtual: "192.0.2.10:443", Server: "10.0.1.11:443"})
			})
		},
		tamper: func(t *testing.T) {
			done := false
			box.Do(func(_ map[string]*f5box.Virtual, pools map[string]*f5box.Pool, _ *[]f5box.Flow) {
				for path, p := range pools {
					if strings.HasPrefix(path, "/aovlb_hq") {
						p.Members[0].Ratio, done = 77, true
					}
				}
			})
			if !done {
				t.Fatal("there is nothing to alter")
			}
		},
		holds: func() string { return box.Foreign("nothing") },
	}
}

func newKemp(t *testing.T, dir string) *product {
	box := kempbox.New()
	t.Cleanup(box.Close)
	box.Key = plugintest.Canary
	box.Seed()
	put(t, filepath.Join(dir, "ca.pem"), string(box.CA()))
	return &product{
		settings: map[string]any{
			"address": box.URL(), "ca_file": filepath.Join(dir, "ca.pem"), "rate": 1000, "api_key": map[string]any{"file": filepath.Join(dir, "secret")},
		},
		more: ikeGroup, certificate: true,
		occupy: func(*testing.T) { box.Serve("10.0.1.11", 3) },
		tamper: func(t *testing.T) {
			if !box.SetServer("aovlb_hq", "10.0.1.11", "Weight", "7") {
				t.Fatal("there is nothing to alter")
			}
		},
		holds: func() string { return box.Others("nothing") },
	}
}

func newNetScaler(t *testing.T, dir string) *product {
	box := netscalerbox.New("nsroot", plugintest.Canary)
	box.SetFeatures("LB", "SSL", "GSLB")
	server := httptest.NewTLSServer(box)
	t.Cleanup(server.Close)
	put(t, filepath.Join(dir, "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	return &product{
		settings: map[string]any{
			"url": server.URL, "user": "nsroot", "password": map[string]any{"file": filepath.Join(dir, "secret")},
			"ca_file": filepath.Join(dir, "ca.pem"), "server_name": "example.com", "rate": 1000,
		},
		pools: npsPool, more: ikeGroup + npsGroup, certificate: true, keepsDeadlines: true,
		occupy: func(*testing.T) {
			box.Count("servicegroupmember", "aovlb_hq_vpn_sstp_to?10.0.1.11?443", map[string]any{"cursrvrconnections": "3"})
		},
		tamper: func(t *testing.T) {
			names := box.Names("lbmonitor")
			if len(names) == 0 {
				t.Fatal("there is nothing to alter")
			}
			box.Put("lbmonitor", names[0], map[string]any{"retries": 99})
		},
		holds: func() string { return box.Except("nothing") },
	}
}

func newKeepalived(t *testing.T, dir string) *product {
	if runtime.GOOS != "linux" {
		t.Skip("keepalived is for Linux")
	}
	file := filepath.Join(dir, "aovlb.conf")
	return &product{
		settings: map[string]any{"file": file, "main": file, "config_only": true},
		more:     ikeGroup,
		tamper: func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil || !strings.Contains(string(b), "weight 3") {
				t.Fatalf("there is nothing to alter: %v", err)
			}
			put(t, file, strings.Replace(string(b), "weight 3", "weight 7", 1))
		},
		holds: func() string {
			list, err := filepath.Glob(filepath.Join(dir, "aovlb*"))
			if err != nil {
				t.Error(err)
			}
			var out strings.Builder
			for _, name := range list {
				b, err := os.ReadFile(name)
				if err != nil {
					t.Error(err)
				}
				for line := range strings.Lines(string(b)) {
					line = strings.TrimSpace(line)
					// To delete a table, nft must have it.
					deletes := strings.HasSuffix(line, "table inet aovlb_hq_marks")
					if line != "" && line[0] != '#' && !deletes {
						out.WriteString(line + "\n")
					}
				}
			}
			return out.String()
		},
	}
}
