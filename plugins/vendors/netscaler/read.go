package netscaler

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// folder is where NetScaler keeps certificates, and what it copies to the other one
// of a pair.
const folder = "/nsconfig/ssl"

// found is what is on the appliance.
type found struct {
	site   string
	memory *memory // nil if there is none
	notes  []string
	items  []*item
	// servers are all addresses that have a name, also those of others: NetScaler
	// takes each address once.
	servers map[netip.Addr]string
	// local is the appliance's own GSLB site, balances says whether it has GSLB.
	local    string
	balances bool
	// guests are services of others, by the GSLB site that they are of.
	guests map[string]string
	// spared says what isn't removed, since others use it.
	spared []plugins.Diagnostic
	// states are members' states, by servicegroup, server and port.
	states map[string]string
}

// objects shows the items as plans have them.
func objects(items []*item) []plugins.Object {
	out := make([]plugins.Object, 0, len(items))
	for _, it := range items {
		o := plugins.Object{Kind: it.kind.name, Name: it.name()}
		for _, p := range it.props {
			if !p.secret {
				o.Fields = append(o.Fields, plugins.Field{Name: p.name, Value: canonical(p.name, plain(p.value)), Fixed: p.fixed})
			}
		}
		out = append(out, o)
	}
	return out
}

// canonical returns a value in one of the ways in which NITRO may spell it.
func canonical(name, value string) string {
	switch name {
	case "customheaders":
		return strings.TrimSpace(strings.ReplaceAll(value, `\r\n`, "\r\n"))
	case "respcode":
		return codes(value)
	case "cert", "key":
		return strings.TrimPrefix(value, folder+"/")
	}
	return value
}

// codes joins codes and ranges of them, such as 2,3 and 2-3.
func codes(value string) string {
	type span struct{ from, to int }
	var list []span
	for part := range strings.SplitSeq(value, ",") {
		from, to, ok := strings.Cut(strings.TrimSpace(part), "-")
		if !ok {
			to = from
		}
		a, errA := strconv.Atoi(from)
		b, errB := strconv.Atoi(to)
		if errA != nil || errB != nil {
			return value // not codes, or none at all
		}
		list = append(list, span{a, b})
	}
	slices.SortFunc(list, func(a, b span) int { return a.from - b.from })
	var out []string
	for i := 0; i < len(list); i++ {
		s := list[i]
		for ; i+1 < len(list) && list[i+1].from <= s.to+1; i++ {
			s.to = max(s.to, list[i+1].to)
		}
		text := strconv.Itoa(s.from)
		if s.to > s.from {
			text += "-" + strconv.Itoa(s.to)
		}
		out = append(out, text)
	}
	return strings.Join(out, ",")
}

// reader reads what is there.
type reader struct {
	*client
	owner plugins.Owner
	out   *found
}

// find reads what belongs to a site. An empty site is the one whose note is there.
func (c *client) find(ctx context.Context, owner plugins.Owner, site string) (*found, error) {
	r := &reader{client: c, owner: owner, out: &found{site: site, servers: make(map[netip.Addr]string), states: make(map[string]string), guests: make(map[string]string)}}
	if err := r.features(ctx); err != nil {
		return nil, err
	}
	files, err := c.list(ctx, "config", "systemfile", "", "filelocation", folder)
	if err != nil {
		return nil, err
	}
	if err := r.recall(ctx, files); err != nil {
		return nil, err
	}
	if r.out.site == "" {
		return r.out, nil // nothing was ever applied, and nobody says for which site
	}
	for _, k := range kinds {
		if (k.gslb || k.of != "" && kindOf(k.of).gslb) && !r.out.balances {
			continue // its commands would be refused
		}
		switch {
		case k.name == "systemfile":
			r.files(k, files)
		case k.of == "":
			err = r.top(ctx, k)
		default:
			err = r.inner(ctx, k)
		}
		if err != nil {
			return nil, err
		}
	}
	return r.out, nil
}

