package ikev2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/aovlb/aovlb/lb"
)

// A model of the world around a balancer: gateways that know only their own SAs
// and are silent about others, clients that speak real datagrams, and between
// them the real lb.Balancer, driven as an engine does. What is encrypted in
// reality is an operation code in the clear here: the balancer doesn't look.

// Operations within a model's Encrypted payload.
const (
	opAuth       = 'a' // + the client's ESP SPI; answer: + the server's
	opPoke       = 'p' // DPD, path probe, UPDATE_SA_ADDRESSES
	opRekeyChild = 'c' // + new ESP SPI; answer: + the server's
	opRekeyIKE   = 'i' // + new SPI of the requester; answer: + of the responder
	opDelete     = 'd' // the old SA after a rekey
)

type sa struct {
	spii, spir SPI
	owner      *model       // the client
	at         lb.Flow      // where it was heard last
	parts      map[int]bool // fragments of IKE_AUTH
}

type gateway struct {
	w      *world
	member *lb.Member
	secret byte   // of its cookies; 0 asks for none
	group  uint16 // answers INVALID_KE_PAYLOAD to any other
	rude   bool   // answers INVALID_IKE_SPI to what it doesn't know
	sas    map[SPI]*sa
	esp    map[uint32]*sa // by the server's SPI
}

type flowRecord struct {
	gw      *gateway
	proven  bool
	why     lb.Why
	pending []lb.Key
}

type world struct {
	t       testing.TB
	c       Classifier
	b       *lb.Balancer
	gws     []*gateway
	flows   map[lb.Flow]*flowRecord
	models  map[lb.Flow][]*model // who receives at a flow
	rng     *rand.Rand
	pending bool // keys of the client's datagram go before those of the answer
	asked   int
}

func newWorld(t testing.TB, a Affinity, n int) *world {
	t.Helper()
	w := &world{
		t: t, c: Classifier{Affinity: a}, flows: map[lb.Flow]*flowRecord{}, models: map[lb.Flow][]*model{},
		rng: rand.New(rand.NewPCG(7, uint64(n))),
	}
	pool := new(lb.Pool)
	var bs []lb.Backend
	for i := range n {
		bs = append(bs, lb.Backend{Name: fmt.Sprintf("ras%d", i+1), Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})})
	}
	if err := pool.Set(bs...); err != nil {
		t.Fatal(err)
	}
	for _, m := range pool.View().Members {
		w.gws = append(w.gws, &gateway{w: w, member: m, sas: map[SPI]*sa{}, esp: map[uint32]*sa{}})
	}
	w.b = &lb.Balancer{Pool: pool, Table: new(lb.Table)}
	return w
}

// restart forgets what the balancer knew, as a new process without a snapshot.
func (w *world) restart() {
	w.b = &lb.Balancer{Pool: w.b.Pool, Table: new(lb.Table)}
	clear(w.flows)
}

func (w *world) gateway(m *lb.Member) *gateway {
	for _, g := range w.gws {
		if g.member.ID == m.ID {
			return g
		}
	}
	return nil
}

// picked returns the gateway a new client with key k gets by hash alone.
func (w *world) picked(k lb.Key) *gateway {
	return w.gateway(new(lb.Maglev).Pick(k, w.b.Pool.View()))
}

// spi returns an SPI whose hash leads away from g.
func (w *world) spi(g *gateway) SPI {
	for {
		if s := SPI(w.rng.Uint64()); s != 0 && (g == nil || w.picked(SPIKey(s)) != g) {
			return s
		}
	}
}

// addr returns an address whose hash leads away from g.
func (w *world) addr(g *gateway) netip.Addr {
	for {
		a := netip.AddrFrom4([4]byte{100, 64, byte(w.rng.Uint32()), byte(w.rng.Uint32())})
		if g == nil || w.picked(lb.AddrKey(a)) != g {
			return a
		}
	}
}

var errNoWay = errors.New("dropped by the balancer")

