package f5

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
)

// User and Password log in.
const (
	User     = "admin"
	Password = "Canary-V3ry5ecret-7f3a"
)

// Box is a BIG-IP.
type Box struct {
	// Server is where it is reached, by TLS.
	Server *httptest.Server
	// Polls is how often a task is asked for before it has ended; TokenUses how
	// many requests a token is good for.
	Polls, TokenUses int

	mu       sync.Mutex
	tenants  map[string]map[string]any // what AS3 was told
	virtuals map[string]*Virtual       // by full path
	pools    map[string]*Pool
	names    map[string]*Name // wide IPs and their pools, by full path with the type of record
	topology int              // records
	flows    []Flow
	tokens   map[string]int
	tasks    map[string]*task
	serial   int
	writes   int
	left     int // writes until it breaks; negative never
	lost     bool
	fail     string
	failing  string // the tenant that fails; empty means the next one
	saved    bool
}

// Virtual is a virtual server.
type Virtual struct {
	Path, Destination, Protocol, Pool, Snat, Persist string
	Limit                                            int
	Disabled                                         bool
	Profiles                                         []string
}

// Pool is a pool.
type Pool struct {
	Path, Method string
	Active, Ramp int
	Members      []*Member
}

// Member is a member of a pool.
type Member struct {
	Name, Address, Session, State string
	Ratio, Priority, Limit        int
}

// Flow is a connection, or one of UDP.
type Flow struct {
	Client, Virtual, Server string
}

type task struct {
	left int
	run  func() []any
	done []any
}

// New returns a Box that others use already.
func New() *Box {
	b := &Box{
		Polls: 2, TokenUses: 40, left: -1,
		tenants: make(map[string]map[string]any), virtuals: make(map[string]*Virtual), pools: make(map[string]*Pool),
		names: make(map[string]*Name), tokens: make(map[string]int), tasks: make(map[string]*task),
	}
	b.tenants["Finance"] = map[string]any{"class": "Tenant", "books": map[string]any{
		"class": "Application", "web": map[string]any{"class": "Service_TCP", "virtualAddresses": []any{"198.51.100.7"}, "virtualPort": 443.0},
	}}
	b.virtuals["/Finance/books/web"] = &Virtual{Path: "/Finance/books/web", Destination: "/Finance/198.51.100.7:443", Protocol: "tcp", Snat: "automap"}
	b.virtuals["/Common/intranet"] = &Virtual{Path: "/Common/intranet", Destination: "/Common/198.51.100.8:443", Protocol: "tcp", Pool: "/Common/intranet", Snat: "automap"}
	b.pools["/Common/intranet"] = &Pool{Path: "/Common/intranet", Method: "round-robin", Members: []*Member{
		{Name: "10.0.1.11:443", Address: "10.0.1.11", Ratio: 1, Session: "monitor-enabled", State: "up"},
	}}
	b.flows = []Flow{{"203.0.113.9:4711", "198.51.100.8:443", "10.0.1.11:443"}}
	b.Server = httptest.NewTLSServer(http.HandlerFunc(b.serve))
	return b
}

// Writes returns how often the configuration was written to, and connections ended.
func (b *Box) Writes() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.writes
}

// BreakAfter has all writes fail after n more; a negative n heals. Each second time the
// write that fails is done, and only its answer is lost.
func (b *Box) BreakAfter(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = n
	if n >= 0 {
		b.lost = !b.lost
	}
}

// FailNext has the next declaration fail with a message, after AS3 has begun.
func (b *Box) FailNext(message string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = message
}

// FailTenant has the next declaration fail in one tenant, while others succeed.
func (b *Box) FailTenant(tenant, message string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail, b.failing = message, tenant
}

// write counts a write, and ends the request if the box is broken.
func (b *Box) write(do func()) {
	switch {
	case b.left == 0:
		if b.lost {
			b.lost = false
			b.writes++
			do()
		}
		panic(http.ErrAbortHandler)
	case b.left > 0:
		b.left--
	}
	b.writes++
	do()
}

