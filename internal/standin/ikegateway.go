package standin

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// A Conn is an unconnected UDP socket; [net.UDPConn] is one.
type Conn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	Close() error
}

// An IKEGateway answers IKEv2 clients on two sockets, sends their ESP messages
// back, and keeps books. Serve may be called again after it has returned: that is
// a gateway that was killed and came back, without memory of its SAs but with its
// books.
type IKEGateway struct {
	// Name is the identity it proves to clients, and writes into ESP messages.
	Name string
	// Secret is the key that it shares with all clients.
	Secret []byte
	// Groups are the key exchange groups it accepts, preferred ones first; nil
	// means P-256, MODP-2048, X25519, P-384. A client that guessed another one is
	// told INVALID_KE_PAYLOAD.
	Groups []uint16
	// CookieAt is how many half-open SAs there may be before new clients must
	// send a cookie (RFC 7296 section 2.6). 0 means 100, less than 0 always.
	CookieAt int
	// Logger, if not nil, hears of what is unexpected.
	Logger *slog.Logger

	book book

	mu        sync.Mutex
	counts    IKECounts
	inits     map[initKey]*gatewaySA // half-open
	sas       map[uint64]*gatewaySA  // by the gateway's SPI
	children  map[uint32]*gatewaySA  // by the gateway's ESP SPI
	former    map[uint64]bool        // own IKE SPIs of earlier lives
	formerESP map[uint32]bool
	cookie    []byte // secret for cookies
}

// IKECounts are what an IKEGateway could not attribute to a client, or refused.
type IKECounts struct {
	// Begun counts IKE_SA_INIT exchanges that made a half-open SA.
	Begun uint64
	// Cookies, InvalidKE, NoProposal and AuthFailed count these answers.
	Cookies, InvalidKE, NoProposal, AuthFailed uint64
	// SplitAuth counts IKE_AUTH requests for an SA that this gateway never had:
	// their IKE_SA_INIT went to another one.
	SplitAuth uint64
	// StrayIKE counts other requests for an IKE SA that it never had.
	StrayIKE uint64
	// StrayESP counts ESP packets for an SA that it never had.
	StrayESP uint64
	// Stale counts messages for an SA of an earlier life.
	Stale uint64
	// Bad counts what could not be parsed, decrypted, or was replayed.
	Bad uint64
	// DPD counts empty INFORMATIONAL requests answered, Fragments the fragments
	// received, Rekeys the IKE SAs replaced.
	DPD, Fragments, Rekeys uint64
}

// initKey finds a half-open SA again when its request is repeated.
type initKey struct {
	spi  uint64
	from netip.AddrPort
}

type gatewaySA struct {
	ikeSA
	from    netip.AddrPort
	begun   time.Time
	client  string
	session int
	ready   bool // IKE_AUTH is done
	ni, nr  []byte
	request []byte // IKE_SA_INIT, as it came
	answer  []byte // as it was sent
	last    [][]byte
	in, out *espSA
}

const (
	defaultCookieAt = 100
	halfOpenFor     = 30 * time.Second
)

var defaultGroups = []uint16{GroupP256, GroupMODP2048, GroupX25519, GroupP384}

// Counts returns what has been counted over all lives.
func (g *IKEGateway) Counts() IKECounts {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.counts
}

// Sessions returns all IKE SAs that clients established, of all lives.
func (g *IKEGateway) Sessions() []Session { return g.book.list() }

// Serve answers on ike (where IKE comes without the non-ESP marker) and natt
// until ctx is done, and closes both. All SAs are gone then, without a word to
// the clients.
func (g *IKEGateway) Serve(ctx context.Context, ike, natt Conn) error {
	g.begin()
	defer g.forget()
	stop := context.AfterFunc(ctx, func() { ike.Close(); natt.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { g.read(ike, false); ike.Close(); natt.Close() })
	wg.Go(func() { g.read(natt, true); ike.Close(); natt.Close() })
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.New("standin: a socket of IKE gateway " + g.Name + " was closed")
}

func (g *IKEGateway) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inits = make(map[initKey]*gatewaySA)
	g.sas = make(map[uint64]*gatewaySA)
	g.children = make(map[uint32]*gatewaySA)
	g.cookie = randomBytes(32)
	if g.former == nil {
		g.former, g.formerESP = make(map[uint64]bool), make(map[uint32]bool)
	}
}

