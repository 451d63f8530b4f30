package geodns

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"

	"github.com/aovlb/aovlb/geo"
)

// maxChain bounds how many CNAMEs are followed.
const maxChain = 8

// A responder makes responses. It belongs to one goroutine.
type responder struct {
	s   *Server
	q   query
	now time.Time

	b          []byte // the response
	base       int    // where it begins in b
	limit      int    // how long it may be
	an, ns, ar uint16
	rcode      int
	aa, tc     bool
	scope      int // of the client's subnet
	sign       bool
	varies     bool // what there is depends on who asks
	// synthesized is how many labels of the question a wildcard stands for.
	synthesized int
	stream      bool
	serverCk    [serverCookie]byte
	setCookie   bool
	goodCookie  bool
	ede         int   // -1 is none
	name        qname // the target of a CNAME
}

// respond appends the response to a request and returns the longer slice; if
// there is nothing to say it returns b as it was.
func (r *responder) respond(b, m []byte, from netip.AddrPort, stream bool) []byte {
	s := r.s
	r.b, r.base, r.stream = b, len(b), stream
	r.an, r.ns, r.ar, r.rcode, r.aa, r.tc, r.scope, r.sign, r.varies, r.ede = 0, 0, 0, 0, false, false, 0, false, false, -1
	r.setCookie, r.goodCookie, r.synthesized = false, false, 0
	v := r.q.parse(m)
	switch v {
	case dropIt:
		s.stats.dropped.Add(1)
		return b
	case formErr:
		return r.refuse(m, rcodeFormErr)
	case notImp:
		return r.refuse(m, rcodeNotImp)
	case badVers:
		r.rcode = rcodeBadVers
	case badEDNS, badOption:
		r.rcode = rcodeFormErr
		r.q.subnet, r.q.cookie, r.q.nsid = subnet{}, cookie{}, false
	case answerIt:
	}
	r.limit = 512
	switch {
	case stream:
		r.limit = 65535
	case r.q.present:
		r.limit = min(r.q.size, s.maxUDP())
	}
	r.cookies(from)
	r.limit -= r.optLen()
	r.b = append(r.b, m[:headerLen]...)
	r.b = append(r.b, m[headerLen:r.q.end]...)
	switch {
	case v != answerIt:
	case !r.q.bare:
		r.answer(from)
	case !r.setCookie:
		r.rcode = rcodeFormErr // there are no cookies here
	}
	if !stream && !r.goodCookie && s.limited(r, from) {
		if r.rcode == rcodeRefused || !s.slip() {
			s.stats.limited.Add(1)
			return r.b[:r.base]
		}
		r.truncate()
	}
	return r.finish(m)
}

// refuse makes a response of a header alone, with what is known of the request.
// ISC's compliance tests want no more of its flags back than these.
func (r *responder) refuse(m []byte, rcode int) []byte {
	r.rcode = rcode
	flags := uint16(flagQR | int(r.q.opcode)<<11 | rcode)
	if r.q.rd {
		flags |= flagRD
	}
	b := append(r.b, m[0], m[1])
	b = binary.BigEndian.AppendUint16(b, flags)
	r.s.stats.rcodes[rcode].Add(1)
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}

// truncate leaves only the question (RFC 2181 section 9: no partial sets).
func (r *responder) truncate() {
	r.b = r.b[:r.base+r.q.end]
	r.an, r.ns, r.ar, r.tc = 0, 0, 0, true
}

// finish writes the OPT and the header.
func (r *responder) finish(m []byte) []byte {
	if r.q.present {
		r.appendOPT()
	}
	h := r.b[r.base:]
	flags := uint16(flagQR | int(r.q.opcode)<<11 | r.rcode&15)
	if r.aa {
		flags |= flagAA
	}
	if r.tc {
		flags |= flagTC
		r.s.stats.truncated.Add(1)
	}
	if r.q.rd {
		flags |= flagRD
	}
	copy(h, m[:2])
	binary.BigEndian.PutUint16(h[2:], flags)
	if !r.q.bare {
		binary.BigEndian.PutUint16(h[4:], 1)
	} else {
		binary.BigEndian.PutUint16(h[4:], 0)
	}
	binary.BigEndian.PutUint16(h[6:], r.an)
	binary.BigEndian.PutUint16(h[8:], r.ns)
	binary.BigEndian.PutUint16(h[10:], r.ar)
	r.s.stats.rcodes[r.rcode].Add(1)
	return r.b
}