// Foreign shows all that isn't of a tenant whose name begins with prefix.
func (b *Box) Foreign(prefix string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []any
	for _, k := range slices.Sorted(maps.Keys(b.tenants)) {
		switch {
		case k == "Common":
			app, _ := b.tenants[k]["Shared"].(map[string]any)
			for _, name := range slices.Sorted(maps.Keys(app)) {
				if _, ok := app[name].(map[string]any); ok && !strings.HasPrefix(name, prefix+"_") {
					out = append(out, name, app[name])
				}
			}
		case !strings.HasPrefix(k, prefix):
			out = append(out, k, b.tenants[k])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(b.virtuals)) {
		if !strings.HasPrefix(k, "/"+prefix) {
			out = append(out, b.virtuals[k])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(b.pools)) {
		if !strings.HasPrefix(k, "/"+prefix) {
			out = append(out, b.pools[k])
		}
	}
	for _, f := range b.flows {
		if strings.HasPrefix(f.Virtual, "198.51.100.") {
			out = append(out, f)
		}
	}
	text, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Do has f see, and alter, what is there.
func (b *Box) Do(f func(virtuals map[string]*Virtual, pools map[string]*Pool, flows *[]Flow)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b.virtuals, b.pools, &b.flows)
}

// Tenant returns what AS3 has of a tenant.
func (b *Box) Tenant(name string) map[string]any {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tenants[name]
}

// ExpireTokens has nobody be logged in any more.
func (b *Box) ExpireTokens() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.tokens)
}

// Saved reports whether the running configuration was saved after the last drain.
func (b *Box) Saved() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.saved
}

// fault is an answer that isn't a success.
type fault struct {
	status int
	text   string
	errors []string
}

func refuse(status int, format string, args ...any) *fault {
	return &fault{status: status, text: fmt.Sprintf(format, args...)}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if body != nil {
		_ = json.NewEncoder(w).Encode(body) // the other side may have gone
	}
}

// serve answers a request.
func (b *Box) serve(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	status, body, f := b.route(r)
	if f == nil {
		answer(w, status, body)
		return
	}
	out := map[string]any{"code": f.status, "message": f.text}
	if len(f.errors) > 0 {
		out["errors"] = f.errors
	}
	answer(w, f.status, out)
}

// route finds what a request is about.
func (b *Box) route(r *http.Request) (int, any, *fault) {
	path := r.URL.Path
	if path == "/mgmt/shared/authn/login" {
		return b.login(r)
	}
	token := r.Header.Get("X-F5-Auth-Token")
	left, ok := b.tokens[token]
	if !ok || left == 0 {
		delete(b.tokens, token)
		return 0, nil, refuse(401, "X-F5-Auth-Token does not exist.")
	}
	b.tokens[token] = left - 1
	switch {
	case strings.HasPrefix(path, "/mgmt/shared/appsvcs/declare"):
		return b.declare(r, strings.Trim(strings.TrimPrefix(path, "/mgmt/shared/appsvcs/declare"), "/"))
	case strings.HasPrefix(path, "/mgmt/shared/appsvcs/task/"):
		return b.task(strings.TrimPrefix(path, "/mgmt/shared/appsvcs/task/"))
	case strings.HasPrefix(path, "/mgmt/tm/"):
		return b.icontrol(r, strings.TrimPrefix(path, "/mgmt/tm/"))
	}
	return 0, nil, refuse(404, "Public URI path not registered: %s", path)
}

// read reads the body of a request, which may have only these properties.
func read(r *http.Request, allowed ...string) (map[string]any, *fault) {
	var out map[string]any
	if err := json.NewDecoder(r.Body).Decode(&out); err != nil {
		return nil, refuse(400, "Found invalid JSON body in the request: %v", err)
	}
	for k := range out {
		if !slices.Contains(allowed, k) {
			return nil, refuse(400, "one or more properties must be specified: unknown %q", k)
		}
	}
	return out, nil
}

// query refuses parameters that aren't known.
func query(r *http.Request, allowed ...string) *fault {
	for k := range r.URL.Query() {
		if !slices.Contains(allowed, k) {
			return refuse(400, "Query parameter %s is invalid.", k)
		}
	}
	return nil
}

func (b *Box) login(r *http.Request) (int, any, *fault) {
	if r.Method != http.MethodPost {
		return 0, nil, refuse(405, "Method not allowed")
	}
	in, f := read(r, "username", "password", "loginProviderName")
	if f != nil {
		return 0, nil, f
	}
	if in["username"] != User || in["password"] != Password || in["loginProviderName"] != "tmos" {
		return 0, nil, refuse(401, "Authentication failed.")
	}
	if len(b.tokens) >= 100 {
		return 0, nil, refuse(400, "user %s has reached maximum active login tokens", User)
	}
	b.serial++
	token := fmt.Sprintf("TOKEN%d", b.serial)
	b.tokens[token] = b.TokenUses
	return 200, map[string]any{"username": User, "token": map[string]any{"token": token, "timeout": 1200}}, nil
}
