package netscaler

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// NITRO's numbers of errors.
const (
	codeMissing  = 258  // no such resource
	codeInUse    = 257  // the operation isn't permitted
	codeExists   = 273  // the resource is there already
	codeArgument = 278  // an argument is invalid
	codeNeeded   = 1093 // an argument is missing
	codeLogin    = 354  // the user or the password is wrong
	codeSession  = 444  // the session has ended
)

// object holds the fields of something.
type object map[string]any

// An Appliance is a NetScaler. Its methods may be called by several goroutines.
type Appliance struct {
	user, password string

	mu       sync.Mutex
	objects  map[string]map[string]object // by kind and name
	attached map[string]map[string]object
	bindings map[string][]object
	features []string
	sessions map[string]int // requests that are left
	logins   int
	each     int // requests that a session lasts, 0: any
	writes   int
	left     int // writes that are left, less than 0: any
	breaks   int
	unheard  bool // the write that breaks is done, and its answer lost
	saves    int
	unsaved  bool
	refuse   func(method, kind, name string) (code int)
	counted  map[string]object // statistics, by kind and name
}

// New returns an appliance with one user, and with LB and SSL enabled.
func New(user, password string) *Appliance {
	a := &Appliance{
		user: user, password: password, left: -1, features: []string{"LB", "SSL"}, sessions: make(map[string]int),
		objects: make(map[string]map[string]object), attached: make(map[string]map[string]object), bindings: make(map[string][]object),
		counted: make(map[string]object),
	}
	for kind := range resources {
		a.objects[kind] = make(map[string]object)
	}
	for kind := range attachments {
		a.attached[kind] = make(map[string]object)
	}
	return a
}

// problem is an error as NITRO has it.
type problem struct {
	code int
	text string
}

func bad(code int, format string, args ...any) *problem {
	return &problem{code, fmt.Sprintf(format, args...)}
}

// status returns the HTTP status of a problem.
func (p *problem) status() int {
	switch p.code {
	case codeMissing:
		return http.StatusNotFound
	case codeExists:
		return http.StatusConflict
	case codeLogin, codeSession:
		return http.StatusUnauthorized
	}
	return http.StatusBadRequest
}

func answer(w http.ResponseWriter, status int, body object) {
	if body == nil {
		body = object{}
	}
	if _, ok := body["errorcode"]; !ok {
		body["errorcode"], body["message"], body["severity"] = 0, "Done", "NONE"
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // whoever asked may be gone
}

func (p *problem) answer(w http.ResponseWriter) {
	answer(w, p.status(), object{"errorcode": p.code, "message": p.text, "severity": "ERROR"})
}

// ServeHTTP serves NITRO.
func (a *Appliance) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4<<20))
	if err != nil {
		bad(codeArgument, "The request is too large").answer(w)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/nitro/v1/")
	area, rest, _ := strings.Cut(rest, "/")
	kind, name, _ := strings.Cut(rest, "/")
	name, err = url.PathUnescape(name)
	if !ok || err != nil {
		http.NotFound(w, r)
		return
	}
	if area == "config" && kind == "login" {
		a.login(w, body)
		return
	}
	if !a.session(r) {
		bad(codeSession, "Session expired or killed. Please login again").answer(w)
		return
	}
	out, p := a.route(r, area, kind, name, body)
	switch {
	case p != nil:
		p.answer(w)
	case r.Method == http.MethodPost && r.URL.Query().Get("action") == "":
		answer(w, http.StatusCreated, out)
	default:
		answer(w, http.StatusOK, out)
	}
}

func (a *Appliance) login(w http.ResponseWriter, body []byte) {
	in, p := fields("login", body, []string{"username", "password", "timeout"})
	if p == nil && (in["username"] != a.user || in["password"] != a.password) {
		p = bad(codeLogin, "Invalid username or password")
	}
	if p != nil {
		p.answer(w)
		return
	}
	a.logins++
	token := "session" + strconv.Itoa(a.logins)
	a.sessions[token] = a.each
	answer(w, http.StatusCreated, object{"sessionid": token})
}

