package f5

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// found is what is there.
type found struct {
	*stored
	site       string
	name       string // of the tenant
	applied    string
	deployment *plugins.Deployment
	live       *live
	common     *stored         // what others have a part in
	sites      map[string]bool // of geo, that are drained
	objects    []plugins.Object
	drained    map[plugins.BackendRef]state
}

// find reads the tenant of a site.
func (s *target) find(ctx context.Context, site string) (*found, error) {
	f := &found{stored: new(stored), common: new(stored), sites: make(map[string]bool), site: site, drained: make(map[plugins.BackendRef]state)}
	if site == "" {
		return f, nil
	}
	f.name = tenantName(s.config.Owner, site)
	var err error
	if f.stored, err = s.client.fetch(ctx, f.name); err != nil {
		return nil, fmt.Errorf("f5: read the declaration: %w", err)
	}
	if f.tenant == nil {
		return f, s.findShared(ctx, f)
	}
	memory, _ := f.tenant["constants"].(map[string]any)
	mark, _ := memory["owner"].(string)
	ours := false
	if f.applied, ours = s.config.Owner.ReadMark(site, mark); !ours {
		return nil, fmt.Errorf("f5: there is a tenant %s already that isn't marked as ours: remove or rename it, or give the target another owner", f.name)
	}
	if text, _ := memory["deployment"].(string); text != "" {
		d := new(plugins.Deployment)
		if json.Unmarshal([]byte(text), d) != nil || d.Validate() != nil {
			// Somebody wrote there, or another version did: what is served is read all
			// the same, and the next Apply writes it anew.
			f.applied = ""
		} else {
			f.deployment = d
		}
	}
	drained, _ := memory["drained_sites"].(string)
	for name := range strings.FieldsSeq(drained) {
		f.sites[name] = true
	}
	_, answers := f.tenant[answersApp]
	if f.live, err = s.client.live(ctx, f.name, answers); err != nil {
		return nil, fmt.Errorf("f5: read what is served: %w", err)
	}
	f.readDrains(s.config.Owner)
	f.readObjects(s.config.Owner)
	return f, s.findShared(ctx, f)
}

// findShared reads what is ours where others have a part, if it is to be or was.
func (s *target) findShared(ctx context.Context, f *found) error {
	if !s.settings.GSLB && (f.deployment == nil || f.deployment.Geo == nil) {
		return nil
	}
	var err error
	if f.common, err = s.client.fetch(ctx, common); err != nil {
		return fmt.Errorf("f5: read the declaration of /Common: %w", err)
	}
	app, _ := f.common.tenant[shared].(map[string]any)
	for _, name := range ours(s.config.Owner, f.site, f.common.tenant) {
		body, _ := app[name].(map[string]any)
		f.objects = append(f.objects, object(shared, name, body))
	}
	return nil
}

// memberRef is a member of a pool of the tenant, and the backend that it is for.
type memberRef struct {
	plugins.BackendRef
	declared state
	pool     string // its application and name
	name     string
}

// members returns the members that a site's deployment has, in the order of its
// pools.
func members(o plugins.Owner, s *plugins.Site) []memberRef {
	if s == nil {
		return nil
	}
	r := &renderer{owner: o, site: s}
	var out []memberRef
	for i := range s.Pools {
		p := &s.Pools[i]
		for k := range p.Backends {
			b := &p.Backends[k]
			for _, at := range r.pools(p) {
				port, _ := strconv.Atoi(strings.TrimPrefix(last(at), "pool_"))
				out = append(out, memberRef{plugins.BackendRef{Pool: p.Name, Backend: b.Name}, declared(b), at, memberName(b.Address, uint16(port))})
			}
		}
	}
	return out
}

// pools returns where a pool is: its application and name.
func (r *renderer) pools(p *plugins.Pool) []string {
	var out []string
	for i := range r.site.Groups {
		g := &r.site.Groups[i]
		for k := range g.Listeners {
			if at := r.appName(g) + "/" + poolName(g.Listeners[k].TargetPort()); g.Pool == p.Name && !slices.Contains(out, at) {
				out = append(out, at)
			}
		}
	}
	return out
}

