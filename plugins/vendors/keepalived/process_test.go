package keepalived

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/ownfile"
)

// deployment is of two gateways with IKEv2, and SSTP by itself.
func deployment(change func(*plugins.Pool, *plugins.Group)) *plugins.Deployment {
	p := plugins.Pool{
		Name: "ras", Picker: plugins.PickLeastClients,
		Backends: []plugins.Backend{{Name: "ras1", Address: netip.MustParseAddr("10.0.1.11")}, {Name: "ras2", Address: netip.MustParseAddr("10.0.1.12")}},
		Checks:   []plugins.Check{{Type: plugins.CheckSSTP, Host: "vpn.example.com"}},
	}
	g := plugins.Group{Name: "vpn", Pool: "ras", Affinity: plugins.AffinitySource, Listeners: []plugins.Listener{
		{Name: "ike", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:500")},
		{Name: "nat-t", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:4500")},
	}}
	if change != nil {
		change(&p, &g)
	}
	return &plugins.Deployment{Sites: []plugins.Site{{Name: "hq", Pools: []plugins.Pool{p}, Groups: []plugins.Group{g}}}}
}

func (m *machine) driver() *Driver {
	d := new(Driver)
	d.setUp.Set(plugins.Config{Site: "hq"}, m.settings, m.process)
	return d
}

func apply(t *testing.T, d *Driver, dep *plugins.Deployment) error {
	t.Helper()
	p, err := d.Plan(t.Context(), dep)
	if err != nil {
		t.Fatal(err)
	}
	return d.Apply(t.Context(), p, nil)
}

// TestOnlyKeepalivedIsTold: a process that has keepalived's old id gets no signal,
// which would end it.
func TestOnlyKeepalivedIsTold(t *testing.T) {
	m := startMachine(t, true)
	m.end()
	pid := os.Getpid()
	folder := filepath.Join(m.proc, strconv.Itoa(pid))
	if err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, "comm"), []byte("postgres\n"), 0o600),
		os.WriteFile(m.settings.PIDFile, []byte(strconv.Itoa(pid)), 0o600)); err != nil {
		t.Fatal(err)
	}
	d := m.driver()
	if err := apply(t, d, deployment(nil)); err != nil {
		t.Fatal(err)
	}
	list, err := d.Validate(t.Context(), deployment(nil))
	if err != nil || !strings.Contains(list[len(list)-1].String(), `isn't keepalived but "postgres"`) {
		t.Errorf("%v, %v", list, err)
	}
	if err := m.reload(t.Context(), "", nil); err == nil {
		t.Error("the signal was sent")
	}
}

// TestRestart: a keepalived that began after the file was written has loaded it; one
// that began before has not, if nobody told it.
func TestRestart(t *testing.T) {
	m := startMachine(t, true)
	d := m.driver()
	if err := apply(t, d, deployment(nil)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(m.stampFile()); err != nil {
		t.Fatal(err)
	}
	p, err := d.Plan(t.Context(), deployment(nil))
	if err != nil || len(p.Changes) != 1 || p.Changes[0].Fields[0].Before != "an earlier file" {
		t.Errorf("without a stamp: %v, %v", p.Changes, err)
	}
	m.end()
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(m.settings.File, past, past); err != nil {
		t.Fatal(err)
	}
	m.start(t)
	if p, err := d.Plan(t.Context(), deployment(nil)); err != nil || len(p.Changes) != 0 {
		t.Errorf("after a restart: %v, %v", p.Changes, err)
	}
}

// TestRefused: a file that keepalived refuses, here because of somebody else's, is
// taken back.
func TestRefused(t *testing.T) {
	m := startMachine(t, true)
	d := m.driver()
	if err := apply(t, d, deployment(nil)); err != nil {
		t.Fatal(err)
	}
	before, err := m.read()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.foreign, []byte("include "+m.dir+"/conf.d/*.conf\n"), 0o600); err != nil { // without script security
		t.Fatal(err)
	}
	err = apply(t, d, deployment(func(p *plugins.Pool, _ *plugins.Group) { p.Backends[0].Weight = new(9) }))
	if err == nil || !strings.Contains(err.Error(), "SECURITY VIOLATION") || !strings.Contains(err.Error(), "the earlier files are back") {
		t.Errorf("refused: %v", err)
	}
	after, err := m.read()
	if diff := cmp.Diff(string(before.conf), string(after.conf)); diff != "" || err != nil {
		t.Errorf("%s, %v", diff, err)
	}
}

// TestPrograms: keepalived and nft run as programs, and what they say is understood.
func TestPrograms(t *testing.T) {
	t.Setenv("GORACE", noSleep)
	m := startMachine(t, true)
	m.exec = run
	d := m.driver()
	if err := apply(t, d, deployment(nil)); err != nil {
		t.Fatal(err)
	}
	if p, err := d.Plan(t.Context(), deployment(nil)); err != nil || len(p.Changes) != 0 {
		t.Errorf("%v, %v", p.Changes, err)
	}
	for _, name := range []string{"ras1", "ras2"} {
		if err := d.Drain(t.Context(), plugins.DrainRequest{BackendRef: plugins.BackendRef{Backend: name}}); err != nil {
			t.Error(err)
		}
	}
}

