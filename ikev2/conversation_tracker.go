package ikev2

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"time"
)

// The defaults of a Tracker.
const (
	// DefaultMaxConversations is how many conversations a Tracker keeps.
	DefaultMaxConversations = 4096
	// DefaultMaxExchanges is how many exchanges it keeps of each.
	DefaultMaxExchanges = 256
)

// A Tracker makes conversations of Events: it follows SPIs through renewals, peers
// from port 500 to 4500 and from address to address, and tells what is sent again
// from what a balancer passes on. It sees no secrets: of protected messages it
// knows what anybody on the way does. Its memory is bounded whatever it is fed.
//
// The zero Tracker is ready for use, by one goroutine at a time. Its fields must
// not be changed after the first Observe.
type Tracker struct {
	// MaxConversations bounds what is kept; 0 means DefaultMaxConversations.
	// When there are more, the one goes that has been silent longest, those
	// without any answer from a gateway first.
	MaxConversations int
	// MaxExchanges bounds what is kept of each conversation; 0 means
	// DefaultMaxExchanges. The first half of them and the latest stay.
	MaxExchanges int
	// NoESP says that ESP isn't among the Events, so that its absence means
	// nothing.
	NoESP bool

	spis  map[SPI]*conversation
	flows map[flowPair]*conversation
	// begun are those without an answer, met the others, each by when they
	// were last heard of.
	begun, met conversationList

	fresh func(*conversation) // a conversation begins, if not nil
	began time.Time
	end   time.Time
	count Counts
}

// Counts are what a Tracker has seen.
type Counts struct {
	// IKE, ESP and Keepalives count datagrams, NativeESP packets of IP protocol
	// 50, ICMP errors.
	IKE        int `json:"ike"`
	ESP        int `json:"esp"`
	Keepalives int `json:"keepalives"`
	NativeESP  int `json:"nativeESP"`
	ICMP       int `json:"icmpErrors"`
	// Incomplete counts datagrams whose IP fragments didn't all come, Truncated
	// IKE messages that a capture has only part of.
	Incomplete int `json:"incomplete"`
	Truncated  int `json:"truncated"`
	// Other counts datagrams that are nothing of IKE.
	Other int `json:"other"`
	// Forgotten counts conversations that had to make room.
	Forgotten int `json:"forgotten"`
}

// flowPair is two ends, the lesser first.
type flowPair struct{ a, b netip.AddrPort }

func pairOf(a, b netip.AddrPort) flowPair {
	if b.Compare(a) < 0 {
		a, b = b, a
	}
	return flowPair{a, b}
}

// hosts is p without ports, which native ESP doesn't have.
func (p flowPair) hosts() flowPair {
	return pairOf(netip.AddrPortFrom(p.a.Addr(), 0), netip.AddrPortFrom(p.b.Addr(), 0))
}

// Observe takes note of e. Events must come in the order of their times, more or
// less.
func (t *Tracker) Observe(e *Event) {
	if t.spis == nil {
		t.spis, t.flows = make(map[SPI]*conversation), make(map[flowPair]*conversation)
	}
	if t.began.IsZero() {
		t.began = e.Time
	}
	if e.Time.After(t.end) {
		t.end = e.Time
	}
	switch e.Kind {
	case EventESP:
		t.count.NativeESP++
		t.esp(e, pairOf(e.From, e.To).hosts())
	case EventICMP:
		t.count.ICMP++
		t.icmp(e)
	case EventDatagram, EventIncomplete:
		t.datagram(e)
	}
}

// Advance says that it is now, so that a Report counts what has been silent until
// then as silent. A capture needs it not; who watches live traffic does.
func (t *Tracker) Advance(now time.Time) {
	if now.After(t.end) {
		t.end = now
	}
	if t.began.IsZero() {
		t.began = now
	}
}

func (t *Tracker) datagram(e *Event) {
	kind, msg := glimpse(e)
	if e.Kind == EventIncomplete {
		t.count.Incomplete++
	}
	switch kind {
	case KindIKE:
		t.count.IKE++
		if e.truncated() && e.Kind == EventDatagram {
			t.count.Truncated++
		}
		t.ike(e, msg)
	case KindESP:
		if e.From.Port() != PortNATT && e.To.Port() != PortNATT && t.flows[pairOf(e.From, e.To)] == nil {
			t.count.Other++
			return
		}
		t.count.ESP++
		t.esp(e, pairOf(e.From, e.To))
	case KindKeepalive:
		t.count.Keepalives++
	default:
		t.count.Other++
	}
}