// cookies judges the query's cookie and prepares the response's.
func (r *responder) cookies(from netip.AddrPort) {
	c := &r.q.cookie
	if c.n == 0 {
		return
	}
	secrets := r.s.cookieSecrets()
	if secrets.made == (CookieSecret{}) {
		return
	}
	ok, renew := secrets.check(c, from.Addr(), r.now)
	r.goodCookie, r.setCookie = ok, true
	if renew {
		r.serverCk = secrets.made.make(c.b[:8], from.Addr(), uint32(r.now.Unix()))
	} else {
		copy(r.serverCk[:], c.b[8:])
	}
}

// optLen is how long the response's OPT will be.
func (r *responder) optLen() int {
	if !r.q.present {
		return 0
	}
	n := optFixed
	if r.q.nsid && r.s.NSID != "" {
		n += 4 + len(r.s.NSID)
	}
	if r.q.subnet.present {
		n += 8 + r.q.subnet.n
	}
	if r.setCookie {
		n += 4 + 8 + serverCookie
	}
	if r.stream && r.q.keepalive {
		n += 6
	}
	return n + 6 // an extended error
}

func (r *responder) appendOPT() {
	b := append(r.b, 0, 0, typeOPT)
	b = binary.BigEndian.AppendUint16(b, uint16(r.s.maxUDP()))
	b = append(b, byte(r.rcode>>4), 0)
	var flags uint16
	if r.q.do {
		flags = flagDO
	}
	b = binary.BigEndian.AppendUint16(b, flags)
	at := len(b)
	b = append(b, 0, 0)
	if r.q.nsid && r.s.NSID != "" {
		b = binary.BigEndian.AppendUint16(b, optionNSID)
		b = binary.BigEndian.AppendUint16(b, uint16(len(r.s.NSID)))
		b = append(b, r.s.NSID...)
	}
	if r.q.subnet.present {
		b = r.q.subnet.append(b, r.scope)
	}
	if r.setCookie {
		b = binary.BigEndian.AppendUint16(b, optionCookie)
		b = binary.BigEndian.AppendUint16(b, 8+serverCookie)
		b = append(b, r.q.cookie.b[:8]...)
		b = append(b, r.serverCk[:]...)
	}
	if r.stream && r.q.keepalive {
		b = binary.BigEndian.AppendUint16(b, optionKeepalive)
		b = binary.BigEndian.AppendUint16(b, 2)
		b = binary.BigEndian.AppendUint16(b, uint16(min(r.s.streamIdle()/(100*time.Millisecond), 65535)))
	}
	if r.ede >= 0 {
		b = binary.BigEndian.AppendUint16(b, optionEDE)
		b = binary.BigEndian.AppendUint16(b, 2)
		b = binary.BigEndian.AppendUint16(b, uint16(r.ede))
	}
	binary.BigEndian.PutUint16(b[at:], uint16(len(b)-at-2))
	r.b = b
	r.ar++
}

// room reports whether n more octets fit; if not, the response is truncated.
func (r *responder) room(n int) bool {
	if len(r.b)-r.base+n > r.limit {
		r.tc = true
		return false
	}
	return true
}

// put appends a set and, where the client wants it, its signature, to the
// section whose count is given.
func (r *responder) put(count *uint16, z *zoneTable, s *rrset, owner uint16, ttl uint32, name []byte) {
	if r.tc || !r.room(len(s.wire)) {
		return
	}
	r.b = appendSet(r.b, s, owner, ttl, r.q.id)
	*count += uint16(len(s.start))
	if r.sign && z.signer != nil {
		r.putSig(count, z, s, owner, ttl, name)
	}
}

