package radius

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// The states of a Proxy.
const (
	stateNew int32 = iota
	stateServing
	stateDraining
	stateClosing
)

// sweepEvery is the time between two looks at what time alone changes.
const sweepEvery = 100 * time.Millisecond

// A front is a socket that clients send to.
type front struct {
	conn    net.PacketConn
	service uint16
	io      frontIO
}

// init makes the zero Proxy usable.
func (p *Proxy) init() {
	p.once.Do(func() {
		p.epoch = time.Now()
		n := 1
		for n < runtime.GOMAXPROCS(0) && n < 16 {
			n *= 2
		}
		most := p.MaxRequests
		if most <= 0 {
			most = DefaultMaxRequests
		}
		for range n {
			p.cells = append(p.cells, &cell{p: p, byKey: make(map[requestID]*request), max: max(most/n, 1)})
		}
		p.shelf = newShelf(4 + 2*n) // who receives at one moment, and some more
		p.ended = make(chan struct{})
		p.failures.init(p.NameKey)
	})
}

// Serve answers the clients that send to conns until ctx is done or Shutdown is
// called, and closes conns. Each conn has a goroutine, so that several sockets for
// one address serve faster than one. It may be called without conns, for requests
// that come by [Proxy.Handle] only. It is called once. Serve returns the cause of
// ctx, or ErrClosed after Shutdown; or, if a conn fails, that error.
func (p *Proxy) Serve(ctx context.Context, conns ...net.PacketConn) error {
	p.init()
	defer func() {
		for _, c := range conns {
			_ = c.Close() // it is over in any case
		}
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := p.start(cancel); err != nil {
		return err
	}
	defer close(p.ended)
	fronts, err := p.openFronts(conns)
	if err != nil {
		cancel(err)
	}
	stop := context.AfterFunc(ctx, func() {
		p.state.Store(stateClosing)
		for _, c := range conns {
			_ = c.Close() // ends its reader
		}
		p.closeLinks()
	})
	defer stop()
	for _, f := range fronts {
		p.wg.Go(func() {
			if err := p.read(f); err != nil {
				cancel(err)
			}
		})
	}
	p.sweep(ctx)
	p.state.Store(stateClosing)
	p.closeLinks()
	p.wg.Wait()
	return context.Cause(ctx)
}

func (p *Proxy) start(cancel context.CancelCauseFunc) error {
	if p.Balancer == nil || p.Balancer.Pool == nil || p.Balancer.Table == nil {
		return errors.New("radius: the proxy has no Balancer with a Pool and a Table")
	}
	if p.servers.Load() == nil {
		return errors.New("radius: call SetServers before Serve")
	}
	p.endMu.Lock()
	defer p.endMu.Unlock()
	if !p.state.CompareAndSwap(stateNew, stateServing) {
		return ErrClosed
	}
	p.end = cancel
	return nil
}

func (p *Proxy) openFronts(conns []net.PacketConn) ([]*front, error) {
	var fronts []*front
	for _, c := range conns {
		a, ok := c.LocalAddr().(*net.UDPAddr)
		if !ok {
			return nil, fmt.Errorf("radius: a %T isn't a UDP socket", c)
		}
		f := &front{conn: c, service: a.AddrPort().Port()}
		f.io.init(c, p.shelf)
		if u, ok := c.(*net.UDPConn); ok {
			prepare(u)
		}
		fronts = append(fronts, f)
	}
	return fronts, nil
}

// Shutdown ends Serve once no conversation is under way, or when ctx ends.
// Meanwhile requests that begin something new are dropped, so that clients turn
// to another server.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.init()
	p.endMu.Lock()
	end := p.end
	fresh := p.state.CompareAndSwap(stateNew, stateClosing)
	p.state.CompareAndSwap(stateServing, stateDraining)
	p.endMu.Unlock()
	if fresh || end == nil {
		return nil
	}
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for !p.quiet() {
		select {
		case <-p.ended:
			return nil
		case <-ctx.Done():
			end(ErrClosed)
			<-p.ended
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	end(ErrClosed)
	<-p.ended
	return nil
}

// thinking is how long a user may take for the next round of a conversation
// before a Shutdown doesn't wait any longer.
const thinking = int64(10 * time.Second)

// quiet reports whether nobody would miss the Proxy.
func (p *Proxy) quiet() bool {
	if at := p.count.challenged.Load(); at != 0 && p.now()-at < thinking {
		return false
	}
	for _, c := range p.cells {
		c.mu.Lock()
		n := c.waiting.n
		c.mu.Unlock()
		if n > 0 {
			return false
		}
	}
	return true
}

func (p *Proxy) sweep(ctx context.Context) {
	h := p.newHand()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.tick()
			for _, c := range p.cells {
				c.sweep(h)
				h.flush()
			}
		}
	}
}