// readDrains finds which backends let in less than their deployment says.
func (f *found) readDrains(o plugins.Owner) {
	for _, m := range members(o, f.deployment.Site(f.site)) {
		p := f.live.pools[m.pool]
		if p == nil {
			continue
		}
		x := p.member(m.name)
		if x == nil || !more(x.admin(), m.declared) {
			continue
		}
		if was, ok := f.drained[m.BackendRef]; !ok || more(was, x.admin()) {
			f.drained[m.BackendRef] = x.admin()
		}
	}
}

func (f *found) readObjects(o plugins.Owner) {
	declared := make(map[string]state)
	for _, m := range members(o, f.deployment.Site(f.site)) {
		declared[m.pool+" "+m.name] = m.declared
	}
	for _, x := range objects(f.tenant) {
		keep := f.live.correct(&x.object, x.body, func(member string, is state) state {
			if d, ok := declared[x.object.Name+" "+member]; ok && more(is, d) {
				return d
			}
			return is
		})
		if keep {
			f.objects = append(f.objects, x.object)
		}
	}
}

// shown is an object and what it was made of.
type shown struct {
	object plugins.Object
	body   map[string]any
}

// objects returns what is in a tenant, without what is only for the driver.
func objects(tenant map[string]any) []shown {
	var out []shown
	for _, app := range slices.Sorted(maps.Keys(tenant)) {
		a, ok := tenant[app].(map[string]any)
		if !ok || a["class"] != "Application" {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(a)) {
			if body, ok := a[name].(map[string]any); ok {
				out = append(out, shown{object(app, name, body), body})
			}
		}
	}
	return out
}

func object(app, name string, body map[string]any) plugins.Object {
	class, _ := body["class"].(string)
	o := plugins.Object{Kind: class, Name: app + "/" + name}
	flatten("", body, func(at, value string) {
		if at != "class" {
			o.Fields = append(o.Fields, plugins.Field{Name: at, Value: value})
		}
	})
	return o
}

// flatten tells of all values within v. Secrets are left out, and what is long is
// told by its hash.
func flatten(at string, v any, f func(at, value string)) {
	switch x := v.(type) {
	case map[string]any:
		if _, secret := x["ciphertext"]; secret {
			return
		}
		for _, k := range slices.Sorted(maps.Keys(x)) {
			if k != "privateKey" {
				flatten(strings.TrimPrefix(at+"."+k, "."), x[k], f)
			}
		}
	case []any:
		for i := range x {
			flatten(at+"["+strconv.Itoa(i)+"]", x[i], f)
		}
	case string:
		if len(x) > 200 || strings.Contains(x, "\n") {
			sum := sha256.Sum256([]byte(x))
			x = "SHA-256 " + hex.EncodeToString(sum[:8])
		}
		f(at, x)
	case float64:
		f(at, strconv.FormatFloat(x, 'f', -1, 64))
	default:
		f(at, fmt.Sprint(x))
	}
}

// changes compares what is there with what is wanted.
func changes(f *found, w *wanted) []plugins.Change {
	var list []plugins.Object
	for i := range w.apps {
		for _, p := range w.apps[i].parts {
			o := object(w.apps[i].name, p.name, p.body)
			list = append(list, complete(o, f.objects))
		}
	}
	var others []plugins.Object
	for _, p := range w.shared {
		others = append(others, complete(object(shared, p.name, p.body), f.objects))
	}
	out := plugins.DiffObjects(f.objects, append(others, list...))
	for i := range out {
		switch c := &out[i]; {
		case !strings.HasPrefix(c.Kind, "Service_"):
		case c.Action == plugins.ActionRemove:
			c.Effect = "its clients are cut off"
		case c.Action == plugins.ActionChange && moved(c):
			c.Effect = "clients of the old address are cut off"
		}
	}
	return out
}

// moved reports whether a service gets another address or port.
func moved(c *plugins.Change) bool {
	return slices.ContainsFunc(c.Fields, func(f plugins.FieldChange) bool { return strings.HasPrefix(f.Name, "virtual") })
}

// complete adds to o the fields that only the one which is there has, so that their
// going is a change.
func complete(o plugins.Object, list []plugins.Object) plugins.Object {
	for _, x := range list {
		if x.Kind != o.Kind || x.Name != o.Name {
			continue
		}
		for _, f := range x.Fields {
			if f.Value != "" && !slices.ContainsFunc(o.Fields, func(y plugins.Field) bool { return y.Name == f.Name }) {
				o.Fields = append(o.Fields, plugins.Field{Name: f.Name})
			}
		}
	}
	return o
}
