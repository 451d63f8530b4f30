package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/geo/geodns"
	"github.com/aovlb/aovlb/geo/mmdb"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/udp"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/builtin"
)

// A geoServer is the part of the program that answers DNS: it has the gateways of
// all sites checked, works out what that means for each name, and gives the
// answers to a geodns.Server.
type geoServer struct {
	log   *slog.Logger
	state string // the directory for state; empty keeps none
	load  func(site string) (clients int, ok bool)

	dns    *geodns.Server
	health *geo.Health
	files  map[string]*mmdb.File // databases, by file
	kick   chan struct{}         // has the answers worked out again
	stale  atomic.Bool           // a database is newer than the rankings
	cert   atomic.Pointer[tls.Certificate]
	votes  votes

	mu       sync.Mutex // below
	spec     *plugins.Geo
	pools    map[string]*geoPool
	names    []*geoName
	contents contents          // of the files that spec names
	serials  map[string]uint32 // of zones
	setting  atomic.Pointer[geoSetting]
	known    bool
	began    time.Time
	cookie   geodns.CookieSecret // if no file has one
}

// geoSetting is what the loop works with.
type geoSetting struct {
	spec  *plugins.Geo
	names []*geoName
}

// geoName is a name, and what its policy is.
type geoName struct {
	spec   plugins.GeoName
	dns    *geodns.Name
	policy geo.Policy
	sites  []geo.Site
	plan   *geo.Plan
}

// geoPool has the gateways of a site checked.
type geoPool struct {
	site   string
	lb     *lb.Pool
	spec   plugins.GeoSite
	cancel context.CancelFunc
	done   chan struct{}
}

const (
	// geoPatience is how long names are not answered after the start, while
	// not all gateways have been asked yet.
	geoPatience = 15 * time.Second
	// geoStateAge is how old what was known before a restart may be.
	geoStateAge = 10 * time.Minute
	geoSave     = 5 * time.Second
	// geoLook is how often databases are looked at for a new version.
	geoLook = 30 * time.Second
	geoFile = "geo.json"
)

// geoBuilt is a part of the file that has been made ready, and not used yet.
type geoBuilt struct {
	spec   *plugins.Geo
	zones  []*geodns.Zone
	names  []*geoName
	sites  []geo.Site
	checks map[string][]lb.Check
	files  map[string]*mmdb.File
	where  *geo.CountryMap

	contents contents
	serials  map[string]uint32
	warnings []plugins.Diagnostic
	reread   []string         // databases that were read again
	cert     *tls.Certificate // for DNS over TLS
	cookies  []geodns.CookieSecret
	networks []geo.Network // of spec, and of the files it names
}

func newGeoServer(log *slog.Logger, state string, load func(string) (int, bool)) *geoServer {
	g := &geoServer{
		log: log, load: load, health: new(geo.Health), pools: make(map[string]*geoPool), kick: make(chan struct{}, 1),
		began: time.Now(), dns: &geodns.Server{Logger: log},
	}
	if state != "" {
		g.state = filepath.Join(state, geoFile)
	}
	g.health.OnChange = g.changed
	return g
}

// changed logs what happens to sites.
func (g *geoServer) changed(old, now *geo.View) {
	for i := range now.Sites {
		s := &now.Sites[i]
		if o := old.Site(s.Name); o == nil || o.State != s.State || o.Admin != s.Admin || o.Held != s.Held {
			level := slog.LevelInfo
			if s.State == geo.Down {
				level = slog.LevelWarn
			}
			g.log.Log(context.Background(), level, "site is "+s.State.String(), "site", s.Name, "admin", s.Admin, "cause", s.Cause)
		}
	}
	signalOne(g.kick)
}