// answer fills in the response.
func (r *responder) answer(from netip.AddrPort) {
	t := r.s.table.Load()
	q := &r.q
	if t == nil || q.qclass != classIN || q.qtype == typeAXFR || q.qtype == typeIXFR {
		r.rcode = rcodeRefused
		return
	}
	if q.qtype == typeNXNAME || q.qtype == 0 {
		r.rcode, r.ede = rcodeFormErr, edeInvalidType
		return
	}
	r.sign = q.do
	name := &q.name
	for chain := 0; !r.tc; chain++ {
		n, i := t.lookup(name)
		if n == nil {
			if chain == 0 {
				r.rcode, r.ede = rcodeRefused, edeNotAuthoritative
			}
			break // the rest of a chain is somebody else's
		}
		next := r.node(n, i, name, from, chain)
		if next == nil || chain == maxChain {
			break
		}
		name = next
	}
	if r.tc {
		r.truncate()
	}
}

// lookup returns the node of a name, or that of its closest encloser; i is how
// many labels lie between.
func (t *table) lookup(q *qname) (n *node, i int) {
	for i = range q.count {
		if n := t.nodes[string(q.from(i))]; n != nil {
			return n, i
		}
	}
	return nil, 0
}

// node answers from a node that is i labels above the name asked. It returns the
// name to go on with if it has answered with a CNAME.
func (r *responder) node(n *node, i int, name *qname, from netip.AddrPort, chain int) (next *qname) {
	q := &r.q
	if i == 0 && q.qtype == typeDS && n.above != nil {
		n = n.above // RFC 4035 section 3.1.4.1: the parent has it
	}
	if n.cut != nil && (i > 0 || q.qtype != typeDS) {
		r.referral(n, i, name, chain)
		return nil
	}
	r.aa = r.aa || chain == 0
	if i > 0 {
		if d := n.find(typeDNAME); d != nil {
			return r.redirect(n, d, i, name)
		}
		w := n.wild
		if w == nil {
			r.negative(n.zone, nil, name, true)
			return nil
		}
		n, r.synthesized = w, i
		if n.cut != nil { // RFC 4592 section 4.2: a delegation is not synthesized
			r.negative(n.zone, nil, name, true)
			return nil
		}
	}
	if r.asksProof(n.zone) {
		r.negative(n.zone, n, name, false)
		return nil
	}
	if n.geo != nil {
		if r.geoName(n, name, from, chain) {
			return nil
		}
	}
	if q.qtype == typeANY {
		r.anything(n, name)
		return nil
	}
	if s := n.find(q.qtype); s != nil {
		r.put(&r.an, n.zone, s, name.pointer(0), s.ttl, name.bytes())
		return nil
	}
	if s := n.find(typeCNAME); s != nil {
		return r.follow(n, s, name)
	}
	r.negative(n.zone, n, name, false)
	return nil
}

// follow answers with a CNAME and returns its target.
func (r *responder) follow(n *node, s *rrset, name *qname) *qname {
	at := len(r.b) - r.base + 12
	r.put(&r.an, n.zone, s, name.pointer(0), s.ttl, name.bytes())
	if r.tc {
		return nil
	}
	r.name.set(r.b[r.base+at:], at)
	return &r.name
}

// redirect answers for a name below a DNAME with that, and with the CNAME that it
// makes of the name, whose target it returns (RFC 6672 section 3.2). The CNAME is
// not signed: who validates makes it again.
func (r *responder) redirect(n *node, d *rrset, i int, name *qname) *qname {
	to := d.wire[12:]
	kept := int(name.labels[i]) // octets of the labels that stay
	if kept+len(to) > maxName {
		r.put(&r.an, n.zone, d, name.pointer(i), d.ttl, name.from(i))
		r.rcode = rcodeYXDomain
		return nil
	}
	// The owner of the CNAME is the name asked for, which the DNAME's follows: so
	// the labels before are taken from the message, in the case they have there.
	owner, before := name.pointer(0), name.at
	r.put(&r.an, n.zone, d, name.pointer(i), d.ttl, name.from(i))
	if r.tc || !r.room(12+kept+len(to)) {
		return nil
	}
	b := binary.BigEndian.AppendUint16(r.b, owner)
	b = binary.BigEndian.AppendUint16(b, typeCNAME)
	b = binary.BigEndian.AppendUint16(b, classIN)
	b = binary.BigEndian.AppendUint32(b, d.ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(kept+len(to)))
	at := len(b)
	b = append(b, b[r.base+before:r.base+before+kept]...)
	r.b = append(b, to...)
	r.an++
	if r.q.qtype == typeCNAME || r.q.qtype == typeANY {
		return nil
	}
	r.name.set(r.b[at:], at-r.base)
	return &r.name
}

