package rest

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// write writes a file, and returns its name.
func write(t *testing.T, b []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestClient(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	box := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}))
	defer box.Close()
	ca := write(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: box.Certificate().Raw}))
	for _, tt := range []struct {
		name, ca, server string
		use              *http.Client
		err              string
	}{
		{name: "known", ca: ca},
		{name: "known by another name", ca: ca, server: "example.com"},
		{name: "another's name", ca: ca, server: "example.net", err: "example.net"},
		{name: "unknown", err: "unknown authority"},
		{name: "injected", use: box.Client()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Client(tt.use, tt.ca, tt.server)
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, box.URL, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			res, err := c.Do(req)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("Do: %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusTemporaryRedirect {
				t.Errorf("status %d, %v; want the redirect itself", res.StatusCode, err)
			}
		})
	}
	if box.Client().CheckRedirect != nil {
		t.Error("the client that was injected has changed")
	}
}

func TestClientFile(t *testing.T) {
	for _, tt := range []struct{ name, file, err string }{
		{"none", filepath.Join(t.TempDir(), "none.pem"), "none.pem"},
		{"not PEM", write(t, []byte("hello")), "no certificate"},
		{"too large", write(t, make([]byte, maxCAs+1)), "more than"},
	} {
		if _, err := Client(nil, tt.file, ""); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
		}
	}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Pace{PerSecond: 4}
		start := time.Now()
		for range 9 {
			if err := p.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("9 calls, 4 a second, took %v", took)
		}
		// What wasn't used isn't saved up.
		time.Sleep(time.Minute)
		start = time.Now()
		for range 5 {
			if err := p.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("5 calls after a minute took %v", took)
		}
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(100*time.Millisecond, func() { cancel(gone) })
		if err := p.Wait(ctx); !errors.Is(err, gone) {
			t.Errorf("Wait: %v", err)
		}
		if err := new(Pace).Wait(ctx); !errors.Is(err, gone) {
			t.Errorf("Wait without a pace, after the end: %v", err)
		}
	})
}
