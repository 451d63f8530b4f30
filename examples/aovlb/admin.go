package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/builtin"
)

// The admin API: JSON over HTTP, on a unix socket that only its owner can open,
// or on TCP with a bearer token. docs/admin-api.md describes it.

// maxBody bounds the body of a request, in bytes.
const maxBody = 64 << 10

// Status is what GET /v1/status returns.
type Status struct {
	Version string    `json:"version"`
	File    string    `json:"file"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	plugins.Stats
	// Certificates are those that clients of SSTP are shown.
	Certificates []certificateReply `json:"certificates,omitempty"`
	// Geo is the DNS server, if there is one.
	Geo *GeoStatus `json:"geo,omitempty"`
}

// drainBody is the body of POST /v1/drain and /v1/undrain.
type drainBody struct {
	// Backend is a name, or pool/name.
	Backend string `json:"backend"`
	// Deadline is how long its clients may stay; empty means for ever.
	Deadline plugins.Duration `json:"deadline,omitempty"`
}

// failbackBody is the body of POST /v1/failback.
type failbackBody struct {
	Pool string `json:"pool"`
}

// reloadReply is what POST /v1/reload returns.
type reloadReply struct {
	Changes  []plugins.Change     `json:"changes"`
	Warnings []plugins.Diagnostic `json:"warnings"`
}

// problem is the body of every answer that isn't a success.
type problem struct {
	Error string `json:"error"`
	// File and Faults say what is wrong with the file.
	File   string  `json:"file,omitempty"`
	Faults []Fault `json:"faults,omitempty"`
}

// token reads the token; nil if there is none.
func (a *AdminAPI) token() ([]byte, error) {
	if a.TokenFile == "" {
		return nil, nil
	}
	token, err := plugins.Secret{File: a.TokenFile}.Read()
	if err == nil && len(token) < 16 {
		err = errors.New("the token has less than 16 bytes")
	}
	if err != nil {
		return nil, &plugins.FieldError{Path: "admin.token_file", Err: err}
	}
	return token, nil
}

// admin opens the API's socket.
func (s *server) admin(a AdminAPI) (net.Listener, http.Handler, error) {
	network, addr, err := listenAddr(a.Listen)
	if err != nil {
		return nil, nil, err
	}
	token, err := a.token()
	if err != nil {
		return nil, nil, err
	}
	if network == "tcp" && token == nil {
		return nil, nil, errors.New("admin.token_file: it is needed, as admin.listen isn't a unix socket")
	}
	var l net.Listener
	if network == "unix" {
		l, err = listenUnix(addr)
	} else {
		l, err = net.Listen("tcp", addr)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("admin.listen: %w", err)
	}
	return l, s.handler(token), nil
}

// listenUnix opens a socket that only this user can connect to. One that an
// earlier process left behind is removed; one that is served is not.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("another process serves %s", path)
	} else if info, statErr := os.Lstat(path); errors.Is(err, syscall.ECONNREFUSED) && statErr == nil && info.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return listenPrivate(path)
}

// handler serves the API. token is nil if none is needed.
func (s *server) handler(token []byte) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.handleStatus)
	mux.HandleFunc("GET /v1/deployment", s.handleDeployment)
	mux.HandleFunc("GET /v1/explain", s.handleExplain)
	mux.HandleFunc("GET /v1/events", s.handleEvents)
	mux.HandleFunc("GET /v1/sessions", s.handleSessions)
	mux.HandleFunc("GET /v1/certificates", s.handleCertificates)
	mux.HandleFunc("GET /v1/renewal-script", s.handleRenewalScript)
	mux.HandleFunc("POST /v1/renew", s.handleRenew)
	mux.HandleFunc("POST /v1/drain", s.handleDrain)
	mux.HandleFunc("POST /v1/undrain", s.handleUndrain)
	mux.HandleFunc("POST /v1/failback", s.handleFailback)
	mux.HandleFunc("POST /v1/reload", s.handleReload)
	if s.geo != nil {
		s.geo.routes(mux)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusNotFound, problem{Error: "there is nothing here by this method and path"})
	})
	return authorize(token, http.MaxBytesHandler(mux, maxBody))
}

// authorize lets through who shows the token.
func authorize(token []byte, next http.Handler) http.Handler {
	if token == nil {
		return next
	}
	want := sha256.Sum256(token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(shown))
		if !ok || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="aovlb"`)
			reply(w, http.StatusUnauthorized, problem{Error: "the bearer token is missing or wrong"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	// If it can't be written, the caller is gone.
	_ = printJSON(w, v)
}

// fail says what went wrong, by the code that suits it.
func fail(w http.ResponseWriter, err error) {
	var faults *Faults
	switch {
	case errors.As(err, &faults):
		reply(w, http.StatusUnprocessableEntity, problem{Error: "the file can't be used", File: faults.File, Faults: faults.List})
	case errors.Is(err, plugins.ErrNotFound):
		reply(w, http.StatusNotFound, problem{Error: err.Error()})
	default:
		reply(w, http.StatusConflict, problem{Error: err.Error()})
	}
}

// read reads a request's body, strictly. It answers if that fails.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		// This also keeps web pages from calling without the browser asking.
		reply(w, http.StatusUnsupportedMediaType, problem{Error: "the Content-Type must be application/json"})
		return false
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, extra := d.Token(); extra != io.EOF {
			err = errors.New("there is more than one value")
		}
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		reply(w, http.StatusRequestEntityTooLarge, problem{Error: "the body is too large"})
	case err != nil:
		reply(w, http.StatusBadRequest, problem{Error: "the body can't be read: " + bodyError(err)})
	}
	return err == nil
}