func (p *Proxy) closeLinks() {
	now := p.now()
	for _, c := range p.cells {
		c.mu.Lock()
		for len(c.links) > 0 {
			c.close(c.links[len(c.links)-1], now)
		}
		c.mu.Unlock()
	}
}

// read reads requests from f until it is closed.
func (p *Proxy) read(f *front) error {
	h := p.newHand()
	for {
		n, err := f.io.recv()
		h.tick()
		for i := range n {
			fl := lb.Flow{Client: f.io.in.from(i), Service: f.service}
			_ = p.take(h, f.io.in.at(i), fl, nil, f, f.io.in.local(i), nil)
			h.flushMany()
		}
		h.flush()
		switch {
		case err == nil:
		case p.state.Load() >= stateClosing || errors.Is(err, net.ErrClosed):
			return nil
		case !passing(err):
			return fmt.Errorf("radius: read at %v: %w", f.conn.LocalAddr(), err)
		}
	}
}

// Handle takes in a request from a transport of the caller's own, such as TLS. The
// answer goes to r.Replier, at any later time, or never. The error says why it
// was dropped: it is one of a small number of constants. Handle may be called
// from many goroutines at once, while Serve runs.
func (p *Proxy) Handle(r Request) error {
	if s := p.state.Load(); s != stateServing && s != stateDraining {
		return ErrClosed
	}
	if r.Replier == nil {
		return errors.New("radius: a request needs a Replier")
	}
	var pe *peer
	if r.Client != "" {
		if pe = p.clients.Load().named(r.Client); pe == nil {
			return p.drop(nil, r.Flow, reasonUnknown)
		}
	}
	h := p.borrow()
	defer p.giveBack(h)
	return p.take(h, r.Bytes, r.Flow, pe, nil, netip.Addr{}, r.Replier)
}

// cellFor returns the cell for what comes by f.
func (p *Proxy) cellFor(f lb.Flow) *cell {
	a := f.Client.Addr().As16()
	x := uint32(f.Client.Port())*0x9e3779b1 ^ uint32(f.Service)
	for _, b := range a[8:] {
		x = (x ^ uint32(b)) * 0x01000193
	}
	return p.cells[int(x>>16^x)&(len(p.cells)-1)]
}

// take takes in a request. pe is its client, or nil if the address says who that
// is. It returns why the request was dropped, if it was.
func (p *Proxy) take(h *hand, b []byte, f lb.Flow, pe *peer, fr *front, local netip.Addr, via Replier) error {
	p.count.packets.Add(1)
	if pe == nil {
		if pe = p.clients.Load().at(f.Client.Addr()); pe == nil {
			return p.drop(nil, f, reasonUnknown)
		}
	}
	pkt, err := Parse(b)
	if err != nil {
		return p.drop(pe, f, reasonOf(err))
	}
	if pkt.Code() == StatusServer {
		return p.status(h, pkt, f, pe, fr, local, via)
	}
	v := p.Classifier.Classify(pkt.b, f)
	if v.Drop {
		return p.drop(pe, f, v.Reason)
	}
	if reason := h.unfit(pkt, pe); reason != "" {
		return p.drop(pe, f, reason)
	}
	pe.count.saw(pkt)
	if pe.Message == MessageLegacy {
		p.warnOfBare(pkt, pe)
	}
	r := incoming{pkt: pkt, flow: f, peer: pe, front: fr, local: local, via: via, verdict: &v}
	reason := p.admit(h, &r)
	if reason != "" {
		return p.drop(pe, f, reason)
	}
	return nil
}