// send is the engine: a datagram from a client at f. It returns what came back
// to that flow.
func (w *world) send(f lb.Flow, b []byte) ([][]byte, error) {
	v := w.c.Classify(b, f)
	if v.Drop {
		return nil, fmt.Errorf("%w: %s", errNoWay, v.Reason)
	}
	rec := w.flows[f]
	if rec != nil && rec.proven && v.Keys[0] == lb.FlowKey(f) {
		w.b.Learn(rec.gw.member, v.Keys[:]...)
		rec.pending = slices.Clone(v.Keys[:])
		return w.deliver(rec.gw, f, b), nil
	}
	r, err := w.b.Route(&v, f)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoWay, err)
	}
	if r.Member != nil {
		g := w.gateway(r.Member)
		if rec == nil || rec.gw != g {
			rec = &flowRecord{gw: g}
			w.flows[f] = rec
		}
		rec.why, rec.pending = r.Why, slices.Clone(v.Keys[:])
		return w.deliver(g, f, b), nil
	}
	w.asked++
	var out [][]byte
	for _, m := range r.Ask {
		g := w.gateway(m)
		for _, a := range g.handle(f, b) {
			if w.c.Answer(a, f).Drop {
				continue
			}
			w.flows[f] = &flowRecord{gw: g, why: lb.WhyAsked, pending: slices.Clone(v.Keys[:])}
			out = append(out, w.answered(g, f, a)...)
		}
	}
	return out, nil
}

func (w *world) deliver(g *gateway, f lb.Flow, b []byte) [][]byte {
	if w.b.Pool.View().Member(g.member.ID).State == lb.Down {
		return nil
	}
	var out [][]byte
	for _, a := range g.handle(f, b) {
		out = append(out, w.answered(g, f, a)...)
	}
	return out
}

// answered is the engine: a datagram from g to the client at f.
func (w *world) answered(g *gateway, f lb.Flow, b []byte) [][]byte {
	v := w.c.Answer(b, f)
	if v.Drop {
		return nil
	}
	rec := w.flows[f]
	if rec == nil {
		return nil
	}
	if v.Stage != lb.StageNone {
		keys := slices.Clone(v.Keys[:])
		if rec.gw == g { // the client's last datagram went to the same gateway
			if w.pending {
				keys = append(slices.Clone(rec.pending), keys...)
			} else {
				keys = append(keys, rec.pending...)
			}
			rec.proven = rec.proven || v.Stage == lb.StageEstablished
		}
		w.b.Answered(g.member, f, v.Stage, rec.why, keys...)
	}
	return [][]byte{b}
}

// handle is the gateway.
func (g *gateway) handle(f lb.Flow, b []byte) [][]byte {
	kind, msg := Identify(b)
	switch kind {
	case KindESP:
		s := g.esp[binary.BigEndian.Uint32(b)]
		if s == nil {
			return nil
		}
		s.at = f
		return [][]byte{espPacket(s.owner.in)}
	case KindIKE:
		m, err := ParseMessage(msg)
		if err != nil {
			g.w.t.Errorf("gateway got a malformed message: %v", err)
			return nil
		}
		marker := f.Service == PortNATT && !bytes.Equal(b, msg)
		var out [][]byte
		for _, a := range g.ike(f, m) {
			if marker {
				a = append(AppendMarker(nil), a...)
			}
			out = append(out, a)
		}
		return out
	}
	return nil
}