func (g *IKEGateway) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, sa := range g.sas {
		g.drop(sa)
	}
	g.book.newLife()
}

// drop forgets an SA. g.mu is held.
func (g *IKEGateway) drop(sa *gatewaySA) {
	delete(g.sas, sa.spiR)
	delete(g.inits, initKey{sa.spiI, sa.from})
	g.former[sa.own()] = true
	if sa.in != nil && g.children[sa.in.spi] == sa {
		delete(g.children, sa.in.spi)
		g.formerESP[sa.in.spi] = true
	}
}

// read answers what comes on one socket until it is closed.
func (g *IKEGateway) read(c Conn, natt bool) {
	b := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		for _, answer := range g.handle(b[:n], from, natt) {
			c.WriteToUDPAddrPort(answer, from) // lost is lost, as on any network
		}
	}
}

// handle returns the answers to one datagram, ready to be sent.
func (g *IKEGateway) handle(b []byte, from netip.AddrPort, natt bool) [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !natt {
		return g.handleIKE(b, from)
	}
	if len(b) < 4 {
		return nil // a NAT keepalive
	}
	if binary.BigEndian.Uint32(b) != 0 {
		if a := g.handleESP(b, from); a != nil {
			return [][]byte{a}
		}
		return nil
	}
	return mark(g.handleIKE(b[4:], from))
}

// mark puts the non-ESP marker before messages (RFC 3948 section 2.2).
func mark(list [][]byte) [][]byte {
	for i := range list {
		list[i] = append(make([]byte, 4, 4+len(list[i])), list[i]...)
	}
	return list
}

func (g *IKEGateway) handleIKE(b []byte, from netip.AddrPort) [][]byte {
	h, first, err := parseIKEHeader(b)
	if err != nil {
		g.counts.Bad++
		return nil
	}
	if h.exchange == exInit {
		if a := g.handleInit(h, first, bytes.Clone(b), from); a != nil {
			return [][]byte{a}
		}
		return nil
	}
	sa := g.sas[h.ownSPI()]
	if sa == nil {
		g.stray(h)
		return nil // like charon: silence
	}
	return g.handleSecret(sa, b, from)
}

func (g *IKEGateway) stray(h ikeHeader) {
	switch {
	case g.former[h.ownSPI()]:
		g.counts.Stale++
	case h.exchange == exAuth:
		g.counts.SplitAuth++
	default:
		g.counts.StrayIKE++
	}
	if g.Logger != nil {
		g.Logger.Info("unknown IKE SPI", "gateway", g.Name, "exchange", h.exchange, "spi", h.ownSPI())
	}
}

// handleInit answers IKE_SA_INIT.
func (g *IKEGateway) handleInit(h ikeHeader, first uint8, b []byte, from netip.AddrPort) []byte {
	list, err := parsePayloads(first, b[ikeHeaderLen:])
	if err != nil || h.response() || h.flags&flagInitiator == 0 || h.spiR != 0 || h.spiI == 0 {
		g.counts.Bad++
		return nil
	}
	if sa := g.inits[initKey{h.spiI, from}]; sa != nil && bytes.Equal(sa.request, b) {
		return sa.answer // a repetition
	}
	offer, err := parseSA(find(list, plSA))
	ke, ni := find(list, plKE), find(list, plNonce)
	if err != nil || len(ke) < 4 || len(ni) < 16 || len(ni) > 256 {
		g.counts.Bad++
		return nil
	}
	answer := ikeHeader{spiI: h.spiI, exchange: exInit, flags: flagResponse}
	if want := g.wantCookie(h, ni, from); want != nil {
		if got, _ := findNotify(list, ntCookie); !hmac.Equal(got, want) {
			g.counts.Cookies++
			return plainMessage(answer, []payload{notify(ntCookie, want)})
		}
	}
	groups := g.Groups
	if groups == nil {
		groups = defaultGroups
	}
	s, chosen, ok := choose(offer, groups)
	if !ok {
		g.counts.NoProposal++
		return plainMessage(answer, []payload{notify(ntNoProposal, nil)})
	}
	if binary.BigEndian.Uint16(ke) != s.group {
		g.counts.InvalidKE++
		return plainMessage(answer, []payload{notify(ntInvalidKE, binary.BigEndian.AppendUint16(nil, s.group))})
	}
	return g.openSA(h, s, chosen, ke[4:], ni, b, from)
}

