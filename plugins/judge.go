package plugins

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

// Judge compares what d asks for with what a balancer can do, for the site of
// that name. What the balancer can't do is an error, what it does only in part a
// warning; where nothing was asked and only a default can't be had, it is good to
// know. Each driver's Validate has it among its diagnostics, so that nothing which
// is asked is left out in silence.
//
// It judges what [Deployment.Validate] accepts; of a site that isn't there it
// says nothing.
func Judge(d *Deployment, site string, c Capabilities) []Diagnostic {
	j := judge{c: &c}
	if d == nil {
		return nil
	}
	s := d.Site(site)
	for i := range d.Sites {
		if &d.Sites[i] == s {
			at := index("", "sites", i)
			j.structure(at, "", reflect.ValueOf(s).Elem())
			for k := range s.Pools {
				j.pool(index(at, ".pools", k), &s.Pools[k])
			}
			for k := range s.Groups {
				j.group(index(at, ".groups", k), &s.Groups[k])
			}
		}
	}
	if d.Geo != nil {
		j.value("geo", "geo", reflect.ValueOf(d.Geo))
	}
	return j.out
}

type judge struct {
	c   *Capabilities
	out []Diagnostic
}

// always are the fields that every balancer has: what a thing is called, and
// what it is made of.
var always = []string{
	"name", "pools.name", "pools.backends.name", "pools.backends.address", "pools.checks.name",
	"groups.name", "groups.pool", "groups.listeners.name", "groups.listeners.address", "certificates.name", "certificates.pool",
}

// defaults are what fields mean that say nothing.
var defaults = map[string]string{
	"pools.picker": string(PickMaglev), "pools.failback": string(FailbackAutomatic), "pools.need": string(NeedAll),
	"pools.panic": "true", "groups.client_address": string(ClientAddressNAT), "pools.backends.admin": string(AdminEnabled),
}

// structure judges the fields of a struct. path is where it is in the document,
// field its path without indexes.
func (j *judge) structure(path, field string, v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" && f.Anonymous {
			j.structure(path, field, v.Field(i))
			continue
		}
		inner := strings.TrimPrefix(field+"."+name, ".")
		if !slices.Contains(always, inner) {
			j.value(path+"."+name, inner, v.Field(i))
		}
	}
}

// value judges one field.
func (j *judge) value(path, field string, v reflect.Value) {
	standard, isDefault := defaults[field], v.IsZero()
	if isDefault && standard == "" {
		return
	}
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	switch {
	case isDefault || isLeaf(v.Type()):
		j.leaf(path, field, v, standard, isDefault)
	case v.Kind() == reflect.Slice && isContainer(field):
		for i := range v.Len() {
			j.structure(fmt.Sprintf("%s[%d]", path, i), field, v.Index(i))
		}
	case !j.c.has(field) || j.whole(field):
		j.leaf(path, field, v, "", false)
	case v.Kind() == reflect.Struct:
		j.structure(path, field, v)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct && !isLeaf(v.Type().Elem()):
		for i := range v.Len() {
			j.structure(fmt.Sprintf("%s[%d]", path, i), field, v.Index(i))
		}
	default:
		j.leaf(path, field, v, "", false)
	}
}

// whole reports whether c judges field as one: it says something of it, and
// nothing of what is within.
func (j *judge) whole(field string) bool {
	return !slices.ContainsFunc(j.c.Support, func(s Support) bool { return strings.HasPrefix(s.Field, field+".") })
}

// isContainer reports whether field is a list that every balancer has.
func isContainer(field string) bool {
	return slices.Contains([]string{"pools", "pools.backends", "pools.checks", "groups", "groups.listeners"}, field)
}

func isLeaf(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[netip.Addr](), reflect.TypeFor[netip.AddrPort](), reflect.TypeFor[netip.Prefix]():
		return true
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return false
	case reflect.Slice, reflect.Pointer:
		return isLeaf(t.Elem())
	}
	return true
}