// TestForeign: files of others are left alone.
func TestForeign(t *testing.T) {
	for _, which := range []func(Settings) string{
		func(s Settings) string { return s.File }, func(s Settings) string { return s.Marks }, func(s Settings) string { return s.Script },
	} {
		m := startMachine(t, true)
		name := which(m.settings)
		if err := os.WriteFile(name, []byte("# mine\n# and mine\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := m.driver().Plan(t.Context(), deployment(nil)); !errors.Is(err, ownfile.ErrForeign) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTogether: what belongs together has one mark, and one service in IPVS, that is
// counted for its pool.
func TestTogether(t *testing.T) {
	m := startMachine(t, true)
	d := m.driver()
	if err := apply(t, d, deployment(nil)); err != nil {
		t.Fatal(err)
	}
	list, err := m.services(t.Context())
	if err != nil || len(list) != 2 || !strings.HasPrefix(list[0].key, "FWM ") || len(list[0].servers) != 2 {
		t.Fatalf("IPVS has %+v, %v", list, err)
	}
	if err := d.Drain(t.Context(), plugins.DrainRequest{BackendRef: plugins.BackendRef{Backend: "ras1"}}); err != nil {
		t.Fatal(err)
	}
	for {
		s, err := d.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		one, two := s.Pools[0].Backends[0], s.Pools[0].Backends[1]
		if one.State == "draining" && *one.Active == 7 && one.Share == 0 && two.State == "up" && two.Share == 1 && s.Listeners[0].State == "open" {
			break
		}
		if t.Context().Err() != nil {
			t.Fatalf("%+v", s)
		}
		time.Sleep(5 * time.Millisecond)
	}
	// All of them are drained: keepalived remarks on it, and that is all.
	if err := d.Drain(t.Context(), plugins.DrainRequest{BackendRef: plugins.BackendRef{Backend: "ras2"}}); err != nil {
		t.Error(err)
	}
}

// TestStandby: the one that stands by is no real server until nobody else takes new
// clients.
func TestStandby(t *testing.T) {
	servers := func(change func(*plugins.Pool, *plugins.Group)) string {
		var out []string
		dep := deployment(func(p *plugins.Pool, g *plugins.Group) { p.Backends[1].Priority = 5; change(p, g) })
		r := newRenderer(plugins.Config{}, Settings{File: "f"}.usual(), &dep.Sites[0], nil)
		for _, b := range r.blocks() {
			for _, l := range b.lines {
				if strings.HasPrefix(l, "sorry_server") {
					out = append(out, l)
				}
			}
			for _, s := range b.blocks {
				out = append(out, s.head+" "+s.lines[0])
			}
		}
		return strings.Join(out, ", ")
	}
	for _, c := range []struct {
		name   string
		change func(*plugins.Pool, *plugins.Group)
		want   string
	}{
		{"all well", func(*plugins.Pool, *plugins.Group) {}, "sorry_server 10.0.1.12 0, real_server 10.0.1.11 0 weight 1"},
		{"the first drained", func(p *plugins.Pool, _ *plugins.Group) { p.Backends[0].Admin = plugins.AdminDraining }, "real_server 10.0.1.11 0 weight 0, real_server 10.0.1.12 0 weight 1"},
		{"the first disabled", func(p *plugins.Pool, _ *plugins.Group) { p.Backends[0].Admin = plugins.AdminDisabled }, "real_server 10.0.1.12 0 weight 1"},
		{"the other disabled", func(p *plugins.Pool, _ *plugins.Group) { p.Backends[1].Admin = plugins.AdminDisabled }, "real_server 10.0.1.11 0 weight 1"},
		{"both disabled", func(p *plugins.Pool, _ *plugins.Group) {
			p.Backends[0].Admin, p.Backends[1].Admin = plugins.AdminDisabled, plugins.AdminDisabled
		}, ""},
	} {
		if got := servers(c.change); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestMarksAreLasting: a group keeps its mark when others come and go.
func TestMarksAreLasting(t *testing.T) {
	dep := deployment(nil)
	s := &dep.Sites[0]
	one := marksOf(s)["vpn"]
	for _, name := range []string{"a", "b", "zz"} {
		g := s.Groups[0]
		g.Name = name
		s.Groups = append(s.Groups, g)
	}
	many := marksOf(s)
	seen := map[uint32]bool{}
	for _, m := range many {
		seen[m] = true
	}
	if many["vpn"] != one || len(seen) != 4 {
		t.Errorf("%#x, then %#x of %v", one, many["vpn"], many)
	}
}

// TestScript has the script ask a real server by curl.
func TestScript(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl:", err)
	}
	var asked []string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.Host+" "+r.URL.Path)
		if r.URL.Path == plugins.SSTPPath {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	name := filepath.Join(t.TempDir(), "check")
	if err := os.WriteFile(name, writeScript("", "hq"), 0o700); err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(server.Listener.Addr().String())
	r := &renderer{settings: Settings{Script: name}}
	for _, c := range []struct {
		check plugins.Check
		to    string
		want  bool
	}{
		{plugins.Check{Type: plugins.CheckSSTP, Host: "vpn.example.com"}, "127.0.0.1", true},
		{plugins.Check{Type: plugins.CheckSSTP}, "127.0.0.1", true},
		{plugins.Check{Type: plugins.CheckSSTP, Expect: 200}, "127.0.0.1", false},
		{plugins.Check{Type: plugins.CheckSSTP, Host: "vpn.example.com", VerifyTLS: true}, "127.0.0.1", false}, // nobody knows its CA
		{plugins.Check{Type: plugins.CheckSSTP, PlainHTTP: true}, "127.0.0.1", false},
		{plugins.Check{Type: plugins.CheckSSTP}, "127.0.0.9", false},
	} {
		usual := c.check.Usual()
		usual.Port, usual.Path = int(at.Port()), plugins.SSTPPath
		if c.to == "127.0.0.9" {
			usual.Port = 1
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		command := r.command(&usual, netip.MustParseAddr(c.to))
		out, err := exec.CommandContext(ctx, "sh", "-c", command).CombinedOutput()
		cancel()
		if (err == nil) != c.want {
			t.Errorf("%s: %v: %s", command, err, out)
		}
	}
	if want := "HEAD vpn.example.com:" + strconv.Itoa(int(at.Port())) + " " + plugins.SSTPPath; len(asked) < 2 || asked[0] != want {
		t.Errorf("asked %q, want %q first", asked, want)
	}
}

func FuzzParseServices(f *testing.F) {
	f.Add("IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n" +
		"TCP  C000020A:01BB mh\n  -> 0A00010B:01BB      Masq    1      3          4\nFWM  0A10DECF wlc persistent 2100 FFFFFFFF\n" +
		"UDP  [2001:0db8:0000:0000:0000:0000:0000:0010]:01F4 wlc\n  -> [2001:0db8:0000:0000:0000:0000:0000:0011]:01F4      Route   0      0          0\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseServices(text)
		if err == nil && len(list) > strings.Count(text, "\n")+1 {
			t.Error(list)
		}
	})
}

func TestParseServices(t *testing.T) {
	list, err := parseServices("TCP  C000020A:01BB mh\n  -> 0A00010B:01BB      Masq    1      3          4\nFWM  0A10DECF wlc persistent 2100 FFFFFFFF\n" +
		"UDP  [2001:0db8:0000:0000:0000:0000:0000:0010]:01F4 wlc\n  -> [2001:0db8:0000:0000:0000:0000:0000:0011]:01F4      Route   0      0          0\n")
	want := []service{
		{"TCP 192.0.2.10 443", []destination{{netip.MustParseAddr("10.0.1.11"), 1, 3, 4}}},
		{"FWM 168877775", nil},
		{"UDP 2001:db8::10 500", []destination{{netip.MustParseAddr("2001:db8::11"), 0, 0, 0}}},
	}
	if diff := cmp.Diff(want, list, cmp.AllowUnexported(service{}, destination{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestSettings(t *testing.T) {
	for raw, want := range map[string]string{
		`{}`:                                                        "settings.file",
		`{"file": "/a", "nonsense": 1}`:                             "settings",
		`{"file": "/a", "method": "masq"}`:                          "settings.method",
		`{"file": "/a", "script": "x y"}`:                           "settings.script",
		`{"file": "/a", "marks": "/a"}`:                             "settings.marks",
		`{"file": "/a", "user": "a b"}`:                             "settings.user",
		`{"file": "/a", "vrrp": {"router": 5}}`:                     "settings.vrrp.interface",
		`{"file": "/a", "vrrp": {"interface": "e", "router": 256}}`: "settings.vrrp.router",
		`{"file": "/a", "vrrp": {"interface": "e", "router": 5, "self": "10.0.0.1"}}`: "settings.vrrp.peer",
		`{"file": "/a", "vrrp": {"interface": "e;x", "router": 5}}`:                   "settings.vrrp.interface",
		`{"file": "/a", "vrrp": {"interface": "e", "router": 5, "priority": 255}}`:    "settings.vrrp.priority",
	} {
		err := new(Driver).Configure(t.Context(), plugins.Config{Settings: []byte(raw)})
		list := plugins.FieldErrors(err)
		if len(list) == 0 || list[0].Path != want {
			t.Errorf("%s: %v, want a fault in %s", raw, err, want)
		}
	}
}