func signalOne(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// build makes everything of a file that can fail, and changes nothing but that
// databases are read.
func (g *geoServer) build(ctx context.Context, spec *plugins.Geo) (_ *geoBuilt, err error) {
	b := &geoBuilt{
		spec: spec, checks: make(map[string][]lb.Check), files: make(map[string]*mmdb.File),
		contents: make(contents), serials: make(map[string]uint32),
	}
	defer func() {
		if err != nil && len(b.reread) > 0 {
			g.stale.Store(true) // what is served still has to learn of them
		}
	}()
	errs := b.read()
	g.readDatabases(b)
	for _, w := range b.warnings {
		g.log.Error(w.Summary, "path", w.Path, "error", w.Detail)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if err = b.make(); err != nil {
		return nil, err
	}
	b.where, err = g.compile(ctx, b.names, b.networks, spec.Databases, b.files)
	return b, err
}

// read reads all the files that b.spec names but databases.
func (b *geoBuilt) read() (errs []error) {
	spec := b.spec
	fail := func(path string, err error) {
		if err != nil {
			errs = append(errs, &plugins.FieldError{Path: path, Err: err})
		}
	}
	if t := spec.TLS; t != nil {
		cert, err := tls.LoadX509KeyPair(t.CertificateFile, t.KeyFile)
		at := "geo.tls.certificate_file"
		if p, ok := errors.AsType[*fs.PathError](err); ok && p.Path == t.KeyFile && p.Path != t.CertificateFile {
			at = "geo.tls.key_file"
		}
		fail(at, err)
		b.cert = &cert
	}
	var err error
	if b.cookies, err = readCookieSecrets(spec.CookieSecretFile, b.contents); err != nil {
		errs = append(errs, err)
	}
	for i, z := range spec.Zones {
		zone, err := readZone(&z, b.contents)
		if err != nil {
			fail(fmt.Sprintf("geo.zones[%d]", i), err)
			continue
		}
		b.zones = append(b.zones, zone)
		b.serials[zoneName(&z)] = zone.Serial()
	}
	for i := range spec.Sites {
		s := &spec.Sites[i]
		b.sites = append(b.sites, geoSite(s))
		checks, err := builtin.Checks(s.Checks, fmt.Sprintf("geo.sites[%d]", i))
		if err != nil {
			errs = append(errs, err)
		}
		b.checks[s.Name] = checks
	}
	if b.networks, err = ownNetworks(spec, b.contents); err != nil {
		errs = append(errs, err)
	}
	return errs
}

// ownNetworks returns those of spec, and of the files it names.
func ownNetworks(spec *plugins.Geo, files contents) ([]geo.Network, error) {
	var errs []error
	own := geoNetworks(spec.Networks)
	for i, name := range spec.NetworkFiles {
		list, err := readNetworks(name, files)
		if err != nil {
			errs = append(errs, &plugins.FieldError{Path: fmt.Sprintf("geo.network_files[%d]", i), Err: err})
		}
		own = append(own, list...)
	}
	return own, errors.Join(errs...)
}

// readDatabases reads those of b.spec again that have changed. Without one clients
// get the answer for those nowhere; a server that doesn't start would be worse.
func (g *geoServer) readDatabases(b *geoBuilt) {
	for i, name := range b.spec.Databases {
		f := g.files[name]
		if f == nil {
			f = &mmdb.File{Name: name}
		}
		again, err := f.Reload()
		if again {
			b.reread = append(b.reread, name)
		}
		if err != nil {
			what := "a database can't be used; clients are not located by it"
			if f.Database() != nil {
				what = "a database can't be used; the one before stays in use"
			}
			b.warnings = append(b.warnings, plugins.Diagnostic{
				Severity: plugins.SeverityWarning, Path: fmt.Sprintf("geo.databases[%d]", i), Summary: what, Detail: err.Error(),
			})
		}
		b.files[name] = f
	}
}

// make makes of what was read what is served.
func (b *geoBuilt) make() error {
	for i := range b.spec.Names {
		n, err := newGeoName(&b.spec.Names[i], b.spec, b.sites)
		if err != nil {
			return &plugins.FieldError{Path: fmt.Sprintf("geo.names[%d]", i), Err: err}
		}
		b.names = append(b.names, n)
	}
	return b.check()
}

// check finds what would be refused when it is too late to go on as it was.
func (b *geoBuilt) check() error {
	var names []*geodns.Name
	for _, n := range b.names {
		names = append(names, n.dns)
	}
	if err := new(geodns.Server).Set(b.zones, names); err != nil {
		return &plugins.FieldError{Path: "geo.zones", Err: err}
	}
	if err := geo.Validate(b.sites...); err != nil {
		return &plugins.FieldError{Path: "geo.sites", Err: err}
	}
	return nil
}

// readZone reads a zone's file and keys.
func readZone(z *plugins.GeoZone, files contents) (*geodns.Zone, error) {
	text, err := files.read(z.File)
	if err != nil {
		return nil, err
	}
	zone, err := geodns.ParseZone(bytes.NewReader(text), z.Origin, z.File)
	if err != nil || len(z.Keys) == 0 {
		return zone, err
	}
	keys := new(geodns.Keys)
	for _, k := range z.Keys {
		key, err := readKey(&k, files)
		if err != nil {
			return nil, err
		}
		keys.Keys = append(keys.Keys, key)
	}
	zone.Keys = keys
	return zone, nil
}

func readKey(k *plugins.GeoKey, files contents) (*geodns.Key, error) {
	pub, err := files.read(k.File + ".key")
	if err != nil {
		return nil, err
	}
	priv, err := files.read(k.File + ".private")
	if err != nil {
		return nil, err
	}
	key, err := geodns.ReadKey(bytes.NewReader(pub), bytes.NewReader(priv), k.File)
	if err != nil {
		return nil, err
	}
	key.Active, key.Announce = !k.Published, k.Announce
	return key, nil
}

// geoSite returns a site as geo has it.
func geoSite(s *plugins.GeoSite) geo.Site {
	out := geo.Site{
		Name: s.Name, Place: geoPlace(&s.GeoPlace), Region: s.Region, Only: s.Only, Weight: s.Weight, Priority: s.Priority, Capacity: s.Capacity,
		Need: s.Need, Unanimous: s.Unanimous, Requires: s.Requires,
		Serves: geo.Area{
			Networks: s.Serves.Networks, ASNs: s.Serves.ASNs, Subdivisions: s.Serves.Subdivisions,
			Countries: s.Serves.Countries, Continents: s.Serves.Continents,
		},
	}
	for _, gw := range s.Gateways {
		out.Gateways = append(out.Gateways, geo.Gateway{Name: gw.Name, Addrs: gw.Addresses, Inside: gw.Inside})
	}
	return out
}

func geoPlace(p *plugins.GeoPlace) geo.Place {
	out := geo.Place{Continent: p.Continent, Country: p.Country, Subdivision: p.Subdivision, ASN: p.ASN}
	if p.Latitude != nil && p.Longitude != nil {
		out.Latitude, out.Longitude, out.Located = *p.Latitude, *p.Longitude, true
	}
	return out
}

// newGeoName returns a name whose plan is still to be compiled.
func newGeoName(s *plugins.GeoName, spec *plugins.Geo, sites []geo.Site) (*geoName, error) {
	n := &geoName{spec: *s}
	p := geo.Policy{Nearest: s.Nearest, Answers: s.Answers, LastResort: s.LastResort, Slot: cmp.Or(s.TTL.D(), 0)}
	for _, o := range s.Order {
		c, err := geo.ParseCriterion(o)
		if err != nil {
			return nil, err
		}
		p.Order = append(p.Order, c)
	}
	var err error
	if s.Method != "" {
		if p.Method, err = geo.ParseMethod(s.Method); err != nil {
			return nil, err
		}
	}
	if s.AllDown != "" {
		if p.AllDown, err = geo.ParseAllDown(s.AllDown); err != nil {
			return nil, err
		}
	}
	for _, h := range spec.Horizons {
		p.Horizons = append(p.Horizons, geo.Horizon{Name: h.Name, Networks: h.Networks})
	}
	for _, site := range sites {
		if len(s.Sites) == 0 || slices.Contains(s.Sites, site.Name) {
			n.sites = append(n.sites, site)
		}
	}
	// What a site requires counts though it doesn't serve this name.
	for i := range n.sites {
		n.sites[i].Requires = nil
	}
	n.policy = p
	n.dns = &geodns.Name{Name: s.Name, TTL: s.TTL.D(), UnstableTTL: s.UnstableTTL.D(), Targets: s.Targets}
	return n, nil
}

// compile works out the rankings of names, and returns where everybody is, as far
// as the own networks and the databases say.
func (g *geoServer) compile(ctx context.Context, names []*geoName, own []geo.Network, databases []string, files map[string]*mmdb.File) (*geo.CountryMap, error) {
	networks, err := geo.NewNetworks(own...)
	if err != nil {
		return nil, &plugins.FieldError{Path: "geo.networks", Err: err}
	}
	list := []geo.Locator{networks}
	for _, name := range databases {
		list = append(list, files[name])
	}
	for i, n := range names {
		start, told := time.Now(), time.Now()
		n.plan, err = n.policy.Compile(n.sites, geo.Merge(list...), func(done float64) error {
			if time.Since(told) > 2*time.Second {
				told = time.Now()
				g.log.Info("working out who is nearest to whom", "name", n.spec.Name, "done", fmt.Sprintf("%.0f %%", 100*done))
			}
			return context.Cause(ctx)
		})
		if err != nil {
			return nil, &plugins.FieldError{Path: fmt.Sprintf("geo.names[%d]", i), Err: err}
		}
		v4, v6 := n.plan.Prefixes()
		g.log.Debug("rankings worked out", "name", n.spec.Name, "rankings", len(n.plan.Rankings()), "prefixes", v4+v6, "took", time.Since(start).Round(time.Millisecond))
	}
	return geo.NewCountryMap(geo.Merge(list...), func(float64) error { return context.Cause(ctx) })
}

// apply has b served. It changes everything at once, or nothing.
func (g *geoServer) apply(b *geoBuilt) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reuse(b)
	var dns []*geodns.Name
	for _, n := range b.names {
		dns = append(dns, n.dns)
		g.prepare(n)
	}
	if err := g.dns.Set(b.zones, dns); err != nil {
		return err
	}
	g.health.Configure(func(h *geo.Health) {
		h.HoldDown, h.FailbackDelay = b.spec.HoldDown.D(), b.spec.FailbackDelay.D()
		h.Failback = map[plugins.Failback]geo.Failback{plugins.FailbackDelayed: geo.FailbackDelayed, plugins.FailbackManual: geo.FailbackManual}[b.spec.Failback]
	})
	first := g.spec == nil
	if err := g.health.Set(b.sites...); err != nil {
		return err
	}
	if first {
		g.restore()
	}
	g.files = b.files
	g.watch(b)
	g.spec, g.names = b.spec, b.names
	g.contents, g.serials = b.contents, b.serials
	if b.cert != nil {
		g.cert.Store(b.cert)
	}
	g.useCookieSecrets(b.cookies)
	g.setting.Store(&geoSetting{b.spec, b.names})
	g.dns.CountBy(b.where)
	signalOne(g.kick)
	return nil
}

// prepare has a name that is new know its answers before it is asked, if all of
// its sites are known. g.mu is held.
func (g *geoServer) prepare(n *geoName) {
	v := g.health.View()
	if g.known && n.dns.Selector() == nil && !slices.ContainsFunc(n.sites, func(s geo.Site) bool { return v.Site(s.Name) == nil }) {
		n.dns.Update(n.plan.Select(v, n.spec.Name))
	}
}

// reuse keeps the names that are served already, with their counts.
func (g *geoServer) reuse(b *geoBuilt) {
	for _, n := range b.names {
		i := slices.IndexFunc(g.names, func(o *geoName) bool {
			return o.spec.Name == n.spec.Name && o.dns.TTL == n.dns.TTL && o.dns.UnstableTTL == n.dns.UnstableTTL && equalMaps(o.dns.Targets, n.dns.Targets)
		})
		if i >= 0 {
			n.dns = g.names[i].dns
		}
	}
}

func equalMaps(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// restore takes over what was known before a restart.
func (g *geoServer) restore() {
	if g.state == "" {
		return
	}
	data, err := os.ReadFile(g.state)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err == nil {
		err = g.health.Restore(data, geoStateAge)
	}
	if err != nil {
		g.log.Warn("the state of the sites was not taken over", "error", err)
	}
}

func (g *geoServer) save() {
	if g.state == "" {
		return
	}
	data, err := g.health.Save()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(g.state), 0o700)
	}
	if err == nil {
		err = writeAtomic(g.state, data)
	}
	if err != nil {
		g.log.Error("the state of the sites was not saved", "error", err)
	}
}