func (g *gateway) ike(f lb.Flow, m Message) [][]byte {
	reply := m.Header
	reply.Flags = m.Flags&FlagInitiator ^ FlagInitiator | FlagResponse
	if m.Exchange == ExchangeSAInit {
		return g.saInit(f, m, reply)
	}
	s := g.sas[m.SPIi]
	if s == nil || s.spir != m.SPIr {
		if g.rude && !m.Response() {
			return [][]byte{AppendMessage(nil, reply, NotifyPayload(NotifyInvalidIKESPI, nil))}
		}
		return nil
	}
	s.at = f
	if m.Response() {
		return nil
	}
	w := m.Payloads()
	w.Next()
	body := w.Payload.Body
	if w.Payload.Type == PayloadSKF {
		total := int(body[3])
		s.parts[int(body[1])] = true
		if len(s.parts) < total {
			return nil
		}
		s.parts, body = map[int]bool{}, body[4:]
	}
	out := []byte{body[0]}
	switch body[0] {
	case opAuth, opRekeyChild:
		spi := 256 + g.w.rng.Uint32()>>1
		g.esp[spi] = s
		out = binary.BigEndian.AppendUint32(out, spi)
	case opRekeyIKE:
		n := &sa{spii: SPI(binary.BigEndian.Uint64(body[1:])), spir: g.w.spi(nil), owner: s.owner, at: f, parts: map[int]bool{}}
		g.sas[n.spii] = n
		out = binary.BigEndian.AppendUint64(out, uint64(n.spir))
	case opDelete:
		delete(g.sas, m.SPIi)
	}
	return [][]byte{AppendMessage(nil, reply, Payload{Type: PayloadSK, Body: out})}
}

func (g *gateway) saInit(f lb.Flow, m Message, reply Header) [][]byte {
	cookie := []byte{g.secret, byte(m.SPIi)}
	if n, ok := m.Notify(NotifyCookie); g.secret != 0 && (!ok || !bytes.Equal(n.Data, cookie)) {
		return [][]byte{AppendMessage(nil, reply, NotifyPayload(NotifyCookie, cookie))}
	}
	var ke KeyExchange
	for w := m.Payloads(); w.Next(); {
		if w.Payload.Type == PayloadKE {
			ke, _ = ParseKE(w.Payload.Body)
		}
	}
	if g.group != 0 && uint16(ke.Group) != g.group {
		return [][]byte{AppendMessage(nil, reply, NotifyPayload(NotifyInvalidKEPayload, []byte{0, byte(g.group)}))}
	}
	s := g.sas[m.SPIi]
	if s == nil {
		who := g.w.models[f]
		if len(who) == 0 {
			return nil
		}
		s = &sa{spii: m.SPIi, spir: g.w.spi(nil), owner: who[len(who)-1], at: f, parts: map[int]bool{}}
		g.sas[s.spii] = s
	}
	reply.SPIr = s.spir
	return [][]byte{AppendMessage(nil, reply, testSA(), testKE(ke.Group), testNonce())}
}

func testSA() Payload {
	return Payload{Type: PayloadSA, Body: AppendSA(nil, Proposal{Protocol: ProtocolIKE, Transforms: []Transform{
		{Type: TransformEncr, ID: EncrAESCBC, KeyBits: 128},
		{Type: TransformPRF, ID: PRFHMACSHA256},
		{Type: TransformInteg, ID: IntegHMACSHA256},
		{Type: TransformKE, ID: uint16(GroupMODP2048)},
	}})}
}

func testKE(g Group) Payload {
	return Payload{Type: PayloadKE, Body: AppendKE(nil, KeyExchange{Group: g, Data: make([]byte, g.PublicLen())})}
}

func testNonce() Payload { return Payload{Type: PayloadNonce, Body: make([]byte, 32)} }

func espPacket(spi uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, spi)
	return append(b, bytes.Repeat([]byte{0, 0, 0, 1, 0xa5, 0x5a, 0x77, 0x13}, 10)...)
}

// model is a client: one tunnel.
type model struct {
	w          *world
	f500, f450 lb.Flow // as the balancer sees them, behind whatever NATs
	spii, spir SPI
	initiated  bool // it has the I flag in the SA in use
	in, out    uint32
	home       *gateway
	msgID      uint32
	unmarked   bool // forgets the marker
	size       int  // of IKE_AUTH
	frags      int  // of IKE_AUTH
	group      Group
}