// session reports whether a request belongs to a session.
func (a *Appliance) session(r *http.Request) bool {
	c, err := r.Cookie("NITRO_AUTH_TOKEN")
	if err != nil {
		return false
	}
	left, ok := a.sessions[c.Value]
	if !ok {
		return false
	}
	if a.each > 0 {
		if left == 0 {
			delete(a.sessions, c.Value)
			return false
		}
		a.sessions[c.Value] = left - 1
	}
	return true
}

// route finds who serves a request.
func (a *Appliance) route(r *http.Request, area, kind, name string, body []byte) (object, *problem) {
	query := r.URL.Query()
	args, p := arguments(r.URL.RawQuery)
	if p != nil {
		return nil, p
	}
	switch {
	case kind == "logout":
		delete(a.sessions, cookie(r))
		return nil, nil
	case area == "stat":
		return a.stat(kind, name, args)
	case area != "config":
		return nil, bad(codeMissing, "No such area [%s]", area)
	case r.Method == http.MethodGet:
		return a.get(kind, name, args)
	}
	if a.left == 0 {
		if a.unheard {
			a.unheard = false
			_ = a.written(r.Method, kind, name, query.Get("action"), args, body) // nobody hears of it
		}
		panic(http.ErrAbortHandler) // as if the cable had been pulled
	}
	if a.refuse != nil {
		if code := a.refuse(r.Method, kind, name); code != 0 {
			return nil, bad(code, "Refused")
		}
	}
	a.left--
	return nil, a.written(r.Method, kind, name, query.Get("action"), args, body)
}

// written counts a write, and does it.
func (a *Appliance) written(method, kind, name, action string, args map[string]string, body []byte) *problem {
	a.writes++
	p := a.write(method, kind, name, action, args, body)
	if p == nil && kind != "nsconfig" && kind != "systemfile" { // files are on the disk at once
		a.unsaved = true
	}
	return p
}

func cookie(r *http.Request) string {
	c, err := r.Cookie("NITRO_AUTH_TOKEN")
	if err != nil {
		return ""
	}
	return c.Value
}

// arguments reads args=k:v,k:v of a query, in which values are escaped once.
func arguments(query string) (map[string]string, *problem) {
	out := make(map[string]string)
	for param := range strings.SplitSeq(query, "&") {
		list, ok := strings.CutPrefix(param, "args=")
		if !ok {
			continue
		}
		for pair := range strings.SplitSeq(list, ",") {
			k, v, ok := strings.Cut(pair, ":")
			v, err := url.QueryUnescape(v)
			if !ok || err != nil || strings.Contains(k, "%") {
				return nil, bad(codeArgument, "Invalid argument [args]")
			}
			out[k] = v
		}
	}
	return out, nil
}

// fields reads {"kind": {…}}, and refuses what isn't known.
func fields(kind string, body []byte, known []string) (object, *problem) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var in map[string]object
	if err := dec.Decode(&in); err != nil || len(in) != 1 || in[kind] == nil {
		return nil, bad(codeArgument, "Invalid JSON for [%s]", kind)
	}
	for k, v := range in[kind] {
		if !slices.Contains(known, k) {
			return nil, bad(codeArgument, "Invalid argument [%s]", k)
		}
		if n, ok := v.(json.Number); ok {
			i, err := strconv.Atoi(n.String())
			if err != nil {
				return nil, bad(codeArgument, "Invalid argument value [%s]", k)
			}
			in[kind][k] = i
		}
	}
	return in[kind], nil
}

func (a *Appliance) write(method, kind, name, action string, args map[string]string, body []byte) *problem {
	if kind == "nsconfig" && action == "save" {
		if _, p := fields(kind, body, []string{"all"}); p != nil {
			return p
		}
		a.saves++
		a.unsaved = false
		return nil
	}
	if p := a.enabled(kind); p != nil {
		return p
	}
	if l, ok := links[kind]; ok {
		return a.bind(method, kind, l, name, args, body)
	}
	if t, ok := attachments[kind]; ok {
		return a.attach(method, action, kind, t, body)
	}
	res := resources[kind]
	if res == nil {
		return bad(codeMissing, "No such resource [%s]", kind)
	}
	switch {
	case method == http.MethodPost && action == "":
		return a.add(kind, res, body)
	case method == http.MethodPost:
		return a.act(kind, res, action, body)
	case method == http.MethodPut:
		return a.change(kind, res, body)
	case method == http.MethodDelete:
		return a.remove(kind, res, name, args)
	}
	return bad(codeInUse, "Operation not permitted")
}