// writeAtomic writes a file beside the old one and renames it over that.
func writeAtomic(name string, data []byte) error {
	tmp := name + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}

// watch has the gateways of b checked, and no others. g.mu is held.
func (g *geoServer) watch(b *geoBuilt) {
	for name, p := range g.pools {
		i := slices.IndexFunc(b.spec.Sites, func(s plugins.GeoSite) bool { return s.Name == name })
		if i < 0 || !sameChecks(&p.spec, &b.spec.Sites[i]) {
			p.cancel()
			<-p.done
			delete(g.pools, name)
			g.votes.forget(name)
		}
	}
	for i := range b.spec.Sites {
		s := &b.spec.Sites[i]
		if g.pools[s.Name] == nil {
			g.pools[s.Name] = g.check(s, b.checks[s.Name])
		}
	}
}

// sameChecks reports whether two versions of a site are checked alike.
func sameChecks(a, b *plugins.GeoSite) bool {
	return slices.Equal(a.Checks, b.Checks) && a.CheckNeed == b.CheckNeed && slices.EqualFunc(a.Gateways, b.Gateways, func(x, y plugins.GeoGateway) bool {
		return x.Name == y.Name && checkAddr(&x) == checkAddr(&y)
	})
}

// check begins to check the gateways of a site.
func (g *geoServer) check(s *plugins.GeoSite, checks []lb.Check) *geoPool {
	ctx, cancel := context.WithCancel(context.Background())
	p := &geoPool{site: s.Name, spec: *s, lb: new(lb.Pool), cancel: cancel, done: make(chan struct{})}
	var list []lb.Backend
	for i := range s.Gateways {
		list = append(list, lb.Backend{Name: s.Gateways[i].Name, Addr: checkAddr(&s.Gateways[i])})
	}
	if err := p.lb.Set(list...); err != nil {
		g.log.Error("gateways can't be checked", "site", s.Name, "error", err)
	}
	go func() {
		defer close(p.done)
		var wg sync.WaitGroup
		defer wg.Wait()
		if len(checks) == 0 {
			for i := range s.Gateways {
				g.vote(s.Name, s.Gateways[i].Name, geo.Up, "")
			}
			return
		}
		m := &lb.Monitor{Pool: p.lb, Checks: checks, Logger: g.log.With("site", s.Name)}
		if s.CheckNeed == plugins.NeedAny {
			m.Need = lb.NeedAny
		}
		wg.Go(func() { _ = m.Run(ctx) })
		g.follow(ctx, p, m)
	}()
	return p
}