// wantCookie returns the cookie a client must send, or nil if there is no need.
func (g *IKEGateway) wantCookie(h ikeHeader, ni []byte, from netip.AddrPort) []byte {
	at := g.CookieAt
	if at == 0 {
		at = defaultCookieAt
	}
	for k, sa := range g.inits {
		if len(g.inits) < at {
			break
		}
		if time.Since(sa.begun) > halfOpenFor {
			delete(g.inits, k)
			delete(g.sas, sa.spiR)
		}
	}
	if len(g.inits) < at {
		return nil
	}
	return mac(sha256.New, g.cookie, ni, from.Addr().AsSlice(), binary.BigEndian.AppendUint64(nil, h.spiI))
}

// openSA makes a half-open SA and the answer that tells the client.
func (g *IKEGateway) openSA(h ikeHeader, s suite, chosen proposal, peer, ni, b []byte, from netip.AddrPort) []byte {
	own, err := newDH(s.group)
	if err != nil {
		return nil
	}
	shared, err := own.shared(peer)
	if err != nil {
		g.counts.Bad++
		return nil
	}
	sa := &gatewaySA{from: from, begun: time.Now(), ni: bytes.Clone(ni), nr: randomBytes(32), request: b}
	sa.spiI, sa.spiR = h.spiI, randomSPI()
	sa.keys = deriveKeys(s, nil, shared, sa.ni, sa.nr, sa.spiI, sa.spiR)
	sa.recvID = 1
	head := sa.header(exInit, true, 0)
	sa.answer = plainMessage(head, []payload{
		{plSA, appendSA([]proposal{chosen})},
		{plKE, keBody(s.group, own.public)},
		{plNonce, sa.nr},
		// The hash of no address never fits, so the client takes the gateway to
		// be behind a NAT and sends ESP in UDP: nothing else is to be had
		// without a kernel's help.
		notify(ntNATSource, natHash(head, nil, 0)),
		notify(ntNATDest, natHash(head, from.Addr().AsSlice(), from.Port())),
		notify(ntFragmentation, nil),
	})
	g.inits[initKey{h.spiI, from}] = sa
	g.sas[sa.spiR] = sa
	g.counts.Begun++
	return sa.answer
}

func keBody(group uint16, public []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, group)
	return append(append(b, 0, 0), public...)
}

// handleSecret answers an encrypted request.
func (g *IKEGateway) handleSecret(sa *gatewaySA, b []byte, from netip.AddrPort) [][]byte {
	h, list, done, err := sa.open(b)
	if err != nil {
		g.counts.Bad++
		return nil
	}
	if b[16] == plSKF {
		g.counts.Fragments++
	}
	if !done || h.response() {
		return nil
	}
	if h.id == sa.recvID-1 && sa.last != nil {
		return cloneAll(sa.last) // a repetition
	}
	if h.id != sa.recvID || (h.exchange != exAuth) != sa.ready {
		g.counts.Bad++
		return nil
	}
	var answer []payload
	switch h.exchange {
	case exAuth:
		answer = g.handleAuth(sa, list)
	case exInform:
		answer = g.handleInform(sa, list, from)
	case exChild:
		answer = g.handleRekey(sa, list)
	}
	sa.recvID++
	sa.last = [][]byte{sa.keys.seal(sa.header(h.exchange, true, h.id), answer, sa.initiator)}
	return cloneAll(sa.last)
}

func cloneAll(list [][]byte) [][]byte { return append([][]byte{}, list...) }

// handleAuth lets a client in who knows the secret, with one child SA.
func (g *IKEGateway) handleAuth(sa *gatewaySA, list []payload) []payload {
	id, auth := find(list, plIDi), find(list, plAuth)
	want := sa.keys.sign(g.Secret, sa.request, sa.nr, id, true)
	if len(auth) < 4 || auth[0] != authSharedKey || !hmac.Equal(auth[4:], want) {
		g.counts.AuthFailed++
		return []payload{notify(ntAuthFailed, nil)}
	}
	out, err := espSPI(find(list, plSA))
	if err != nil {
		g.counts.NoProposal++
		return []payload{notify(ntNoProposal, nil)}
	}
	in := g.newESPSPI()
	sa.in, sa.out = deriveChild(&sa.keys, sa.ni, sa.nr, false, in, out)
	sa.client, sa.ready = nameOf(id), true
	g.children[in] = sa
	delete(g.inits, initKey{sa.spiI, sa.from})
	now := time.Now()
	sa.session = g.book.open(Session{Client: sa.client, Begun: sa.begun, Established: now, Last: now})
	own := idBody(g.Name)
	answer := []payload{
		{plIDr, own},
		{plAuth, append([]byte{authSharedKey, 0, 0, 0}, sa.keys.sign(g.Secret, sa.answer, sa.ni, own, false)...)},
		{plSA, espOffer(in)},
		{plTSi, anyTraffic()},
		{plTSr, anyTraffic()},
		notify(ntMOBIKE, nil),
	}
	return answer
}

