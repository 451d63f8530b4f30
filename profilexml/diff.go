package profilexml

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Difference is something that two profiles don't have in common.
type Difference struct {
	// Path names what differs. Elements that may be there several times are
	// named by what tells them apart, such as Route[10.0.0.0/8].
	Path string `json:"path"`
	// Old and New are the values; empty if that side has none.
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
	// OldAt and NewAt are where they stand; zero if that side has none.
	OldAt Position `json:"old_at,omitzero"`
	NewAt Position `json:"new_at,omitzero"`
	// Text says it in words.
	Text string `json:"text"`
}

// A DiffOptions says what counts as a difference.
type DiffOptions struct {
	// Exact also reports what means the same, such as a value that is the
	// default and an element that is left out.
	Exact bool
	// Readback says that b is what Windows reads back of a, so that what
	// Windows adds by itself is no difference: DNS rules that trigger the VPN,
	// trusted networks by the names of DNS rules, FastReconnect.
	Readback bool
}

// A fact is a value in a profile, in the form in which values are compared.
type fact struct {
	path     string // what it is about
	value    string
	at       int    // where it stands
	subject  string // what it is about, in words; "" if the path says it
	whole    bool   // it stands for an element with others in it
	inferred bool   // Windows takes it so, and nobody wrote it
	secret   bool   // it isn't shown
	order    int    // where it comes in the content table
}

// Diff says how the document b differs from a, in the order of the content
// table. What means the same is no difference: the order, comments and spaces,
// the case of what Windows knows, friendly names that say what the address says,
// and defaults. Secrets are compared and not shown.
func Diff(a, b *Document, o DiffOptions) []Difference {
	left, right := factsOf(a, o), factsOf(b, o)
	w := differ{a, b}
	byPath := map[string]*fact{}
	for i := range right {
		byPath[right[i].path] = &right[i]
	}
	var list []ordered
	seen := map[string]bool{}
	gone := map[string]bool{} // elements that only one side has, with all in them
	for i := range left {
		l := &left[i]
		seen[l.path] = true
		r := byPath[l.path]
		switch {
		case isGone(gone, l.path):
		case r == nil && l.inferred:
		case r == nil:
			gone[l.path] = l.whole
			list = append(list, ordered{w.difference(l, nil), l.order})
		case l.value != r.value:
			d := w.difference(l, r)
			if o.Readback && l.path == "NativeProfile/NativeProtocolType" {
				d.Text += "; Windows also reads it back so where VpnStrategy was changed in the phonebook"
			}
			list = append(list, ordered{d, l.order})
		}
	}
	clear(gone)
	for i := range right {
		r := &right[i]
		if seen[r.path] || r.inferred || o.Readback && r.added() || isGone(gone, r.path) {
			continue
		}
		gone[r.path] = r.whole
		list = append(list, ordered{w.difference(nil, r), r.order})
	}
	slices.SortStableFunc(list, func(a, b ordered) int { return cmp.Compare(a.order, b.order) })
	out := make([]Difference, len(list))
	for i, d := range list {
		out[i] = d.Difference
	}
	return out
}

// ordered is a Difference and its place.
type ordered struct {
	Difference
	order int
}

// isGone reports whether path is in one of the elements that are gone.
func isGone(gone map[string]bool, path string) bool {
	for i := strings.LastIndexByte(path, '/'); i > 0; i = strings.LastIndexByte(path[:i], '/') {
		if gone[path[:i]] {
			return true
		}
	}
	return false
}

// A differ puts differences into words.
type differ struct{ old, new *Document }

func (w *differ) difference(l, r *fact) Difference {
	var d Difference
	one := cmp.Or(l, r)
	d.Path = one.path
	name := cmp.Or(one.subject, one.path)
	if l != nil {
		d.Old, d.OldAt = l.shown(), w.old.Position(l.at)
	}
	if r != nil {
		d.New, d.NewAt = r.shown(), w.new.Position(r.at)
	}
	switch {
	case l == nil && r.whole:
		d.Text = name + " is new"
	case r == nil && l.whole:
		d.Text = name + " is gone"
	case l == nil:
		d.Text = fmt.Sprintf("%s is new: %s", name, d.New)
	case r == nil:
		d.Text = fmt.Sprintf("%s is gone: it was %s", name, d.Old)
	default:
		d.Text = fmt.Sprintf("%s was %s and is %s", name, d.Old, d.New)
	}
	return d
}

// added reports whether Windows adds such a fact by itself.
func (f *fact) added() bool {
	return strings.HasSuffix(f.path, "/AutoTrigger") && f.value == "true" || strings.HasSuffix(f.path, "/FastReconnect")
}

func (f *fact) shown() string {
	if f.secret {
		return "(a secret)"
	}
	return f.value
}

// factsOf lists all that a document says.
func factsOf(d *Document, o DiffOptions) []fact {
	l := &factLister{doc: d, exact: o.Exact, k: newCheck(&Checker{}, d)}
	l.walk(d.Root, d.Root.Local)
	if l.k.root != nil && o.Readback {
		l.infer()
	}
	for i := range l.list {
		f := &l.list[i]
		f.path = strings.TrimPrefix(f.path, contentTable.Name+"/")
		f.subject = strings.TrimPrefix(f.subject, contentTable.Name+"/")
	}
	return l.list
}

