package ikev2

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"time"
)

// This file holds what is known of one client's conversation with its gateway:
// an IKE SA, with those that it was renewed by. A Tracker fills it in, Diagnose
// reads it.
//
//	IKE_SA_INIT ──▶ (again with cookie or other group) ──▶ IKE_AUTH ──▶ … ──▶ IKE_AUTH
//	     port 500                                           port 4500            │
//	                              CREATE_CHILD_SA, INFORMATIONAL ◀───────────────┘
//
// Each request and its answer is a round, each of the two a flight: one
// message, sent perhaps in several fragments, and perhaps several times.

// A side is one end of a conversation.
type side uint8

const (
	sideClient side = iota
	sideGateway
)

func (s side) other() side { return 1 - s }

func (s side) String() string {
	if s == sideClient {
		return "client"
	}
	return "gateway"
}

// a flight is one message, in one or several datagrams, sent once or more often.
type flight struct {
	first, last    time.Time
	packet, latest int // numbers of the first and the last datagram
	times          int // how often it was sent
	octets         int // of the IKE message, or of all its fragments
	largest        int // payload of its largest datagram
	ipFragments    int // most IP fragments that a datagram of it came in
	incomplete     int // how often IP fragments of it didn't all come
	missing        string
	fragments      FragmentSet
	notify         NotifyType  // the first error or COOKIE in the clear
	cookie         bool        // it begins with a cookie
	inside         PayloadType // what its encrypted part begins with
	refuses        bool        // all that isn't encrypted of it looks like a refusal
	port           uint16      // the gateway's
	hash           uint64
}

func (f *flight) seen() bool { return f.times > 0 || f.incomplete > 0 || f.fragments.Count() > 0 }

// whole reports whether all of it came at least once.
func (f *flight) whole() bool {
	if f.fragments.Total() > 0 {
		return f.fragments.Whole()
	}
	return f.times > 0
}

// size returns how long it is, as sent: with a marker, if it isn't in fragments.
func (f *flight) size() int { return max(f.octets, f.largest) }

// note takes down one more datagram of the flight.
func (f *flight) note(e *Event, msg []byte, hash uint64) {
	if !f.seen() {
		f.first, f.packet = e.Time, e.Packet
	}
	f.last, f.latest = e.Time, e.Packet
	f.largest = max(f.largest, e.size())
	f.ipFragments = max(f.ipFragments, e.Fragments)
	if e.Kind == EventIncomplete {
		f.incomplete++
		f.missing = e.Missing
		return
	}
	if p := firstInside(msg); p != PayloadNone {
		f.inside = p
	}
	size := e.size() - (len(e.Data) - len(msg))
	number, total, ok := fragmentNumber(msg)
	if !ok {
		f.times++
		f.octets, f.hash = size, hash
		f.refuses = refuses(msg)
		return
	}
	f.fragments.Add(number, total, size)
	f.octets = f.fragments.Octets()
	if n := f.fragments.Total(); n > 0 {
		f.times = 1 + (f.fragments.Duplicates()+n-1)/n
	}
}

// A round is a request and its answer.
type round struct {
	kind      ExchangeType
	id        uint32
	by        side
	spi       SPI
	request   flight
	response  flight
	intoRekey bool // new SPIs were used after it
}

func (x *round) answered() bool { return x.response.whole() }

// took is how long the answer took, from the first time it was asked for.
func (x *round) took() time.Duration {
	if !x.request.seen() || !x.response.seen() {
		return 0
	}
	return x.response.first.Sub(x.request.first)
}

// a security association of a conversation: SPIs, and who made them.
type association struct {
	spi       SPI
	initiator side
}

// a leg is a pair of addresses between which a conversation was seen. A balancer
// has two: to the client and to the gateway.
type leg struct {
	client, gateway netip.Addr
	forwarded       bool // what passes there was seen on another leg before
}

// a move is a change of address.
type move struct {
	at       time.Time
	packet   int
	from, to netip.AddrPort
}

type icmpSeen struct {
	at       time.Time
	packet   int
	kind     ICMPError
	mtu      int
	reporter netip.Addr
	port     uint16 // of the gateway
	by       side   // whose datagram it is about
}