// features reads whether LB is enabled, without which nothing is balanced.
func (r *reader) features(ctx context.Context) error {
	list, err := r.list(ctx, "config", "nsfeature", "")
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return nil
	}
	have, ok := list[0]["feature"].([]any)
	r.out.balances = slices.Contains(have, any("GSLB"))
	if ok && !slices.Contains(have, any("LB")) {
		return errors.New("load balancing is turned off on the appliance, for everybody; an administrator turns it on by: enable ns feature LB SSL")
	}
	return nil
}

// owns reports whether a name is of this site.
func (r *reader) owns(name string) bool { return r.owner.Owns(r.out.site, name) }

func (r *reader) files(k *kind, files []row) {
	for _, f := range files {
		if name := f.text("filename"); r.owns(name) && !slices.Contains(r.out.notes, name) {
			r.out.items = append(r.out.items, &item{kind: k, keys: []any{name, folder}})
		}
	}
}

// top reads the objects of a kind that stand by themselves.
func (r *reader) top(ctx context.Context, k *kind) error {
	rows, err := r.list(ctx, "config", k.name, "")
	if err != nil {
		return err
	}
	var list []*item
	for _, x := range rows {
		name := x.text(k.keys[0])
		if k.name == "server" {
			if a, err := netip.ParseAddr(x.text("ipaddress")); err == nil {
				r.out.servers[a.Unmap()] = name
			}
		}
		owned := r.owns(name)
		switch {
		case k.name == "gslbsite" && x.text("sitetype") == "LOCAL":
			r.out.local = name
		case k.name == "gslbservice" && !owned:
			r.out.guests[x.text("sitename")] = name
		case k.name == "location":
			owned = strings.HasSuffix(x.text("preferredlocation"), "."+locationMark(r.owner, r.out.site))
		}
		if owned {
			list = append(list, read(k, x))
		}
	}
	if k.refers != "" {
		list = byReference(k, list)
	}
	r.out.items = append(r.out.items, list...)
	return nil
}

// inner reads what belongs to objects that were read before.
func (r *reader) inner(ctx context.Context, k *kind) error {
	var list []*item
	for _, it := range r.out.items {
		if it.kind.name != k.of || strings.HasPrefix(k.name, "ssl") && it.get("servicetype") != "SSL_TCP" {
			continue
		}
		rows, err := r.list(ctx, "config", k.name, plain(it.keys[0]))
		if err != nil {
			return err
		}
		for _, x := range rows {
			x[k.keys[0]] = it.keys[0]
			b := read(k, x)
			if k.ours && !r.owns(b.child()) || k.name == "sslvserver_sslcipher_binding" && plain(b.keys[1]) != nullCipher {
				continue
			}
			if k.binds == "server" {
				r.out.states[b.name()] = x.text("svrstate")
			}
			list = append(list, b)
		}
	}
	r.out.items = append(r.out.items, list...)
	return nil
}

// read makes an item of what NITRO shows.
func read(k *kind, x row) *item {
	it := &item{kind: k}
	for _, key := range k.keys {
		v := x.text(key)
		if key == "ca" {
			it.keys = append(it.keys, v == "true")
			continue
		}
		it.keys = append(it.keys, v)
	}
	for _, p := range k.props {
		v := x.text(p)
		if v == "" {
			v = k.defaults[p]
		}
		if v != "" {
			it.set(p, v)
		}
	}
	return it
}

// byReference sorts objects so that what others refer to comes first.
func byReference(k *kind, list []*item) []*item {
	depth := func(it *item) int {
		n := 0
		for next := it.get(k.refers); next != "" && n < len(list); n++ {
			i := slices.IndexFunc(list, func(x *item) bool { return x.name() == next })
			if i < 0 {
				break
			}
			next = list[i].get(k.refers)
		}
		return n
	}
	slices.SortStableFunc(list, func(a, b *item) int { return depth(a) - depth(b) })
	return list
}

// siteOf says which site is meant where nobody says so.
func siteOf(c plugins.Config, dep *plugins.Deployment) string {
	if c.Site != "" {
		return c.Site
	}
	if s := dep.Served(""); s != nil {
		return s.Name
	}
	return ""
}

// where wraps an error with what the driver is.
func where(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("netscaler: %w", err)
}