// glimpse is Identify for datagrams of which only the beginning may be there.
func glimpse(e *Event) (Kind, []byte) {
	if e.Kind == EventDatagram && !e.truncated() {
		kind, msg := Identify(e.Data)
		return kind, msg
	}
	b, size := e.Data, e.size()
	if msg, ok := TrimMarker(b); ok {
		b, size = msg, size-markerLen
	}
	if len(b) < HeaderLen || b[17] != Version2 || !ExchangeType(b[18]).known() {
		return KindNone, nil
	}
	length := uint64(binary.BigEndian.Uint32(b[24:]))
	if e.Kind == EventIncomplete && length <= uint64(len(b)) || e.Kind == EventDatagram && length != uint64(size) {
		return KindNone, nil
	}
	return KindIKE, b
}

func (t *Tracker) ike(e *Event, msg []byte) {
	h, err := ParseHeader(msg)
	if err != nil || h.SPIi == 0 {
		return
	}
	c := t.spis[h.SPIi]
	if c == nil {
		c = t.meet(e, h)
	}
	by := c.sa(h.SPIi).sender(h.Flags)
	hash := maphash.Bytes(hashSeed, msg)
	if e.Time.After(c.last) {
		c.last, c.latest = e.Time, e.Packet
	}
	if !c.route(e, by, hash, h.Exchange) {
		return
	}
	t.touch(c, by == sideGateway)
	t.connect(c, pairOf(e.From, e.To))
	if t.fresh != nil && len(c.exchanges)+c.dropped == 0 {
		t.fresh(c)
	}
	x := c.exchange(h, by, hash, t.mostExchanges())
	f := &x.request
	if h.Response() {
		f = &x.response
	}
	f.note(e, msg, hash)
	f.port = c.gateway.Port()
	switch {
	case e.Kind == EventIncomplete:
		return
	case e.truncated():
		c.truncated++
		return
	}
	m := Message{Header: h, Body: msg[HeaderLen:]}
	switch {
	case h.Exchange == ExchangeSAInit:
		c.learn(m, by, f, e)
	case !h.Protected():
		for w := m.Payloads(); w.Next(); {
			if n, err := ParseNotify(w.Payload.Body); w.Payload.Type == PayloadNotify && err == nil && n.Type.IsError() {
				f.notify = n.Type
			}
		}
	}
}

func (t *Tracker) mostExchanges() int {
	if t.MaxExchanges > 0 {
		return max(t.MaxExchanges, 4)
	}
	return DefaultMaxExchanges
}

// meet returns the conversation of a message whose SPI isn't known: a new one, or
// that of the flow if it has been renewed.
func (t *Tracker) meet(e *Event, h Header) *conversation {
	if h.Exchange != ExchangeSAInit && h.Exchange != ExchangeSessionResume {
		if c := t.renewed(e, h); c != nil {
			return c
		}
	}
	c := &conversation{began: e.Time, packet: e.Packet}
	c.sas = append(c.sas, association{h.SPIi, sideClient})
	from := sideClient
	if h.Exchange == ExchangeSAInit || h.Exchange == ExchangeSessionResume {
		c.midway = h.Response()
		if h.Response() {
			from = sideGateway
		}
		if h.SPIr == 0 && !h.Response() {
			t.restarts(e)
		}
	} else {
		c.midway = true
		from = t.guess(e, h)
		if (from == sideClient) != (h.Flags&FlagInitiator != 0) {
			c.sas[0].initiator = sideGateway
		}
	}
	c.client, c.gateway = e.From, e.To
	if from == sideGateway {
		c.client, c.gateway = e.To, e.From
	}
	t.spis[h.SPIi] = c
	t.admit(c)
	return c
}

// guess says who sent a message of a conversation whose beginning wasn't seen:
// ports 500 and 4500 are a gateway's, if only one side has them, else who made the
// SA is taken for the client.
func (t *Tracker) guess(e *Event, h Header) side {
	ours := func(p uint16) bool { return p == Port || p == PortNATT }
	from, to := ours(e.From.Port()), ours(e.To.Port())
	if from != to {
		if from {
			return sideGateway
		}
		return sideClient
	}
	if h.Flags&FlagInitiator != 0 {
		return sideClient
	}
	return sideGateway
}

// renewed returns the conversation on the flow of e that may have got new SPIs.
func (t *Tracker) renewed(e *Event, h Header) *conversation {
	c := t.flows[pairOf(e.From, e.To)]
	if c == nil || len(c.sas) >= maxAssociations {
		return nil
	}
	x := c.lastOf(ExchangeCreateChildSA, ExchangeFollowupKE)
	if x == nil || !x.answered() {
		return nil
	}
	by := sideClient
	if e.From.Addr() == c.gateway.Addr() {
		by = sideGateway
	}
	a := association{spi: h.SPIi, initiator: by}
	if h.Flags&FlagInitiator == 0 {
		a.initiator = by.other()
	}
	x.intoRekey = true
	c.sas = append(c.sas, a)
	t.spis[h.SPIi] = c
	return c
}