// bodyError puts what encoding/json finds in words that don't need Go.
func bodyError(err error) string {
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF):
		return "it is empty"
	case errors.As(err, &kind) && kind.Field == "":
		return "it must be an object, not " + kind.Value
	case errors.As(err, &kind):
		return fmt.Sprintf("%s must be text, not %s", kind.Field, kind.Value)
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

func (s *server) handleStatus(w http.ResponseWriter, r *http.Request) {
	stats, err := s.driver.Stats(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	st := Status{
		Version: version(), File: s.file, PID: os.Getpid(), Started: s.start.Round(0), Stats: *stats, Certificates: s.certificates(),
	}
	if s.geo != nil {
		st.Geo = s.geo.status()
	}
	reply(w, http.StatusOK, st)
}

func (s *server) handleDeployment(w http.ResponseWriter, r *http.Request) {
	state, err := s.driver.Read(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, state)
}

func (s *server) handleExplain(w http.ResponseWriter, r *http.Request) {
	list, err := s.driver.Explain(r.URL.Query().Get("client"))
	if err != nil {
		reply(w, http.StatusBadRequest, problem{Error: err.Error()})
		return
	}
	if list == nil {
		list = []builtin.Explanation{}
	}
	reply(w, http.StatusOK, list)
}

// handleEvents streams events, one JSON object a line, until the caller leaves.
func (s *server) handleEvents(w http.ResponseWriter, r *http.Request) {
	out := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	if out.Flush() != nil {
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	enc := json.NewEncoder(w)
	_ = s.driver.Watch(ctx, func(e plugins.Event) { // it ends with ctx only
		_ = out.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if enc.Encode(e) != nil || out.Flush() != nil {
			cancel()
		}
	})
}

func (s *server) handleDrain(w http.ResponseWriter, r *http.Request) {
	var b drainBody
	if !read(w, r, &b) {
		return
	}
	req := plugins.DrainRequest{BackendRef: plugins.ParseBackendRef(b.Backend)}
	switch {
	case b.Backend == "":
		reply(w, http.StatusBadRequest, problem{Error: "backend is needed"})
		return
	case b.Deadline < 0:
		reply(w, http.StatusBadRequest, problem{Error: "deadline is negative"})
		return
	case b.Deadline > 0:
		req.Deadline = time.Now().Add(b.Deadline.D()).Round(time.Second)
	}
	if err := s.driver.Drain(r.Context(), req); err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, req)
}

func (s *server) handleUndrain(w http.ResponseWriter, r *http.Request) {
	var b drainBody
	if !read(w, r, &b) {
		return
	}
	if b.Backend == "" || b.Deadline != 0 {
		reply(w, http.StatusBadRequest, problem{Error: "backend is needed, and nothing else"})
		return
	}
	if err := s.driver.Undrain(r.Context(), plugins.ParseBackendRef(b.Backend)); err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, struct{}{})
}

func (s *server) handleFailback(w http.ResponseWriter, r *http.Request) {
	var b failbackBody
	if !read(w, r, &b) {
		return
	}
	if err := s.driver.Failback(b.Pool); err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, struct{}{})
}

func (s *server) handleReload(w http.ResponseWriter, r *http.Request) {
	var b struct{}
	if !read(w, r, &b) {
		return
	}
	p, err := s.reload(context.WithoutCancel(r.Context()))
	if err != nil {
		s.log.Error("reload refused, everything goes on as it was", "error", err)
		fail(w, err)
		return
	}
	out := reloadReply{Changes: p.Changes, Warnings: p.Diagnostics}
	if out.Changes == nil {
		out.Changes = []plugins.Change{}
	}
	if out.Warnings == nil {
		out.Warnings = []plugins.Diagnostic{}
	}
	reply(w, http.StatusOK, out)
}