// A conversation is all that was seen of one client's IKE SA.
type conversation struct {
	sas     []association
	midway  bool // its beginning wasn't seen
	client  netip.AddrPort
	gateway netip.AddrPort
	began   time.Time
	last    time.Time
	packet  int // the first
	latest  int

	exchanges []*round
	dropped   int // exchanges that are no longer kept
	legs      []leg
	moves     []move
	icmp      []icmpSeen
	nicmp     int

	offer         []byte   // the SA payload of the last IKE_SA_INIT request
	suite         Proposal // what the gateway chose
	group         Group    // of the last Key Exchange payload of the client
	wanted        Group    // what INVALID_KE_PAYLOAD asked for
	fragmentation [2]bool  // who announces IKEV2_FRAGMENTATION_SUPPORTED
	announced     [2]bool  // whose IKE_SA_INIT was seen
	vendors       [2][]string
	nat           [2]bool // whose address isn't what the other side sees
	cookies       int
	esp           [2]uint64
	truncated     int // packets the capture has only part of
	initAt        string
	authAt        string // gateways that IKE_SA_INIT and IKE_AUTH came to
	copies        int    // packets seen more than once on their way
	restarted     bool   // the client began again with another SA

	recent [8]sighting
	next   int

	flows      []flowPair
	prev, succ *conversation
	list       *conversationList
}

type sighting struct {
	hash uint64
	at   time.Time
	by   side
}

// Bounds of what one conversation keeps.
const (
	maxAssociations = 64
	maxLegs         = 16
	maxMoves        = 64
	maxICMP         = 16
	maxOffer        = 4096
	maxVendors      = 16
	maxFlowsKept    = 32
)

// copyWithin is how soon after another sighting of the same bytes between the same
// addresses one is the same packet on its way, not one sent again: who sends again
// waits longer.
const copyWithin = 100 * time.Millisecond

// forwardWithin is how long a balancer may take to pass a packet on.
const forwardWithin = time.Second

var hashSeed = maphash.MakeSeed()

// seenBefore looks for a sighting of the same bytes, and takes note of this one.
func (c *conversation) seenBefore(hash uint64, by side, at time.Time) (before time.Time, ok bool) {
	for i := range c.recent {
		s := &c.recent[i]
		if s.hash == hash && s.by == by && !s.at.IsZero() {
			before, ok = s.at, true
			s.at = at
			return before, ok
		}
	}
	c.recent[c.next] = sighting{hash, at, by}
	c.next = (c.next + 1) % len(c.recent)
	return before, false
}

// route works out on which leg a message passed, and reports whether it counts: it
// doesn't if it was seen before on its way.
func (c *conversation) route(e *Event, by side, hash uint64, x ExchangeType) (counts bool) {
	cl, gw := e.From, e.To
	if by == sideGateway {
		cl, gw = e.To, e.From
	}
	before, again := c.seenBefore(hash, by, e.Time)
	since := e.Time.Sub(before)
	i := slices.IndexFunc(c.legs, func(l leg) bool { return l.client == cl.Addr() && l.gateway == gw.Addr() })
	switch {
	case i >= 0 && c.legs[i].forwarded:
		c.at(x, gw.Addr().String(), true)
		c.copies++
		return false
	case i < 0 && again && since < forwardWithin && len(c.legs) > 0:
		if len(c.legs) < maxLegs {
			c.legs = append(c.legs, leg{cl.Addr(), gw.Addr(), true})
		}
		c.at(x, gw.Addr().String(), true)
		c.copies++
		return false
	case i < 0:
		if len(c.legs) < maxLegs {
			c.legs = append(c.legs, leg{client: cl.Addr(), gateway: gw.Addr()})
		}
	case again && since < copyWithin:
		c.copies++
		return false
	}
	if e.Gateway != "" {
		c.at(x, e.Gateway, true)
	} else {
		c.at(x, gw.Addr().String(), false)
	}
	c.relocate(e, cl, gw)
	return true
}

// at notes which gateway a handshake has come to. An address that clients dial
// says nothing if it is known what is behind it.
func (c *conversation) at(x ExchangeType, name string, sure bool) {
	behind := sure || !slices.ContainsFunc(c.legs, func(l leg) bool { return l.forwarded })
	switch {
	case !behind:
	case x == ExchangeSAInit:
		c.initAt = name
	case x == ExchangeAuth || x == ExchangeIntermediate:
		c.authAt = name
	}
}

// relocate notes where client and gateway are now.
func (c *conversation) relocate(e *Event, cl, gw netip.AddrPort) {
	if cl != c.client {
		if c.client.IsValid() && cl.Addr() != c.client.Addr() && len(c.moves) < maxMoves {
			c.moves = append(c.moves, move{e.Time, e.Packet, c.client, cl})
		}
		c.client = cl
	}
	c.gateway = gw
}