// restarts notes that the client of e begins again, on what it had begun before.
func (t *Tracker) restarts(e *Event) {
	if c := t.flows[pairOf(e.From, e.To)]; c != nil {
		c.restarted = true
	}
}

// connect remembers that c uses a flow.
func (t *Tracker) connect(c *conversation, p flowPair) {
	if t.flows[p] == c {
		return
	}
	for _, k := range [2]flowPair{p, p.hosts()} {
		t.flows[k] = c
		if !slices.Contains(c.flows, k) {
			if len(c.flows) >= maxFlowsKept {
				if t.flows[c.flows[0]] == c {
					delete(t.flows, c.flows[0])
				}
				c.flows = slices.Delete(c.flows, 0, 1)
			}
			c.flows = append(c.flows, k)
		}
	}
}

func (t *Tracker) esp(e *Event, p flowPair) {
	c := t.flows[p]
	if c == nil {
		return
	}
	c.last, c.latest = e.Time, e.Packet
	if e.From.Addr() == c.gateway.Addr() {
		c.esp[sideGateway]++
	} else {
		c.esp[sideClient]++
	}
}

func (t *Tracker) icmp(e *Event) {
	c := t.quoted(e)
	if c == nil {
		c = t.flows[pairOf(e.From, e.To)]
	}
	if c == nil {
		return
	}
	c.nicmp++
	if len(c.icmp) >= maxICMP {
		return
	}
	i := icmpSeen{at: e.Time, packet: e.Packet, kind: e.ICMP, mtu: e.MTU, reporter: e.Reporter, port: e.To.Port()}
	if e.From.Addr() == c.gateway.Addr() {
		i.by, i.port = sideGateway, e.From.Port()
	}
	c.icmp = append(c.icmp, i)
}

// quoted returns the conversation whose SPI an ICMP error quotes.
func (t *Tracker) quoted(e *Event) *conversation {
	b, _ := TrimMarker(e.Data)
	if len(b) < 8 {
		return nil
	}
	return t.spis[initiatorSPI(b)]
}

// A conversationList holds conversations, that heard of last at its head.
type conversationList struct {
	head, tail *conversation
	n          int
}

func (l *conversationList) push(c *conversation) {
	c.prev, c.succ, c.list = nil, l.head, l
	if l.head != nil {
		l.head.prev = c
	} else {
		l.tail = c
	}
	l.head = c
	l.n++
}

func (l *conversationList) remove(c *conversation) {
	if c.prev != nil {
		c.prev.succ = c.succ
	} else {
		l.head = c.succ
	}
	if c.succ != nil {
		c.succ.prev = c.prev
	} else {
		l.tail = c.prev
	}
	c.prev, c.succ, c.list = nil, nil, nil
	l.n--
}

func (t *Tracker) admit(c *conversation) {
	most := t.MaxConversations
	if most <= 0 {
		most = DefaultMaxConversations
	}
	for t.begun.n+t.met.n >= most {
		old := t.begun.tail
		// Who has no answer has cost nobody anything; but a flood of answered
		// ones must not keep newcomers out either.
		if old == nil || t.met.n > most*3/4 {
			old = t.met.tail
		}
		t.forget(old)
		t.count.Forgotten++
	}
	t.begun.push(c)
}

// touch puts c to the head of the list where it belongs.
func (t *Tracker) touch(c *conversation, answer bool) {
	l := c.list
	if answer {
		l = &t.met
	}
	if c.list == l && l.head == c {
		return
	}
	c.list.remove(c)
	l.push(c)
}

// forget drops all that is known of c.
func (t *Tracker) forget(c *conversation) {
	c.list.remove(c)
	for _, a := range c.sas {
		if t.spis[a.spi] == c {
			delete(t.spis, a.spi)
		}
	}
	for _, k := range c.flows {
		if t.flows[k] == c {
			delete(t.flows, k)
		}
	}
}

// conversations returns all that are kept, in the order in which they began.
func (t *Tracker) conversations() []*conversation {
	var all []*conversation
	for _, l := range [...]*conversationList{&t.begun, &t.met} {
		for c := l.head; c != nil; c = c.succ {
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(a, b *conversation) int {
		if d := a.began.Compare(b.began); d != 0 {
			return d
		}
		return a.packet - b.packet
	})
	return all
}