// Writes counts what was written, successfully or not.
func (a *Appliance) Writes() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.writes
}

// Saves counts how often the configuration was saved, and says whether something
// was changed since.
func (a *Appliance) Saves() (n int, unsaved bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.saves, a.unsaved
}

// Logins counts sessions.
func (a *Appliance) Logins() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.logins
}

// BreakAfter has connections break from the nth further write on; a negative n
// heals it. Each second time the write that breaks is done, and only its answer is lost.
func (a *Appliance) BreakAfter(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left = n; n >= 0 {
		a.breaks++
		a.unheard = a.breaks%4 > 1 // for both of two directions
	}
}

// SessionsLast has sessions end after so many requests; 0 means never. Those that
// are there end now.
func (a *Appliance) SessionsLast(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.each = n
	clear(a.sessions)
}

// Refuse has f say which writes are refused, by the number of an error; nil
// refuses none.
func (a *Appliance) Refuse(f func(method, kind, name string) (code int)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuse = f
}

// SetFeatures says which features are enabled.
func (a *Appliance) SetFeatures(list ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.features = list
}

// Put makes or changes an object, as an administrator might.
func (a *Appliance) Put(kind, name string, values map[string]any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.objects[kind][name]
	if o == nil {
		o = object{resources[kind].key: name}
		maps.Copy(o, resources[kind].defaults)
		a.objects[kind][name] = o
	}
	maps.Copy(o, values)
}

// Get returns a field of an object, as text.
func (a *Appliance) Get(kind, name, field string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.objects[kind][name]
	if o == nil {
		o = a.attached[kind][name]
	}
	if v, ok := o[field]; ok {
		return fmt.Sprint(v)
	}
	return ""
}

// Names returns the names of objects of a kind, in order.
func (a *Appliance) Names(kind string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.objects[kind]))
}

// Bound returns the bindings of a parent, as text.
func (a *Appliance) Bound(kind, parent string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	l := links[kind]
	for _, b := range a.bindings[kind] {
		if b[l.parent] != parent {
			continue
		}
		line := ""
		for _, k := range append(slices.Clone(l.keys), l.fields...) {
			if v, ok := b[k]; ok {
				line += fmt.Sprintf(" %s=%v", k, v)
			}
		}
		out = append(out, strings.TrimSpace(line))
	}
	slices.Sort(out)
	return out
}

// Count sets the statistics of an object: of a lbvserver by its name, of a
// servicegroupmember by group?ip?port.
func (a *Appliance) Count(kind, name string, values map[string]any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counted[kind+" "+name] = values
}

// SetDown has a server's members of a servicegroup fail their monitors, or pass.
func (a *Appliance) SetDown(group, server string, down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.bindings["servicegroup_servicegroupmember_binding"] {
		if b["servicegroupname"] == group && b["servername"] == server {
			b["down"] = down
		}
	}
}

// Except shows all objects whose names don't begin with a prefix, as text.
func (a *Appliance) Except(prefix string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var lines []string
	for kind, list := range a.objects {
		for name, o := range list {
			where, _ := o["preferredlocation"].(string) // a location has no name, its last word may be one
			if !strings.HasPrefix(name, prefix) && (where == "" || !strings.HasSuffix(where, "."+strings.TrimSuffix(prefix, "_"))) {
				b, _ := json.Marshal(o) // plain values
				lines = append(lines, kind+" "+name+" "+string(b))
			}
		}
	}
	for kind, list := range a.bindings {
		for _, o := range list {
			if parent, _ := o[links[kind].parent].(string); !strings.HasPrefix(parent, prefix) {
				b, _ := json.Marshal(o) // plain values
				lines = append(lines, kind+" "+string(b))
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