// newESPSPI returns an SPI that isn't in use; those up to 255 are reserved.
func (g *IKEGateway) newESPSPI() uint32 {
	for {
		spi := binary.BigEndian.Uint32(randomBytes(4))
		if spi > 255 && g.children[spi] == nil {
			return spi
		}
	}
}

// handleInform answers DPD (RFC 7296 section 1.4), DELETE, and a client that has
// moved (RFC 4555 section 3.5).
func (g *IKEGateway) handleInform(sa *gatewaySA, list []payload, from netip.AddrPort) []payload {
	now := time.Now()
	if len(list) == 0 {
		g.counts.DPD++
	}
	if del := find(list, plDelete); len(del) > 0 && del[0] == protoIKE {
		g.drop(sa)
		// The client may repeat the request, and a rekeyed SA hands its session on.
		if sa.in != nil {
			g.book.note(sa.session, func(s *Session) { s.Ended = now })
		}
		return nil
	}
	_, moved := findNotify(list, ntUpdateAddresses)
	g.book.note(sa.session, func(s *Session) {
		s.Last = now
		if moved && sa.from != from {
			s.Moves++
		}
	})
	if moved {
		sa.from = from
	}
	return nil
}

// handleRekey replaces an IKE SA (RFC 7296 section 1.3.2). Its child SA goes on
// under the new one.
func (g *IKEGateway) handleRekey(old *gatewaySA, list []payload) []payload {
	offer, err := parseSA(find(list, plSA))
	ke, ni := find(list, plKE), find(list, plNonce)
	s, chosen, ok := choose(offer, []uint16{old.keys.group})
	if err != nil || !ok || len(ke) < 4 || len(ni) < 16 || len(offer[0].spi) != 8 || binary.BigEndian.Uint16(ke) != s.group {
		g.counts.NoProposal++
		return []payload{notify(ntNoProposal, nil)}
	}
	own, err := newDH(s.group)
	if err != nil {
		return []payload{notify(ntNoProposal, nil)}
	}
	shared, err := own.shared(ke[4:])
	if err != nil {
		g.counts.Bad++
		return []payload{notify(ntNoProposal, nil)}
	}
	sa := &gatewaySA{from: old.from, begun: time.Now(), client: old.client, ready: true, in: old.in, out: old.out}
	nr := randomBytes(32)
	sa.spiI, sa.spiR = binary.BigEndian.Uint64(offer[0].spi), randomSPI()
	sa.keys = deriveKeys(s, old.keys.d, shared, ni, nr, sa.spiI, sa.spiR)
	now := time.Now()
	sa.session = g.book.open(Session{Client: sa.client, Begun: now, Established: now, Last: now, Rekeyed: true})
	g.book.note(old.session, func(s *Session) { s.Ended = now })
	g.sas[sa.spiR] = sa
	g.children[sa.in.spi] = sa
	old.in, old.out = nil, nil
	g.counts.Rekeys++
	chosen.spi = binary.BigEndian.AppendUint64(nil, sa.spiR)
	return []payload{
		{plSA, appendSA([]proposal{chosen})},
		{plNonce, nr},
		{plKE, keBody(s.group, own.public)},
	}
}

// handleESP sends an ESP message back with the gateway's name.
func (g *IKEGateway) handleESP(b []byte, from netip.AddrPort) []byte {
	spi := binary.BigEndian.Uint32(b)
	sa := g.children[spi]
	if sa == nil {
		if g.formerESP[spi] {
			g.counts.Stale++
		} else {
			g.counts.StrayESP++
		}
		return nil
	}
	data, err := sa.in.open(b)
	if err != nil || len(data) < 8 {
		g.counts.Bad++
		return nil
	}
	now := time.Now()
	g.book.note(sa.session, func(s *Session) { s.Last = now; s.Packets++ })
	return sa.out.seal(append(data[:8:8], g.Name...))
}
