package keepalived

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/ownfile"
)

// The ruleset has one table of its own, with a chain that marks what comes in, and an
// empty one whose name tells which edition of the ruleset the kernel has.

// table is the name of the driver's table.
func table(owner plugins.Owner, site string) string { return owner.Name(site, 0, "marks") }

const editionMark = "edition_"

// ruleset returns the table; nothing if no group is marked.
func (r *renderer) ruleset() []block {
	if len(r.marks) == 0 {
		return nil
	}
	chain := block{head: "chain incoming", note: "IPVS keeps the clients of one mark at one server, whatever the port"}
	chain.add("type filter hook prerouting priority mangle; policy accept;")
	// Only with connection tracking are the fragments of large IKE messages put
	// together before they come here; a rule that mentions it turns it on.
	chain.add("ct state invalid counter")
	for i := range r.site.Groups {
		g := &r.site.Groups[i]
		if !marked(g) {
			continue
		}
		p := r.site.Pool(g.Pool)
		for k := range g.Listeners {
			l := &g.Listeners[k]
			chain.add("%s %s dport %d meta mark set %#x", daddr(l.Address.Addr().Unmap(), family(p)), l.Protocol.Network(), l.Address.Port(), r.marks[g.Name])
		}
	}
	return []block{{head: "table inet " + table(r.owner, r.site.Name), blocks: []block{chain}}}
}

// daddr matches what is for an address, of this machine if it is none in particular.
func daddr(a netip.Addr, v4 bool) string {
	switch {
	case a.IsUnspecified() && v4:
		return "meta nfproto ipv4 fib daddr type local"
	case a.IsUnspecified():
		return "meta nfproto ipv6 fib daddr type local"
	case a.Is4():
		return "ip daddr " + a.String()
	}
	return "ip6 daddr " + a.String()
}

// writeMarks writes the ruleset's file, which replaces the table, or removes it if
// there are no blocks.
func writeMarks(owner plugins.Owner, site string, list []block) []byte {
	name := table(owner, site)
	var b strings.Builder
	fmt.Fprintf(&b, "#!/usr/sbin/nft -f\n# %s\n", owner.Mark(site, ""))
	b.WriteString("# Written by aovlb, which undoes what is altered here. It marks the packets that IPVS is to\n# balance, and touches no table but its own.\n\n")
	fmt.Fprintf(&b, "table inet %s\ndelete table inet %s\n", name, name)
	if len(list) == 0 {
		return []byte(b.String())
	}
	whole := list[0]
	edition := block{head: "chain " + editionMark + revision(list)}
	whole.blocks = append([]block{edition}, whole.blocks...)
	b.Write(body([]block{whole}))
	return []byte(b.String())
}

// revision identifies blocks.
func revision(list []block) string { return plugins.RevisionOf(objects(list))[:12] }

// readMarks reads the ruleset's file, and returns its edition.
func readMarks(owner plugins.Owner, site string, raw []byte) (list []block, edition string, err error) {
	if len(strings.TrimSpace(string(raw))) == 0 {
		return nil, "", nil
	}
	if !ownfile.Ours(owner, site, raw, 1) {
		return nil, "", ownfile.ErrForeign
	}
	for _, b := range parse(string(raw)) {
		if b.head == "" {
			b.lines = deleteOwn(b.lines, table(owner, site))
			if len(b.lines) == 0 {
				continue
			}
		}
		var rest []block
		for _, c := range b.blocks {
			if e, ok := strings.CutPrefix(c.head, "chain "+editionMark); ok && len(c.lines) == 0 && len(c.blocks) == 0 {
				edition = e
				continue
			}
			rest = append(rest, c)
		}
		b.blocks = rest
		list = append(list, b)
	}
	return list, edition, nil
}

// deleteOwn leaves out the lines that remove the table before it is made anew.
func deleteOwn(lines []string, name string) []string {
	var out []string
	for _, l := range lines {
		if l != "table inet "+name && l != "delete table inet "+name {
			out = append(out, l)
		}
	}
	return out
}