func flow(a netip.Addr, port, service uint16) lb.Flow {
	return lb.Flow{Client: netip.AddrPortFrom(a, port), Service: service}
}

// client makes a client at a whose SPI leads away from not.
func (w *world) client(a netip.Addr, p500, p4500 uint16, not *gateway) *model {
	return &model{
		w: w, f500: flow(a, p500, Port), f450: flow(a, p4500, PortNATT), spii: w.spi(not),
		initiated: true, group: GroupMODP2048, in: 256 + w.rng.Uint32()>>1,
	}
}

func (m *model) exchange(f lb.Flow, h Header, payloads ...Payload) (Message, error) {
	b := AppendMessage(nil, h, payloads...)
	if f.Service == PortNATT && !m.unmarked {
		b = append(AppendMarker(nil), b...)
	}
	m.w.models[f] = append(m.w.models[f], m)
	out, err := m.w.send(f, b)
	if err != nil {
		return Message{}, fmt.Errorf("%v: %w", h.Exchange, err)
	}
	for _, a := range out {
		if kind, msg := Identify(a); kind == KindIKE {
			if r, err := ParseMessage(msg); err == nil && r.SPIi == h.SPIi && r.Response() {
				return r, nil
			}
		}
	}
	return Message{}, fmt.Errorf("%v from %v got no answer", h.Exchange, f.Client)
}

func (m *model) saInit(f lb.Flow) error {
	group := m.group
	var cookie []Payload
	for range 4 {
		h := Header{SPIi: m.spii, Exchange: ExchangeSAInit, Flags: FlagInitiator}
		r, err := m.exchange(f, h, append(cookie, testSA(), testKE(group), testNonce())...)
		if err != nil {
			return err
		}
		if n, ok := r.Notify(NotifyCookie); ok {
			cookie = []Payload{NotifyPayload(NotifyCookie, n.Data)}
			continue
		}
		if n, ok := r.Notify(NotifyInvalidKEPayload); ok {
			group = Group(binary.BigEndian.Uint16(n.Data))
			continue
		}
		m.spir, m.msgID = r.SPIr, 0
		return nil
	}
	return errors.New("IKE_SA_INIT never got an SA")
}

// ask makes a protected request on 4500 and returns what is inside the answer.
func (m *model) ask(ex ExchangeType, body ...byte) ([]byte, error) {
	m.msgID++
	h := Header{SPIi: m.spii, SPIr: m.spir, Exchange: ex, MessageID: m.msgID}
	if m.initiated {
		h.Flags = FlagInitiator
	}
	r, err := m.exchange(m.f450, h, Payload{Type: PayloadSK, Body: body})
	if err != nil {
		return nil, err
	}
	w := r.Payloads()
	if !w.Next() || w.Payload.Type != PayloadSK || w.Payload.Body[0] != body[0] {
		return nil, fmt.Errorf("%v got another answer", ex)
	}
	return w.Payload.Body[1:], nil
}

func (m *model) auth() error {
	body := make([]byte, max(m.size, 5))
	body[0] = opAuth
	binary.BigEndian.PutUint32(body[1:], m.in)
	if m.frags > 0 {
		h := Header{SPIi: m.spii, SPIr: m.spir, Exchange: ExchangeAuth, MessageID: 1, Flags: FlagInitiator}
		for i := 1; i < m.frags; i++ {
			m.exchange(m.f450, h, Payload{Type: PayloadSKF, Body: append([]byte{0, byte(i), 0, byte(m.frags)}, body...)})
		}
		r, err := m.exchange(m.f450, h, Payload{Type: PayloadSKF, Body: append([]byte{0, byte(m.frags), 0, byte(m.frags)}, body...)})
		if err != nil {
			return err
		}
		w := r.Payloads()
		w.Next()
		m.out = binary.BigEndian.Uint32(w.Payload.Body[1:])
		return m.settle()
	}
	out, err := m.ask(ExchangeAuth, body...)
	if err != nil {
		return err
	}
	m.out = binary.BigEndian.Uint32(out)
	return m.settle()
}

