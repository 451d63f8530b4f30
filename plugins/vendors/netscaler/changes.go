package netscaler

import (
	"maps"
	"slices"

	"github.com/aovlb/aovlb/plugins"
)

// A step is a change, with what it is about.
type step struct {
	plugins.Change
	want, found *item // nil if there is none
}

// key identifies an item among all.
type key struct {
	kind *kind
	name string
}

func keyOf(it *item) key { return key{it.kind, it.name()} }

func lookup(list []*item, kind, name string) *item {
	i := slices.IndexFunc(list, func(it *item) bool { return it.kind.name == kind && it.name() == name })
	if i < 0 {
		return nil
	}
	return list[i]
}

// steps are what makes want of found. What can't be changed in place is unbound,
// removed, made anew and bound; so is what has an address that another one needs.
func steps(found, want []*item) []step {
	gone := make(map[key]bool) // must go before anything is made
	for _, c := range plugins.DiffObjects(objects(found), objects(want)) {
		if c.Action == plugins.ActionReplace {
			gone[key{kindOf(c.Kind), c.Name}] = true
		}
	}
	for _, it := range holders(found, want) {
		gone[keyOf(it)] = true
	}
	if slices.ContainsFunc(found, func(it *item) bool { return it.kind.name == "gslbsite" && gone[keyOf(it)] }) {
		for _, it := range found { // a site goes only without its services
			if it.kind.name == "gslbservice" {
				gone[keyOf(it)] = true
			}
		}
	}
	found, leaves := leaving(found, want)
	maps.Copy(gone, leaves)
	out, left := makeRoom(found, gone)
	for _, c := range plugins.DiffObjects(objects(left), objects(want)) {
		s := step{Change: c, want: lookup(want, c.Kind, c.Name), found: lookup(left, c.Kind, c.Name)}
		if c.Action == plugins.ActionRemove && s.found.kind.attached {
			continue // it goes with what it belongs to
		}
		s.Effect = effect(&s)
		out = append(out, s)
	}
	return out
}

// holders returns the virtual servers that have an address which another one is to
// have.
func holders(found, want []*item) []*item {
	type place struct {
		udp        bool
		addr, port string
	}
	at := func(it *item) (place, bool) {
		t := it.get("servicetype")
		return place{t == "UDP" || t == "RADIUS", it.get("ipv46"), it.get("port")}, it.kind.name == "lbvserver" && it.get("port") != "0"
	}
	takes := make(map[place]string)
	for _, it := range want {
		if p, ok := at(it); ok {
			takes[p] = it.name()
		}
	}
	var out []*item
	for _, it := range found {
		if p, ok := at(it); ok && takes[p] != "" && takes[p] != it.name() {
			out = append(out, it)
		}
	}
	return out
}

// leaving returns the memberships of persistency groups that end. A virtual server
// is in one group at most, and shows that group's persistence as its own: what it
// has itself isn't known, so it is left out of what is found.
func leaving(found, want []*item) ([]*item, map[key]bool) {
	gone := make(map[key]bool)
	found = slices.Clone(found)
	for _, it := range found {
		if it.kind.of != "lbgroup" || lookup(want, it.kind.name, it.name()) != nil {
			continue
		}
		gone[keyOf(it)] = true
		for i, v := range found {
			if v.kind.name == "lbvserver" && v.name() == it.child() {
				found[i] = without(without(v, "persistencetype"), "timeout")
			}
		}
	}
	return found, gone
}

// makeRoom returns the steps that remove what must go, with what binds and names it,
// and what is left then.
func makeRoom(found []*item, gone map[key]bool) (out []step, left []*item) {
	var removed []step
	for i := range slices.Backward(found) {
		it := found[i]
		switch {
		case it.kind.of != "" && (gone[key{kindOf(it.kind.of), it.parent()}] || it.kind.binds != "" && gone[key{kindOf(it.kind.binds), it.child()}]):
			if !it.kind.attached {
				removed = append(removed, removal(it))
			}
			continue
		case gone[keyOf(it)]:
			removed = append(removed, removal(it))
			continue
		case it.kind.refers != "" && gone[key{it.kind, it.get(it.kind.refers)}]:
			it = without(it, it.kind.refers)
		}
		left = append(left, it)
	}
	slices.Reverse(left)
	for _, it := range found {
		to := it.get(it.kind.refers)
		if it.kind.refers == "" || to == "" || !gone[key{it.kind, to}] {
			continue
		}
		out = append(out, step{want: without(it, it.kind.refers), found: it, Change: plugins.Change{
			Action: plugins.ActionChange, Kind: it.kind.name, Name: it.name(), Fields: []plugins.FieldChange{{Name: it.kind.refers, Before: to}},
		}})
	}
	return append(out, removed...), left
}

func removal(it *item) step {
	s := step{found: it, Change: plugins.Change{Action: plugins.ActionRemove, Kind: it.kind.name, Name: it.name()}}
	s.Effect = effect(&s)
	return s
}

// without returns an item without a property.
func without(it *item, prop string) *item {
	out := *it
	out.props = slices.Clone(it.props)
	for i := range out.props {
		if out.props[i].name == prop {
			out.props[i].value = nil
		}
	}
	return &out
}

// effect says what clients notice.
func effect(s *step) string {
	switch s.Kind + " " + string(s.Action) {
	case "lbvserver remove":
		return "its clients are cut off"
	case "servicegroup_servicegroupmember_binding remove":
		return "its clients are moved to others"
	case "servicegroup_servicegroupmember_binding change":
		for _, f := range s.Fields {
			switch {
			case f.Name == "graceful":
				return "its clients are moved to others"
			case f.Name == "state" && f.After == "DISABLED" && s.want.get("graceful") == "NO":
				return "its clients are moved to others"
			case f.Name == "state" && f.After == "DISABLED":
				return "it keeps its clients and gets no new ones"
			}
		}
	case "sslcertkey change":
		return "clients are shown another certificate: gateways must know its hash"
	}
	return ""
}