// unfit says what of a client's request is wrong or against its policy.
func (h *hand) unfit(pkt Packet, pe *peer) string {
	if pkt.Code() == AccessRequest && pkt.find(MessageAuthenticator) == 0 {
		switch {
		case pe.Message == MessageRequire:
			return reasonRequire
		case pe.LimitProxyState && pkt.find(ProxyState) > 0:
			return reasonProxyState
		}
	}
	if !h.sign.rightRequest(pkt, pe.key) {
		return reasonSecret
	}
	return ""
}

// warnOfBare warns if pkt, of a client with MessageLegacy, gets an answer that anybody
// on its way can turn into another one.
func (p *Proxy) warnOfBare(pkt Packet, pe *peer) {
	if pkt.Code() != AccessRequest || pkt.find(MessageAuthenticator) > 0 {
		return
	}
	p.warn(&pe.count.bare, "an answer goes to a client without Message-Authenticator and can be forged on its way (CVE-2024-3596); "+
		"use legacy only for a client that refuses it", "client", pe.Name)
}

// incoming is a request that has been found right.
type incoming struct {
	pkt     Packet
	flow    lb.Flow
	peer    *peer
	front   *front
	local   netip.Addr
	via     Replier
	verdict *lb.Verdict
	own     uint32
}

// admit takes a request into its cell. It returns why it couldn't.
func (p *Proxy) admit(h *hand, in *incoming) string {
	id := requestID{from: in.flow.Client, service: in.flow.Service, id: in.pkt.b[1], acct: in.pkt.Code() == AccountingRequest, own: in.own}
	auth := in.pkt.Authenticator()
	c := p.cellFor(in.flow)
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.byKey[id]; r != nil {
		if r.auth == auth && r.peer.count == in.peer.count {
			r.front, r.local, r.via = in.front, in.local, in.via
			c.repeat(h, r)
			return ""
		}
		c.forget(r, h.now) // its client has given it up
	}
	if in.own == 0 && in.verdict.Begin && p.state.Load() >= stateDraining {
		return reasonClosing
	}
	r := c.add(id, h.now)
	if r == nil {
		return reasonFull
	}
	if in.own == 0 { // it was counted when its client sent it
		in.peer.count.requests.Add(1)
	}
	r.auth, r.code, r.peer, r.flow = auth, in.pkt.Code(), in.peer, in.flow
	r.via, r.front, r.local = in.via, in.front, in.local
	r.sign = r.code == AccessRequest && (in.peer.Message != MessageLegacy || in.pkt.find(MessageAuthenticator) > 0)
	r.buf = c.grab(in.pkt.b)
	r.delay = delayOf(in.pkt, r.key.acct)
	if in.own == 0 && r.key.acct && p.spools(in.pkt, in.flow) {
		c.store(r)
		return ""
	}
	reason := c.begin(h, r, in.verdict)
	if reason != "" && in.own == 0 && r.key.acct && p.Spool != nil {
		c.store(r)
		return ""
	}
	if reason != "" && in.own == 0 {
		c.forget(r, h.now)
	}
	return reason
}