// settle notes which gateway has the SA.
func (m *model) settle() error {
	for _, g := range m.w.gws {
		if s := g.sas[m.spii]; s != nil && s.spir == m.spir {
			m.home = g
			return nil
		}
	}
	return errors.New("no gateway has the SA")
}

// up brings the tunnel up.
func (m *model) up() error {
	return chain(func() error { return m.saInit(m.f500) }, m.auth, m.ping)
}

// ping sends ESP and expects ESP.
func (m *model) ping() error {
	out, err := m.w.send(m.f450, espPacket(m.out))
	if err != nil {
		return fmt.Errorf("ESP: %w", err)
	}
	for _, a := range out {
		if kind, _ := Identify(a); kind == KindESP && binary.BigEndian.Uint32(a) == m.in {
			return nil
		}
	}
	return errors.New("ESP got no answer")
}

func (m *model) poke() error {
	_, err := m.ask(ExchangeInformational, opPoke)
	return err
}

func (m *model) rekeyChild() error {
	m.in = 256 + m.w.rng.Uint32()>>1
	out, err := m.ask(ExchangeCreateChildSA, binary.BigEndian.AppendUint32([]byte{opRekeyChild}, m.in)...)
	if err != nil {
		return err
	}
	m.out = binary.BigEndian.Uint32(out)
	return nil
}

// rekeyIKE makes a new IKE SA under the old one, whose SPIs the balancer can't
// see.
func (m *model) rekeyIKE() error {
	spi := m.w.spi(m.home)
	out, err := m.ask(ExchangeCreateChildSA, binary.BigEndian.AppendUint64([]byte{opRekeyIKE}, uint64(spi))...)
	if err != nil {
		return err
	}
	if _, err := m.ask(ExchangeInformational, opDelete); err != nil {
		return err
	}
	m.spii, m.spir, m.initiated, m.msgID = spi, SPI(binary.BigEndian.Uint64(out)), true, 0
	return nil
}

// rekeyByServer is the same by the gateway, whose SPI comes first then.
func (m *model) rekeyByServer() error {
	g := m.home
	s := g.sas[m.spii]
	h := Header{SPIi: m.spii, SPIr: m.spir, Exchange: ExchangeCreateChildSA}
	n := &sa{spii: g.w.spi(g), spir: g.w.spi(nil), owner: m, at: s.at, parts: map[int]bool{}}
	req := append(AppendMarker(nil), AppendMessage(nil, h, Payload{Type: PayloadSK, Body: []byte{opRekeyIKE}})...)
	if len(m.w.answered(g, s.at, req)) == 0 {
		return errors.New("the server's request didn't reach the client")
	}
	h.Flags = FlagInitiator | FlagResponse
	resp := append(AppendMarker(nil), AppendMessage(nil, h, Payload{Type: PayloadSK, Body: []byte{opRekeyIKE}})...)
	was := s.at
	s.at = lb.Flow{}
	if _, err := m.w.send(m.f450, resp); err != nil {
		return fmt.Errorf("response: %w", err)
	}
	if s.at != was {
		return errors.New("the client's response didn't reach its server")
	}
	delete(g.sas, m.spii)
	g.sas[n.spii] = n
	m.spii, m.spir, m.initiated, m.msgID = n.spii, n.spir, false, 0
	return nil
}

func (m *model) move(a netip.Addr, p500, p4500 uint16) {
	m.f500, m.f450 = flow(a, p500, Port), flow(a, p4500, PortNATT)
}

// roam moves to an address that leads away from the gateway by hash.
func (m *model) roam() error {
	m.move(m.w.addr(m.home), 500, 4500)
	return nil
}

func chain(steps ...func() error) error {
	for i, f := range steps {
		if err := f(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}
