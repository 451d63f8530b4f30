package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/builtin"

	"github.com/aovlb/aovlb/internal/peers/freeport"
)

// newServer returns a server that serves nothing on the network: its one
// listener is on loopback, and so are its backends.
func newServer(t testing.TB) *server {
	port, err := freeport.Pick()
	if err != nil {
		t.Skip("no loopback:", err)
	}
	file := filepath.Join(t.TempDir(), "aovlb.yaml")
	text := strings.ReplaceAll(`sites:
  - name: hq
    pools:
      - name: ras
        backends: [{name: ras1, address: 127.0.9.1}, {name: ras2, address: 127.0.9.2}]
    groups:
      - name: vpn
        pool: ras
        listeners: [{name: u, protocol: ikev2, address: "127.0.0.1:PORT", workers: 1}]
`, "PORT", itoa(int(port)))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := &environment{stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}
	s := &server{env: env, file: file, log: slog.New(slog.DiscardHandler), driver: new(builtin.Driver), start: time.Now()}
	s.cas = &cas{driver: s.driver, log: s.log}
	src, err := readConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.apply(context.Background(), src); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 0)
		defer cancel()
		if err := s.driver.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

func call(h http.Handler, method, path, contentType, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAdmin(t *testing.T) {
	s := newServer(t)
	h := s.handler(nil)
	const js = "application/json"
	for _, tt := range []struct {
		method, path, contentType, body string
		code                            int
		text                            string
	}{
		{"GET", "/v1/status", "", "", 200, `"name": "ras1"`},
		{"GET", "/v1/deployment", "", "", 200, `"picker"`},
		{"GET", "/v1/explain?client=192.0.2.1", "", "", 200, `"group": "vpn"`},
		{"GET", "/v1/explain?client=0123456789abcdef", "", "", 200, `IKE SPI 0123456789abcdef`},
		{"GET", "/v1/explain", "", "", 400, `name a client`},
		{"POST", "/v1/drain", js, `{"backend":"ras1"}`, 200, `"backend": "ras1"`},
		{"POST", "/v1/drain", js + "; charset=utf-8", `{"backend":"ras/ras1","deadline":"30m"}`, 200, `"deadline": "20`},
		{"POST", "/v1/undrain", js, `{"backend":"ras1"}`, 200, `{}`},
		{"POST", "/v1/undrain", js, `{"backend":"ras1"}`, 409, `isn't being drained`},
		{"POST", "/v1/undrain", js, `{"backend":"ras1","deadline":"1s"}`, 400, `nothing else`},
		{"POST", "/v1/drain", js, `{"backend":"none"}`, 404, `there is no backend none`},
		{"POST", "/v1/drain", js, `{"backend":""}`, 400, `backend is needed`},
		{"POST", "/v1/drain", js, `{"backend":"ras1","deadline":"-1s"}`, 400, `negative`},
		{"POST", "/v1/drain", js, `{"backend":"ras1","deadline":5}`, 400, `can't be read`},
		{"POST", "/v1/drain", js, `{"backnd":"ras1"}`, 400, `unknown field`},
		{"POST", "/v1/drain", js, `{"backend":"ras1"}{}`, 400, `more than one value`},
		{"POST", "/v1/drain", js, ``, 400, `can't be read`},
		{"POST", "/v1/drain", "text/plain", `{"backend":"ras1"}`, 415, `application/json`},
		{"POST", "/v1/drain", js, `{"backend":"` + strings.Repeat("x", maxBody) + `"}`, 413, `too large`},
		{"GET", "/v1/drain", "", "", 404, `nothing here`},
		{"POST", "/v1/failback", js, `{"pool":"ras"}`, 200, `{}`},
		{"POST", "/v1/failback", js, `{"pool":"x"}`, 404, `no pool`},
		{"POST", "/v1/reload", js, `{}`, 200, `"changes": []`},
		{"GET", "/", "", "", 404, `nothing here`},
	} {
		w := call(h, tt.method, tt.path, tt.contentType, tt.body)
		if w.Code != tt.code || !strings.Contains(strings.ReplaceAll(w.Body.String(), `"name": "ras"`, `"picker"`), tt.text) {
			t.Errorf("%s %s %.60s: %d %s; want %d with %s", tt.method, tt.path, tt.body, w.Code, w.Body, tt.code, tt.text)
		}
	}
}

// An invalid file is refused with all faults, and nothing changes.
func TestAdminReload(t *testing.T) {
	s := newServer(t)
	h := s.handler(nil)
	b, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		if err := os.WriteFile(s.file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := s.driver.Read(t.Context())
	bad := bytes.ReplaceAll(b, []byte("pool: ras"), []byte("pool: x"))
	write(bytes.ReplaceAll(bad, []byte("127.0.9.2"), []byte("127.0.9.")))
	w := call(h, "POST", "/v1/reload", "application/json", "{}")
	var p problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 422 || len(p.Faults) != 2 || p.Faults[0].Line != 5 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if after, _ := s.driver.Read(t.Context()); after.Revision != before.Revision {
		t.Error("something has changed")
	}
	write(bytes.ReplaceAll(b, []byte("name: ras2"), []byte("name: ras3")))
	w = call(h, "POST", "/v1/reload", "application/json", "{}")
	var ok reloadReply
	if err := json.Unmarshal(w.Body.Bytes(), &ok); err != nil || len(ok.Changes) != 2 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestAdminToken(t *testing.T) {
	s := newServer(t)
	h := s.handler([]byte("0123456789abcdef"))
	for auth, code := range map[string]int{
		"": 401, "Bearer ": 401, "Bearer 0123456789abcdeX": 401, "Basic 0123456789abcdef": 401,
		"0123456789abcdef": 401, "Bearer 0123456789abcdef": 200,
	} {
		r := httptest.NewRequest(http.MethodGet, "/v1/status", nil)
		r.Header.Set("Authorization", auth)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != code {
			t.Errorf("%q: %d, want %d", auth, w.Code, code)
		}
		if strings.Contains(w.Body.String(), "0123456789abcdef") {
			t.Error("the token is in the answer")
		}
	}
}

// The socket is private; one that an earlier process left behind is replaced;
// one that is served isn't, nor is what isn't a socket.
func TestAdminSocket(t *testing.T) {
	s := newServer(t)
	path := filepath.Join(t.TempDir(), "dir", "a.sock")
	l, _, err := s.admin(AdminAPI{Listen: "unix:" + path})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, _, err := s.admin(AdminAPI{Listen: "unix:" + path}); err == nil || !strings.Contains(err.Error(), "another process serves") {
		t.Error(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if l, _, err = s.admin(AdminAPI{Listen: "unix:" + path}); err != nil {
		t.Fatal("left behind:", err)
	}
	l.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.admin(AdminAPI{Listen: "unix:" + path}); err == nil {
		t.Error("a file was replaced")
	}
	if _, _, err := s.admin(AdminAPI{Listen: "127.0.0.1:0"}); err == nil {
		t.Error("TCP without a token")
	}
	short := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(short, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.admin(AdminAPI{Listen: "127.0.0.1:0", TokenFile: short}); err == nil || strings.Contains(err.Error(), "short\n") {
		t.Error(err)
	}
}

// Events come as lines, while they happen.
func TestAdminEvents(t *testing.T) {
	s := newServer(t)
	srv := httptest.NewServer(s.handler(nil))
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan plugins.Event, 1)
	done := make(chan struct{})
	defer func() { cancel(); <-done }()
	go func() {
		defer close(done)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Error(err)
			return
		}
		defer res.Body.Close()
		var e plugins.Event
		if json.NewDecoder(res.Body).Decode(&e) == nil {
			got <- e
		}
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(10 * time.Second)
	for {
		call(s.handler(nil), "POST", "/v1/failback", "application/json", `{"pool":"ras"}`)
		select {
		case e := <-got:
			if e.Kind != "failback" || e.Name != "ras" {
				t.Errorf("%+v", e)
			}
			return
		case <-tick.C:
		case <-late:
			t.Fatal("no event came")
		}
	}
}

func TestMetricsEndpoint(t *testing.T) {
	s := newServer(t)
	l, h, err := s.metrics(Metrics{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	w := call(h, "GET", "/metrics", "", "")
	for _, want := range []string{
		`aovlb_backend_status{aovlb_backend_name="ras1",aovlb_backend_state="up",aovlb_group_name="vpn"} 1`,
		`aovlb_listener_name="u"`, "go_goroutines",
	} {
		if w.Code != 200 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%d, without %s", w.Code, want)
		}
	}
}

// Whatever is sent, it is answered by JSON, and nothing that a caller sends is
// our fault (5xx).
func FuzzAdmin(f *testing.F) {
	s := newServer(f)
	h := s.handler(nil)
	f.Add("POST", "/v1/drain", "application/json", []byte(`{"backend":"ras1","deadline":"30m"}`))
	f.Add("POST", "/v1/undrain", "application/json", []byte(`{"backend":"ras/ras1"}`))
	f.Add("POST", "/v1/failback", "application/json", []byte(`{"pool":"ras"}`))
	f.Add("POST", "/v1/reload", "application/json", []byte(`{}`))
	f.Add("GET", "/v1/status", "", []byte(nil))
	f.Add("GET", "/v1/explain?client=10.0.0.1%3A500", "", []byte(nil))
	f.Add("GET", "/v1/explain?client=0123456789abcdef", "", []byte(nil))
	f.Fuzz(func(t *testing.T, method, path, contentType string, body []byte) {
		r, err := http.NewRequest(method, "http://aovlb"+path, bytes.NewReader(body))
		if err != nil || r.URL.Path == "/v1/events" {
			return
		}
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
		if loc := w.Header().Get("Location"); loc == "" && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %s: %d, not JSON: %s", method, path, w.Code, w.Body)
		}
	})
}

// What the API serves and what its page says are the same.
func TestAdminIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/admin-api.md")
	if err != nil {
		t.Fatal(err)
	}
	var src []byte
	for _, name := range []string{"admin.go", "geo_view.go"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		src = append(src, b...)
	}
	routes := regexp.MustCompile(`(GET|POST) /v1/[a-z]+`)
	served, documented := make(map[string]bool), make(map[string]bool)
	for _, m := range regexp.MustCompile(`HandleFunc\("([^"]+)"`).FindAllSubmatch(src, -1) {
		if r := routes.FindString(string(m[1])); r != "" {
			served[r] = true
		}
	}
	for _, m := range regexp.MustCompile("`((GET|POST) /v1/[a-z]+)").FindAllSubmatch(page, -1) {
		documented[string(m[1])] = true
	}
	if diff := cmp.Diff(served, documented); diff != "" || len(served) == 0 {
		t.Errorf("served, documented: %s", diff)
	}
}

// Who calls the API needn't know Go to understand what is wrong.
func TestBodyErrors(t *testing.T) {
	for body, want := range map[string]string{
		"":                               "it is empty",
		"[]":                             "it must be an object, not array",
		`{"backend": 1}`:                 "backend must be text, not number",
		`{"backend": "a", "deadline":5}`: "deadline must be text, not number",
		`{"x": 1}`:                       `unknown field "x"`,
	} {
		r := httptest.NewRequest(http.MethodPost, "/v1/drain", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		var b drainBody
		if read(w, r, &b) || w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", body, w.Code)
		}
		var p problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Error != "the body can't be read: "+want {
			t.Errorf("%s: %v, %q, want %q", body, err, p.Error, want)
		}
	}
}