// delayOf returns a record's Acct-Delay-Time.
func delayOf(p Packet, acct bool) uint32 {
	if v, ok := p.Lookup(AcctDelayTime); acct && ok && len(v) == 4 {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// answered takes in what a server has sent.
func (p *Proxy) answered(h *hand, l *link, b []byte) {
	v := l.server
	pkt, err := Parse(b)
	if err != nil {
		v.count.malformed.Add(1)
		p.badAnswer(v, reasonOf(err))
		return
	}
	c := l.cell
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &l.slots[pkt.Identifier()]
	r := s.r
	if reason := h.untrue(pkt, l, s); reason != "" {
		switch {
		case reason == reasonLate:
			v.count.late.Add(1)
		case reason == reasonStray:
			v.count.stray.Add(1)
		default:
			v.count.bad.Add(1)
		}
		p.badAnswer(v, reason)
		return
	}
	v.heard.Store(h.now)
	if v.shun.Load() != 0 {
		v.shun.Store(0)
	}
	took := time.Duration(h.now - r.sent)
	v.count.answered(pkt, took)
	r.peer.count.answered(pkt, took)
	v.count.waiting.Add(-1)
	if took > personal {
		took = 0
	}
	if r.counted {
		r.counted = false
		r.member.Requests().Answered(took, h.at)
		v.count.busy.Add(-1)
	}
	p.learn(h, r, pkt)
	at := len(h.arena)
	h.arena = h.sign.answer(h.arena, pkt, r.key.id, r.signed, r.peer.key, r.asked, r.auth, r.sign)
	l.release(r.id, 0)
	r.link = nil
	c.keep(h, r, at)
}

// personal is the time above which an answer is taken to have waited for a person.
// A server that has answered others since isn't busy with it any longer, and may as
// well have discarded it: it is then no reason to keep new users away.
const personal = 5 * time.Second

// keep has the answer at the end of the arena sent, and keeps it.
func (c *cell) keep(h *hand, r *request, at int) {
	c.give(r.buf)
	r.buf = c.grab(h.arena[at:])
	r.done, r.heard = true, h.now
	r.list.remove(r)
	c.kept.push(r)
	h.replyAt(r, at)
}

// untrue says why what came to slot s of l isn't the answer to what waits there.
// Whatever it is, the request goes on waiting.
func (h *hand) untrue(pkt Packet, l *link, s *slot) string {
	r := s.r
	late := s.left != 0 && h.now-s.left < recently
	switch {
	case r == nil && late:
		return reasonLate
	case r == nil:
		return reasonStray
	case !answers(r.code, pkt.Code()):
		return reasonBackend
	case !h.sign.rightAnswer(pkt, r.signed, r.asked):
		if late {
			return reasonLate
		}
		return reasonAnswer
	case pkt.Code() == AccountingResponse || pkt.find(MessageAuthenticator) > 0:
		return ""
	case pkt.find(EAPMessage) > 0:
		return reasonNoMessage
	case l.server.conf.Load().RequireMessageAuthenticator:
		return reasonBareAnswer
	}
	return ""
}

func answers(request, answer Code) bool {
	if request == AccountingRequest {
		return answer == AccountingResponse
	}
	return answer == AccessAccept || answer == AccessReject || answer == AccessChallenge
}

// learn records where the user of r is. A reject leaves nothing to come back to.
func (p *Proxy) learn(h *hand, r *request, pkt Packet) {
	if pkt.Code() == AccessReject {
		p.failures.reject(p, r, pkt)
		return
	}
	if pkt.Code() == AccessChallenge {
		p.count.challenged.Store(h.now)
	}
	h.keys = [2 * lb.MaxKeys]lb.Key{}
	copy(h.keys[:], r.keys[:])
	if state, ok := pkt.Lookup(State); ok && len(state) > 0 {
		h.keys[lb.MaxKeys] = stateKey(state).In(r.scope)
	}
	if p.Classifier.Class && pkt.Code() == AccessAccept {
		a := gather(pkt)
		h.keys[lb.MaxKeys+1] = p.Classifier.classKey(&a)
	}
	p.Balancer.Answered(r.member, r.flow, lb.StageEstablished, r.why, h.keys[:]...)
}

// status answers a Status-Server request itself: it asks whether whom it is sent
// to can serve (RFC 5997 §2), so without a server there is no answer.
func (p *Proxy) status(h *hand, pkt Packet, f lb.Flow, pe *peer, fr *front, local netip.Addr, via Replier) error {
	switch {
	case pkt.find(MessageAuthenticator) == 0: // RFC 5997 §3
		return p.drop(pe, f, reasonStatusBare)
	case !h.sign.rightRequest(pkt, pe.key):
		return p.drop(pe, f, reasonSecret)
	case len(p.Balancer.Pool.View().Ready) == 0 || p.state.Load() >= stateDraining:
		return p.drop(pe, f, reasonNoServer)
	}
	pe.count.status.Add(1)
	code := AccessAccept
	if p.accounts(f.Service) {
		code = AccountingResponse
	}
	at := len(h.arena)
	h.arena = h.sign.short(h.arena, code, pkt.b[1], pe.key, pkt.Authenticator(), true)
	h.out = append(h.out, outgoing{front: fr, via: via, flow: f, local: local, at: at, n: len(h.arena) - at})
	return nil
}

// accounts reports whether a port is for accounting.
func (p *Proxy) accounts(port uint16) bool {
	const usual, old = 1813, 1646
	if p.Classifier.AcctPort != 0 {
		return port == p.Classifier.AcctPort
	}
	return port == usual || port == old
}
