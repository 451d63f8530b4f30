package geodns

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/dns"
)

// A table is all that is served, at one moment. It is immutable, but for the
// answers of names.
type table struct {
	nodes map[wireName]*node // by name in lower case
	zones []*zoneTable
	names []*Name
}

// zoneTable is what answers need of a zone as a whole.
type zoneTable struct {
	zone     *Zone
	apex     *node
	depth    int   // labels of the apex, the root included
	negative rrset // the SOA with the life time of negative answers (RFC 2308)
	signer   *signer
}

// node is a name.
type node struct {
	zone  *zoneTable
	name  wireName
	sets  []rrset // by type
	geo   *Name
	wild  *node // its child *
	cut   *cut  // it is delegated
	above *node // the cut of the parent zone, for the apex of a child zone
}

// cut is a delegation.
type cut struct {
	ns   []nameServer
	ttl  uint32
	data []byte // the NS records, with an owner of 0xC00C
}

type nameServer struct {
	offset int // of its name in cut.data
	glue   []rrset
}

// rrset is records as they go on the wire. Each has as owner a pointer of two
// octets, 0xC00C, which is the question's name.
type rrset struct {
	typ   uint16
	ttl   uint32
	wire  []byte
	start []uint16 // of each record in wire
	sig   *signed  // nil in a zone without keys
}

// find returns the set of a type, or nil.
func (n *node) find(typ uint16) *rrset {
	for i := range n.sets {
		if n.sets[i].typ == typ {
			return &n.sets[i]
		}
	}
	return nil
}

// packSet makes an rrset.
func packSet(rrs []dns.RR) (rrset, error) {
	h := rrs[0].Header()
	s := rrset{typ: h.Rrtype, ttl: h.Ttl}
	for _, rr := range rrs {
		var b [65535]byte
		n, err := dns.PackRR(rr, b[:], 0, nil, false)
		if err != nil {
			return s, fmt.Errorf("%s %s: %w", h.Name, dns.TypeToString[h.Rrtype], err)
		}
		at := skipName(b[:n], 0)
		if len(s.wire) > 1<<15 {
			return s, fmt.Errorf("%s %s: the records are too many for one answer", h.Name, dns.TypeToString[h.Rrtype])
		}
		s.start = append(s.start, uint16(len(s.wire)))
		s.wire = append(append(s.wire, 0xc0, 0x0c), b[at:n]...)
	}
	return s, nil
}