// sa returns the association with a header SPI.
func (c *conversation) sa(spi SPI) *association {
	for i := range c.sas {
		if c.sas[i].spi == spi {
			return &c.sas[i]
		}
	}
	return nil
}

// sender returns who sent a message of association a: the I flag is set by who
// made the association.
func (a *association) sender(f Flags) side {
	if f&FlagInitiator != 0 {
		return a.initiator
	}
	return a.initiator.other()
}

// exchange returns the exchange of a message, made if need be.
func (c *conversation) exchange(h Header, by side, hash uint64, most int) *round {
	if h.Response() {
		by = by.other()
	}
	for i, x := range slices.Backward(c.exchanges) {
		if len(c.exchanges)-i > 32 {
			break
		}
		if x.spi != h.SPIi || x.id != h.MessageID || x.kind != h.Exchange || x.by != by {
			continue
		}
		// With a cookie or another group a client asks anew, by the same
		// number.
		if h.Exchange == ExchangeSAInit && !h.Response() && x.answered() && x.request.hash != hash {
			break
		}
		return x
	}
	if len(c.exchanges) >= most {
		// The handshake is what explains most: it stays.
		keep := most / 2
		c.exchanges = slices.Delete(c.exchanges, keep, keep+1)
		c.dropped++
	}
	x := &round{kind: h.Exchange, id: h.MessageID, by: by, spi: h.SPIi}
	c.exchanges = append(c.exchanges, x)
	return x
}

// last returns the latest exchange of a kind, or nil.
func (c *conversation) lastOf(kinds ...ExchangeType) *round {
	for _, x := range slices.Backward(c.exchanges) {
		if slices.Contains(kinds, x.kind) {
			return x
		}
	}
	return nil
}

// count returns how many exchanges of a kind there were.
func (c *conversation) count(match func(*round) bool) (n int) {
	for _, x := range c.exchanges {
		if match(x) {
			n++
		}
	}
	return n
}

// learn reads what an IKE_SA_INIT message says in the clear.
func (c *conversation) learn(m Message, by side, f *flight, e *Event) {
	if !m.Response() {
		c.nat[sideClient], c.nat[sideGateway] = false, false
	}
	c.announced[by] = true
	c.fragmentation[by] = false
	c.vendors[by] = c.vendors[by][:0]
	first := true
	for w := m.Payloads(); w.Next(); first = false {
		p := w.Payload
		switch p.Type {
		case PayloadSA:
			c.learnSA(p.Body, by)
		case PayloadKE:
			if k, err := ParseKE(p.Body); err == nil && by == sideClient {
				c.group = k.Group
			}
		case PayloadVendor:
			if v := VendorID(p.Body).Name(); v != "" && len(c.vendors[by]) < maxVendors {
				c.vendors[by] = append(c.vendors[by], v)
			}
		case PayloadNotify:
			if n, err := ParseNotify(p.Body); err == nil {
				c.learnNotify(m.Header, n, by, f, e, first)
			}
		}
	}
}

func (c *conversation) learnSA(body []byte, by side) {
	if by == sideClient {
		if len(body) <= maxOffer {
			c.offer = append(c.offer[:0], body...)
		}
		return
	}
	if ps, err := ParseSA(body); err == nil && len(ps) > 0 {
		c.suite = ps[0]
		c.suite.SPI = nil // part of the message
	}
}

func (c *conversation) learnNotify(h Header, n Notify, by side, f *flight, e *Event, first bool) {
	switch n.Type {
	case NotifyFragmentationSupported:
		c.fragmentation[by] = true
	case NotifyNATDetectionSource:
		c.natted(h, n.Data, e.From, by)
	case NotifyNATDetectionDest:
		c.natted(h, n.Data, e.To, by.other())
	case NotifyCookie:
		if by == sideClient {
			f.cookie = first
			return
		}
		c.cookies++
		f.notify = n.Type
	case NotifyInvalidKEPayload:
		if g, err := n.Group(); err == nil {
			c.wanted = g
		}
		f.notify = n.Type
	default:
		if n.Type.IsError() && f.notify == 0 {
			f.notify = n.Type
		}
	}
}

// natted compares an address with the hash that a peer made of what it takes it
// for.
func (c *conversation) natted(h Header, data []byte, seen netip.AddrPort, whose side) {
	if want := NATDetection(h.SPIi, h.SPIr, seen); string(want[:]) != string(data) {
		c.nat[whose] = true
	}
}

// offered returns the client's proposals.
func (c *conversation) offered() []Proposal {
	ps, err := ParseSA(c.offer)
	if err != nil {
		return nil
	}
	return ps
}