func (j *judge) leaf(path, field string, v reflect.Value, standard string, isDefault bool) {
	value := standard
	if !isDefault {
		value = plain(v)
	}
	s, known := j.c.Lookup(field, value)
	if known && s.Level == LevelFull {
		return
	}
	last := field[strings.LastIndexByte(field, '.')+1:]
	what := last
	if v.Kind() == reflect.String || isDefault {
		what = last + ": " + value
	}
	g := Diagnostic{Severity: SeverityError, Path: path, Detail: s.Instead, Fix: s.Fix, Summary: what + " can't be done here"}
	if known && s.Level == LevelPartial {
		g.Severity, g.Summary = SeverityWarning, what+" is done only in part"
	}
	if g.Fix == "" && g.Severity == SeverityError {
		g.Fix = "leave it out"
		if can := j.c.values(field); can != "" {
			g.Fix = "it can be " + can
		}
	}
	if isDefault {
		// Nobody asked for it.
		g.Severity, g.Summary = SeverityInfo, what+", which is the default, can't be had here"
		if s.Level == LevelPartial {
			g.Summary = what + ", which is the default, is done only in part"
		}
	}
	j.out = append(j.out, g)
}

// plain shows a value as it is in a file.
func plain(v reflect.Value) string {
	if v.Kind() == reflect.String {
		return v.String()
	}
	b, err := json.Marshal(v.Interface())
	if err != nil {
		return ""
	}
	return strings.Trim(string(b), `"`)
}

func (j *judge) add(severity Severity, path, summary, detail, fix string) {
	j.out = append(j.out, Diagnostic{Severity: severity, Path: path, Summary: summary, Detail: detail, Fix: fix})
}

// pool judges what isn't a matter of single fields.
func (j *judge) pool(at string, p *Pool) {
	for i := range p.Checks {
		c, path := &p.Checks[i], index(at, ".checks", i)
		interval, severity := c.Usual().Interval, SeverityWarning
		if c.Interval == 0 {
			severity = SeverityInfo
		}
		if interval < j.c.MinInterval {
			j.add(severity, path+".interval", fmt.Sprintf("each %v is more often than this balancer can ask", interval),
				fmt.Sprintf("it asks each %v, so that a dead backend is found later", j.c.MinInterval), "")
		}
		if c.Type == CheckSSTP && !j.c.ExactExpect {
			j.add(SeverityInfo, path, "this balancer can't ask for exactly one HTTP status",
				"a server that answers with another status it thinks good counts as a gateway that serves", "")
		}
	}
}

func (j *judge) group(at string, g *Group) {
	affinity := g.affinity()
	if g.Affinity == "" && affinity != "" {
		j.leaf(at+".affinity", "groups.affinity", reflect.ValueOf(affinity), string(affinity), true)
	}
	if n := j.c.GroupListeners; n > 0 && len(g.Listeners) > n {
		j.add(SeverityError, at+".listeners", fmt.Sprintf("there are %d, and here at most %d can agree where a client lives", len(g.Listeners), n), "",
			"make several groups of them")
	}
	if !j.c.SameAddress {
		return
	}
	for i := 1; i < len(g.Listeners); i++ {
		if a := g.Listeners[i].Address.Addr(); a != g.Listeners[0].Address.Addr() {
			j.add(SeverityError, index(at, ".listeners", i)+".address", fmt.Sprintf("it differs from that of %s", g.Listeners[0].Name),
				"listeners can agree here where a client lives only at the same address", fmt.Sprintf("make it %v", g.Listeners[0].Address.Addr()))
		}
	}
}

// affinity returns what makes a client of g, where nothing is said.
func (g *Group) affinity() Affinity {
	if g.Affinity != "" {
		return g.Affinity
	}
	has := func(p Protocol) bool {
		return slices.ContainsFunc(g.Listeners, func(l Listener) bool { return l.Protocol == p })
	}
	switch {
	case has(ProtocolIKEv2):
		return AffinitySPI
	case has(ProtocolRADIUS):
		return AffinityUser
	}
	return AffinitySource
}

// Fields returns the paths of all fields of the model, without indexes and
// without the site, as Support has them.
func Fields() []string {
	var out []string
	var walk func(field string, t reflect.Type)
	walk = func(field string, t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || isLeaf(t) {
			out = append(out, field)
			return
		}
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" && f.Anonymous {
				walk(field, f.Type)
				continue
			}
			walk(strings.TrimPrefix(field+"."+name, "."), f.Type)
		}
	}
	walk("", reflect.TypeFor[Site]())
	walk("geo", reflect.TypeFor[Geo]())
	return out
}