// follow passes on what the checks of a site say.
func (g *geoServer) follow(ctx context.Context, p *geoPool, m *lb.Monitor) {
	tick := time.NewTicker(200 * time.Millisecond) // a check that passes for the first time changes no view
	defer tick.Stop()
	for {
		changed := p.lb.Changed()
		asked := make(map[string]bool)
		for _, b := range m.Status() {
			asked[b.Backend] = !slices.ContainsFunc(b.Checks, func(c lb.CheckStatus) bool { return !c.Known })
		}
		for _, b := range p.lb.View().Members {
			switch {
			case !asked[b.Name]:
			case b.State == lb.Down:
				g.vote(p.site, b.Name, geo.Down, b.Cause)
			default:
				g.vote(p.site, b.Name, geo.Up, "")
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

// run does everything but answer: it works out answers, looks at databases,
// saves the state and asks the peers, until ctx ends.
func (g *geoServer) run(ctx context.Context) error {
	save, second := time.NewTicker(geoSave), time.NewTicker(time.Second)
	defer save.Stop()
	defer second.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { g.askPeers(ctx) })
	wg.Go(func() { g.lookAgain(ctx) })
	var epoch uint64
	for {
		select {
		case <-g.kick:
			epoch = g.refresh()
		case <-second.C:
			g.report()
			if v := g.health.View(); v.Epoch != epoch || !g.known {
				epoch = g.refresh()
			}
		case <-save.C:
			g.save()
		case <-ctx.Done():
			g.end()
			return nil
		}
	}
}

// end ends the checks and saves the state.
func (g *geoServer) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.pools {
		p.cancel()
		<-p.done
	}
	g.pools = make(map[string]*geoPool)
	g.save()
	g.health.Close()
}

// refresh has all names answered by what is known now.
func (g *geoServer) refresh() uint64 {
	v := g.health.View()
	set := g.setting.Load()
	if set == nil {
		return v.Epoch
	}
	g.mu.Lock()
	if !g.known && (v.Known() || time.Since(g.began) > geoPatience) {
		g.known = true
		if !v.Known() {
			g.log.Warn("not all gateways have been asked yet; names are answered with what is known")
		}
	}
	known := g.known
	g.mu.Unlock()
	if !known {
		return v.Epoch
	}
	for _, n := range set.names {
		n.dns.Update(n.plan.Select(v, n.spec.Name))
	}
	return v.Epoch
}

// lookAgain looks at the databases again and again. Working out rankings can take
// seconds, in which sites may fail: so it has a goroutine of its own.
func (g *geoServer) lookAgain(ctx context.Context) {
	tick := time.NewTicker(geoLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			g.look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// look reads databases that have changed, and works out the rankings anew.
func (g *geoServer) look(ctx context.Context) {
	g.mu.Lock()
	files, spec, names := g.files, g.spec, g.names
	g.mu.Unlock()
	for name, f := range files {
		changed, err := f.Reload()
		if err != nil {
			g.log.Error("a database can't be used; the one before stays in use", "file", name, "error", err)
		}
		if changed {
			g.stale.Store(true)
			g.log.Info("database read", "file", name, "type", f.Database().Type(), "built", f.Database().Built())
		}
	}
	if !g.stale.Load() || spec == nil {
		return
	}
	next := make([]*geoName, len(names))
	for i, n := range names {
		c := *n
		next[i] = &c
	}
	var where *geo.CountryMap
	own, err := ownNetworks(spec, make(contents))
	if err == nil {
		where, err = g.compile(ctx, next, own, spec.Databases, files)
	}
	if err != nil {
		g.log.Error("the rankings were not worked out anew", "error", err)
		return
	}
	g.mu.Lock()
	if g.spec == spec { // if not, the next look does it
		g.stale.Store(false)
		g.names = next
		g.setting.Store(&geoSetting{spec, next})
		g.dns.CountBy(where)
	}
	g.mu.Unlock()
	signalOne(g.kick)
}

// report tells the load of the sites that this process serves.
func (g *geoServer) report() {
	set := g.setting.Load()
	if set == nil || g.load == nil {
		return
	}
	for i := range set.spec.Sites {
		s := &set.spec.Sites[i]
		if n, ok := g.load(cmp.Or(s.LoadOf, s.Name)); ok {
			_ = g.health.Report(s.Name, n)
		}
	}
}

// geoSockets are what the server answers at.
type geoSockets struct {
	packets []net.PacketConn
	streams []net.Listener
}

func (s *geoSockets) close() {
	for _, c := range s.packets {
		_ = c.Close()
	}
	for _, l := range s.streams {
		_ = l.Close()
	}
}

// listen opens the sockets, and sets what can't change later.
func (g *geoServer) listen(ctx context.Context, spec *plugins.Geo) (*geoSockets, error) {
	g.dns.NSID, g.dns.RateLimit = spec.NSID, geodns.RateLimit{PerSecond: spec.RateLimit}
	s := new(geoSockets)
	lc := new(net.ListenConfig)
	for i, a := range spec.Listen {
		conns, err := udp.Listen(ctx, a, udp.ListenConfig{Sockets: geoWorkers()})
		if err == nil {
			s.packets = append(s.packets, conns...)
			var l net.Listener
			if l, err = lc.Listen(ctx, "tcp", a.String()); err == nil {
				s.streams = append(s.streams, l)
			}
		}
		if err != nil {
			s.close()
			return nil, &plugins.FieldError{Path: fmt.Sprintf("geo.listen[%d]", i), Err: err}
		}
	}
	if t := spec.TLS; t != nil {
		conf := &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"dot"},
			// It is read again with the file.
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return g.cert.Load(), nil },
		}
		for i, a := range t.Listen {
			l, err := lc.Listen(ctx, "tcp", a.String())
			if err != nil {
				s.close()
				return nil, &plugins.FieldError{Path: fmt.Sprintf("geo.tls.listen[%d]", i), Err: err}
			}
			s.streams = append(s.streams, tls.NewListener(l, conf))
		}
	}
	return s, nil
}

// geoWorkers is how many sockets share an address: one for each processor.
func geoWorkers() int {
	if runtime.GOOS != "linux" {
		return 1
	}
	return runtime.NumCPU()
}

// readCookieSecrets reads the secret of cookies, and those that are good besides.
// Without a file there is none.
func readCookieSecrets(file string, files contents) (list []geodns.CookieSecret, err error) {
	if file == "" {
		return nil, nil
	}
	text, err := plugins.Secret{File: file}.Read()
	if err == nil {
		files.note(file, text)
		for line := range strings.Lines(string(text)) {
			var c geodns.CookieSecret
			b, wrong := hex.DecodeString(strings.TrimSpace(line))
			if wrong != nil || len(b) != len(c) {
				err = fmt.Errorf("line %d doesn't hold 32 hexadecimal digits", len(list)+1)
				break
			}
			copy(c[:], b)
			list = append(list, c)
		}
	}
	if err != nil {
		return nil, &plugins.FieldError{Path: "geo.cookie_secret_file", Err: err}
	}
	return list, nil
}

// useCookieSecrets has cookies made with the first of list, or, if there is none,
// with one of the server's own. g.mu is held.
func (g *geoServer) useCookieSecrets(list []geodns.CookieSecret) {
	if len(list) == 0 {
		if g.cookie == (geodns.CookieSecret{}) {
			_, _ = rand.Read(g.cookie[:]) // never fails
		}
		list = []geodns.CookieSecret{g.cookie}
	}
	g.dns.SetCookieSecret(list[0], list[1:]...)
}

// serve answers until ctx ends.
func (g *geoServer) serve(ctx context.Context, s *geoSockets) error {
	errs := make(chan error, 2)
	go func() { errs <- g.dns.ServePacket(ctx, s.packets...) }()
	go func() { errs <- g.dns.ServeStream(ctx, s.streams...) }()
	err := <-errs
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return errors.Join(err, g.dns.Shutdown(stop), <-errs)
}

// checkAddr is what is checked of a gateway.
func checkAddr(gw *plugins.GeoGateway) netip.Addr {
	if gw.CheckAddress.IsValid() {
		return gw.CheckAddress.Unmap()
	}
	if len(gw.Addresses) > 0 {
		return gw.Addresses[0]
	}
	for _, list := range gw.Inside {
		for _, a := range list {
			return a
		}
	}
	return netip.Addr{}
}