// newTable compiles zones and names.
func newTable(zones []*Zone, names []*Name) (*table, error) {
	t := &table{nodes: make(map[wireName]*node), names: names}
	var errs []error
	// Parents first, so that a child's apex takes the place of its cut.
	zones = slices.SortedFunc(slices.Values(zones), func(a, b *Zone) int { return cmp.Compare(len(a.origin), len(b.origin)) })
	for _, z := range zones {
		if err := t.addZone(z); err != nil {
			errs = append(errs, err)
		}
	}
	for _, n := range names {
		if err := t.addName(n); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for name, n := range t.nodes {
		n.wild = t.nodes["\x01*"+name]
		if n.wild != nil && n.wild.zone != n.zone {
			n.wild = nil
		}
	}
	for _, z := range t.zones {
		if err := z.sign(t); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *table) addZone(z *Zone) error {
	zt := &zoneTable{zone: z}
	for at := z.origin; ; at = parent(at) {
		zt.depth++
		if len(at) == 1 {
			break
		}
	}
	if old := t.nodes[z.origin]; old != nil && old.zone.zone.origin == z.origin {
		return fmt.Errorf("geodns: zone %s is there twice", z.Origin())
	}
	above := t.nodes[z.origin]
	zt.apex = &node{zone: zt, name: z.origin}
	if above != nil && above.cut != nil {
		zt.apex.above = above
	}
	t.nodes[z.origin] = zt.apex
	t.zones = append(t.zones, zt)
	var errs []error
	for owner, sets := range z.records {
		if z.cutAbove(owner) {
			continue // glue, or what is hidden by a delegation
		}
		n := t.node(zt, owner)
		if len(sets[typeNS]) > 0 && owner != z.origin {
			var err error
			if n.cut, err = z.newCut(sets[typeNS]); err != nil {
				errs = append(errs, err)
			}
			sets = map[uint16][]dns.RR{typeDS: sets[typeDS]}
		}
		for _, rrs := range sets {
			if len(rrs) == 0 {
				continue
			}
			s, err := packSet(rrs)
			if err != nil {
				errs = append(errs, fmt.Errorf("geodns: zone %s: %w", z.Origin(), err))
				continue
			}
			n.sets = append(n.sets, s)
		}
		slices.SortFunc(n.sets, func(a, b rrset) int { return cmp.Compare(a.typ, b.typ) })
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	soa := dns.Copy(z.soa)
	soa.Header().Ttl = min(z.soa.Hdr.Ttl, z.soa.Minttl)
	var err error
	zt.negative, err = packSet([]dns.RR{soa})
	return err
}

// node returns the node of a name of a zone; it makes that, and those above up
// to the apex, if they aren't there.
func (t *table) node(zt *zoneTable, name wireName) *node {
	if n := t.nodes[name]; n != nil && n.zone == zt {
		return n
	}
	n := &node{zone: zt, name: name}
	t.nodes[name] = n
	if name != zt.zone.origin {
		t.node(zt, parent(name))
	}
	return n
}

// cutAbove reports whether a name is below a delegation.
func (z *Zone) cutAbove(name wireName) bool {
	for name != z.origin {
		name = parent(name)
		if name != z.origin && len(z.records[name][typeNS]) > 0 {
			return true
		}
	}
	return false
}

// maxCut is how long the NS records of a delegation may be together: pointers to
// their names must reach all of them.
const maxCut = 8192

func (z *Zone) newCut(rrs []dns.RR) (*cut, error) {
	s, err := packSet(rrs)
	if err != nil {
		return nil, fmt.Errorf("geodns: zone %s: %w", z.Origin(), err)
	}
	if len(s.wire) > maxCut {
		return nil, fmt.Errorf("geodns: zone %s: %s has more name servers than go into one answer", z.Origin(), rrs[0].Header().Name)
	}
	c := &cut{ttl: s.ttl, data: s.wire}
	for i, rr := range rrs {
		ns := nameServer{offset: int(s.start[i]) + 12}
		host, err := packName(rr.(*dns.NS).Ns)
		if err != nil {
			return nil, fmt.Errorf("geodns: zone %s: %w", z.Origin(), err)
		}
		for _, typ := range []uint16{typeA, typeAAAA} {
			if glue := z.records[lowerName(host)][typ]; len(glue) > 0 {
				set, err := packSet(glue)
				if err != nil {
					return nil, err
				}
				ns.glue = append(ns.glue, set)
			}
		}
		c.ns = append(c.ns, ns)
	}
	return c, nil
}

// addName puts a name into its zone.
func (t *table) addName(n *Name) error {
	wire, err := packName(n.Name)
	if err != nil {
		return fmt.Errorf("geodns: name %w", err)
	}
	wire = lowerName(wire)
	var zt *zoneTable
	for at := wire; zt == nil; at = parent(at) {
		if m := t.nodes[at]; m != nil {
			if m.cut != nil {
				return fmt.Errorf("geodns: name %s is below a delegation of zone %s", n.Name, m.zone.zone.Origin())
			}
			if at != wire && m.find(typeDNAME) != nil {
				return fmt.Errorf("geodns: name %s is below the DNAME of %s: nobody would get it", n.Name, textName(at))
			}
			zt = m.zone
		}
		if len(at) == 1 {
			break
		}
	}
	if zt == nil {
		return fmt.Errorf("geodns: name %s is in no zone that is served", n.Name)
	}
	m := t.node(zt, wire)
	if m.geo != nil {
		return fmt.Errorf("geodns: name %s is there twice", n.Name)
	}
	for _, typ := range []uint16{typeA, typeAAAA, typeCNAME} {
		if m.find(typ) != nil {
			return fmt.Errorf("geodns: name %s has %s records in its zone; leave them to the sites", n.Name, dns.TypeToString[typ])
		}
	}
	if len(n.Targets) > 0 && len(m.sets) > 0 {
		return fmt.Errorf("geodns: name %s is answered with a CNAME and has records of its own in its zone", n.Name)
	}
	m.geo = n
	return nil
}

// appendSet appends a set with an owner and TTL. It begins with one of its
// records, by turn, so that clients that take the first are shared out.
func appendSet(b []byte, s *rrset, owner uint16, ttl uint32, turn uint16) []byte {
	at := len(b)
	first := 0
	if len(s.start) > 1 {
		first = int(s.start[int(turn)%len(s.start)])
	}
	b = append(append(b, s.wire[first:]...), s.wire[:first]...)
	for _, o := range s.start {
		o := int(o) - first
		if o < 0 {
			o += len(s.wire)
		}
		rr := b[at+o:]
		binary.BigEndian.PutUint16(rr, owner)
		binary.BigEndian.PutUint32(rr[6:], ttl)
	}
	return b
}
