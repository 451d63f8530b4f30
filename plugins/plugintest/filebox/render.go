package filebox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/aovlb/aovlb/plugins"
)

// render returns the objects that dep asks for, what is used before what uses it.
func render(c plugins.Config, dep *plugins.Deployment) []plugins.Object {
	s := dep.Site(c.Site)
	if dep == nil || s == nil {
		return nil
	}
	var out []plugins.Object
	add := func(kind string, name []string, fields ...plugins.Field) {
		out = append(out, plugins.Object{Kind: kind, Name: c.Owner.Name(s.Name, 63, name...), Fields: fields})
	}
	field := func(name string, value any) plugins.Field { return plugins.Field{Name: name, Value: text(value)} }
	fixed := func(name string, value any) plugins.Field {
		return plugins.Field{Name: name, Value: text(value), Fixed: true}
	}
	for i := range s.Pools {
		p := &s.Pools[i]
		add("pool", []string{p.Name}, field("picker", p.Picker))
		for k := range p.Backends {
			b := &p.Backends[k]
			add("backend", []string{p.Name, b.Name}, field("pool", p.Name), field("backend", b.Name), field("address", b.Address),
				field("weight", b.Weight), field("max_clients", b.MaxClients), field("admin", b.Admin))
		}
		for k := range p.Checks {
			add("check", []string{p.Name, strconv.Itoa(k)}, fixed("type", p.Checks[k].Type), field("check", p.Checks[k]))
		}
	}
	for i := range s.Groups {
		g := &s.Groups[i]
		for k := range g.Listeners {
			l := &g.Listeners[k]
			add("listener", []string{g.Name, l.Name}, field("group", g.Name), field("listener", l.Name), fixed("address", l.Address),
				fixed("protocol", l.Protocol), field("pool", g.Pool), field("backend_port", l.BackendPort), field("affinity", g.Affinity),
				field("client_address", g.ClientAddress), field("idle", g.Idle), field("idle_timeout", l.IdleTimeout))
		}
	}
	// It comes last: with it, all is there.
	add("site", []string{"site"}, field("revision", dep.Of(s.Name).Revision()))
	return out
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	s := string(bytes.Trim(b, `"`))
	if s == "null" || s == "0" || s == "0s" {
		return ""
	}
	return s
}

// Render writes the objects as JSON.
func (d *Driver) Render(ctx context.Context, dep *plugins.Deployment) ([]plugins.File, error) {
	c, _, _ := d.configured()
	caps, err := d.Capabilities(ctx)
	if err != nil {
		return nil, err
	}
	if plugins.HasError(append(plugins.Errors(dep.Validate()), plugins.Judge(dep, c.Site, caps)...)) {
		return nil, fmt.Errorf("filebox: render: %w", plugins.ErrInvalid)
	}
	b, err := json.MarshalIndent(render(c, dep), "", "  ")
	if err != nil {
		return nil, err
	}
	return []plugins.File{{Name: "box.json", Summary: "the objects of the file", Content: append(b, '\n')}}, nil
}