// geoName answers for a name whose addresses depend on who asks. It reports
// whether that was all.
func (r *responder) geoName(n *node, name *qname, from netip.AddrPort, chain int) bool {
	q := &r.q
	if chain > 0 {
		// RFC 7871 section 7.2.1: the answer may be tailored for another
		// scope than what came before it; resolvers ask for it by itself.
		return true
	}
	if q.qtype != typeA && q.qtype != typeAAAA && q.qtype != typeANY && len(n.geo.Targets) == 0 {
		return false
	}
	c, scope, least := r.client(from)
	d := n.geo.decide(c, r.now)
	r.s.count(c.Addr)
	if r.scope = scope; scope < 0 {
		r.scope = max(d.scope, least)
	}
	if d.none(q.qtype) {
		r.scope = 0 // RFC 7871 section 7.4, and true: nobody gets one
	} else {
		r.varies = true
	}
	switch {
	case d.fail:
		r.rcode, r.aa = rcodeServFail, false
		r.ede = edeNoReachable
	case d.cname != nil:
		r.put(&r.an, n.zone, d.cname, name.pointer(0), d.ttl, name.bytes())
	case q.qtype == typeA && d.a != nil, q.qtype == typeANY && d.a != nil:
		r.put(&r.an, n.zone, d.a, name.pointer(0), d.ttl, name.bytes())
	case q.qtype == typeAAAA && d.aaaa != nil, q.qtype == typeANY && d.aaaa != nil:
		r.put(&r.an, n.zone, d.aaaa, name.pointer(0), d.ttl, name.bytes())
	default:
		r.negative(n.zone, n, name, false)
	}
	return true
}

// client returns whom to choose for: the subnet, if the query tells one, else
// the resolver. scope, unless it is -1, is that of the answer, whoever is
// chosen for; least is the shortest scope that reaches into no block of
// addresses for which somebody else is chosen.
//
// A private subnet means something only to a resolver of the same private
// network (RFC 7871 section 11.1).
func (r *responder) client(from netip.AddrPort) (c geo.Client, scope, least int) {
	resolver := from.Addr().Unmap()
	c = geo.Client{Addr: resolver, Resolver: resolver}
	p := r.q.subnet.prefix()
	if !p.IsValid() {
		return c, 0, 0
	}
	block, least := -1, 0
	if in, _ := reserved(resolver); in < 0 {
		block, least = reserved(p.Addr())
	} else if p.Addr().Is6() {
		block, least = mapped(p.Addr())
	}
	if block >= 0 {
		return c, block, 0
	}
	r.s.stats.subnets.Add(1)
	c.Addr = p.Addr()
	return c, -1, least
}

// anything answers ANY with one set (RFC 8482 section 4.1).
func (r *responder) anything(n *node, name *qname) {
	if len(n.sets) == 0 {
		r.negative(n.zone, n, name, false)
		return
	}
	s := &n.sets[0]
	r.put(&r.an, n.zone, s, name.pointer(0), s.ttl, name.bytes())
}

// negative says that there is no such name, or no such type.
func (r *responder) negative(z *zoneTable, n *node, name *qname, missing bool) {
	if missing {
		r.rcode = rcodeNXDomain
	}
	if r.asksProof(z) && (r.sign || !missing) {
		r.deny(z, n, name, missing)
		r.rcode = rcodeSuccess
		return
	}
	if r.sign && z.signer != nil {
		r.deny(z, n, name, missing)
	}
	// The zone's name is the end of the name asked.
	r.put(&r.ns, z, &z.negative, name.pointer(name.count-z.depth), z.negative.ttl, name.from(name.count-z.depth))
}