type factLister struct {
	doc   *Document
	k     *check
	exact bool
	list  []fact
	used  map[string]int
}

func (l *factLister) add(n *Node, f fact) {
	f.at = n.Start
	f.order = 1 << 20
	if n.spec != nil {
		f.order = n.spec.ordinal
	}
	l.list = append(l.list, f)
}

func (l *factLister) walk(n *Node, path string) {
	for _, c := range n.Children {
		if c.Kind != ElementNode {
			continue
		}
		p := l.unique(path + "/" + l.key(c))
		switch {
		case c.spec != nil && c.spec.Type == Group && c.hasElements():
			if c.spec.Repeats {
				l.add(c, fact{path: p, value: "there", whole: true})
			}
			l.walk(c, p)
		case c.spec == nil && c.hasElements():
			l.add(c, fact{path: p, value: strings.Join(l.doc.eapFacts(c), " "), subject: p})
		default:
			if v, ok := l.value(c); ok {
				l.add(c, fact{path: p, value: v, secret: c.spec != nil && (c.spec.Name == "L2tpPsk" || c.spec.Name == "Password")})
			}
		}
		for _, a := range c.Attrs {
			if !a.declares() && !(a.Name() == "Enabled" && strings.EqualFold(a.Value, "false") && !l.exact) {
				l.add(c, fact{path: p + "@" + a.Name(), value: strings.ToLower(a.Value)})
			}
		}
	}
}

// unique numbers paths that are there several times.
func (l *factLister) unique(path string) string {
	if l.used == nil {
		l.used = map[string]int{}
	}
	l.used[path]++
	if n := l.used[path]; n > 1 {
		return fmt.Sprintf("%s#%d", path, n)
	}
	return path
}

// key names an element so that it is found on the other side wherever it stands.
func (l *factLister) key(n *Node) string {
	if n.spec == nil {
		return n.Name()
	}
	switch n.spec.Path() {
	case "VPNProfile/Route":
		address, size := n.child("Address"), n.child("PrefixSize")
		if p, ok := l.k.network(address, size); ok {
			return fmt.Sprintf("Route[%v]", p.Masked())
		}
		return fmt.Sprintf("Route[%s/%s]", l.k.text(address), l.k.text(size))
	case "VPNProfile/DomainNameInformation":
		return fmt.Sprintf("DomainNameInformation[%s]", strings.ToLower(l.k.text(n.child("DomainName"))))
	case "VPNProfile/AppTrigger":
		return fmt.Sprintf("AppTrigger[%s]", l.k.text(n.at("App/Id")))
	}
	return n.Local
}

// value returns the value of an element as it is compared, and false if it says
// no more than its absence would.
func (l *factLister) value(n *Node) (string, bool) {
	v := l.doc.text(n)
	if n.spec == nil {
		return v, true
	}
	if !l.exact && v == "" && (n.spec.Name == "ServerNames" || !n.spec.Required) {
		return "", false
	}
	switch n.spec.Type {
	case Boolean:
		if b, ok := boolean(v); ok {
			v = fmt.Sprint(b)
		}
		if !l.exact && v == n.spec.Default {
			return v, n.spec.Required
		}
	case Enumeration:
		v = n.spec.canonical(v)
		if !l.exact && (n.spec.Name == "MachineMethod" && v == "Eap" || n.spec.Name == "RoutingPolicyType" && v == "SplitTunnel" || v == n.spec.Default) {
			return v, false
		}
	case Number:
		if !l.exact && n.spec.Path() == "VPNProfile/Route/Metric" && v == "1" {
			return v, false
		}
	case List:
		v = l.listValue(n, v)
	default:
		if n.spec.Name == "Address" {
			if a, err := netip.ParseAddr(v); err == nil {
				v = a.String()
			}
		}
		if t, err := ParseThumbprint(v); err == nil && holdsThumbprint(n) {
			v = strings.TrimSpace(t.String())
		}
	}
	return v, true
}

// listValue writes a list with one comma, and without the friendly names that
// say what the address says.
func (l *factLister) listValue(n *Node, v string) string {
	var items []string
	for s := range strings.SplitSeq(v, n.spec.Separator) {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if address, name, ok := strings.Cut(s, ";"); ok && n.spec.Name == "Servers" && !l.exact && (name == "" || strings.EqualFold(address, name)) {
			s = address
		}
		if n.spec.Name == "TrustedNetworkDetection" && !l.exact {
			s = strings.ToLower(strings.TrimPrefix(s, "."))
		}
		items = append(items, s)
	}
	return strings.Join(items, n.spec.Separator)
}

// infer adds what Windows makes of what isn't there.
func (l *factLister) infer() {
	if l.k.root.child("TrustedNetworkDetection") != nil {
		return
	}
	var names []string
	for _, d := range l.k.names {
		if d.child("DnsServers") != nil {
			names = append(names, strings.ToLower(strings.TrimPrefix(l.k.text(d.child("DomainName")), ".")))
		}
	}
	if len(names) > 0 {
		l.add(l.k.root, fact{path: contentTable.Name + "/TrustedNetworkDetection", value: strings.Join(names, ","), inferred: true})
	}
}