// asksProof reports whether what is asked for is the proof of what a name has, or
// its signature. Every name of a signed zone has these two, so there is no proof
// that it hasn't: saying so would be bogus.
func (r *responder) asksProof(z *zoneTable) bool {
	return z.signer != nil && (r.q.qtype == typeNSEC || r.q.qtype == typeRRSIG)
}

// referral sends to the servers of a zone below.
func (r *responder) referral(n *node, i int, name *qname, chain int) {
	if chain > 0 {
		return // the resolver finds its way from the CNAME
	}
	r.aa = false
	c := n.cut
	owner := name.pointer(i)
	if !r.room(len(c.data)) {
		return
	}
	at := len(r.b) - r.base
	r.b = append(r.b, c.data...)
	for off := 0; off < len(c.data); {
		rr := r.b[r.base+at+off:]
		binary.BigEndian.PutUint16(rr, owner)
		off += 12 + int(binary.BigEndian.Uint16(rr[10:]))
		r.ns++
	}
	if r.sign && n.zone.signer != nil {
		if ds := n.find(typeDS); ds != nil {
			r.put(&r.ns, n.zone, ds, owner, ds.ttl, name.from(i))
		} else {
			r.denyDS(n, owner, name.from(i))
		}
	}
	for _, ns := range c.ns {
		for g := range ns.glue {
			s := &ns.glue[g]
			if r.tc || len(r.b)-r.base+len(s.wire) > r.limit {
				r.tc = true // RFC 9471: all glue or none
				return
			}
			r.b = appendSet(r.b, s, 0xc000|uint16(at+ns.offset), s.ttl, 0)
			r.ar += uint16(len(s.start))
		}
	}
}

// Extended errors (RFC 8914).
const (
	edeNotAuthoritative = 20
	edeNoReachable      = 22
	edeInvalidType      = 30 // RFC 9824
)

// reserved returns the length of the block around an address in which addresses
// say nothing about where a client is (RFC 6890), or -1; then, least is the
// length of the longest prefix around it that holds none of these blocks.
func reserved(a netip.Addr) (block, least int) {
	if a.Is4() {
		b := a.As4()
		return within(binary.BigEndian.Uint32(b[:]), reserved4[:])
	}
	b := a.As16()
	return within(binary.BigEndian.Uint32(b[:]), reserved6[:])
}

// aBlock is a block of addresses, by the first 32 bits.
type aBlock struct {
	first uint32
	bits  int
}

var (
	reserved4 = [...]aBlock{
		{0, 8},
		{10 << 24, 8},
		{127 << 24, 8},
		{100<<24 | 64<<16, 10}, // shared by carriers (RFC 6598)
		{169<<24 | 254<<16, 16},
		{172<<24 | 16<<16, 12},
		{192<<24 | 168<<16, 16},
		{224 << 24, 3},
	}
	reserved6 = [...]aBlock{
		{0, 8},           // unspecified, loopback, mapped IPv4
		{0xfc000000, 7},  // unique local
		{0xfe800000, 10}, // link-local
		{0xff << 24, 8},  // multicast
	}
)

func within(a uint32, list []aBlock) (block, least int) {
	for _, b := range list {
		n := bits.LeadingZeros32(a ^ b.first)
		if n >= b.bits {
			return b.bits, 0
		}
		least = max(least, n+1)
	}
	return -1, least
}

// mapped is reserved for the one block of IPv6 that is meaningless to everybody:
// IPv4 mapped into it, ::ffff:0:0/96. A subnet of IPv4 comes as such.
func mapped(a netip.Addr) (block, least int) {
	b := a.As16()
	hi, lo := binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])
	n := bits.LeadingZeros64(hi)
	if n == 64 {
		n += bits.LeadingZeros64(lo ^ 0xffff<<32)
	}
	if n >= 96 {
		return 96, 0
	}
	return -1, n + 1
}
