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

	"github.com/aovlb/aovlb/ikev2"
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
	Groups []ikev2.Group
	// CookieAt is how many half-open SAs there may be before new clients must
	// send a cookie (RFC 7296 section 2.6). 0 means 100, less than 0 always.
	CookieAt int
	// Logger, if not nil, hears of what is unexpected.
	Logger *slog.Logger

	book book

	mu        sync.Mutex
	counts    IKECounts
	inits     map[initKey]*gatewaySA   // half-open
	sas       map[ikev2.SPI]*gatewaySA // by the gateway's SPI
	children  map[uint32]*gatewaySA    // by the gateway's ESP SPI
	former    map[ikev2.SPI]bool       // own IKE SPIs of earlier lives
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
	spi  ikev2.SPI
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

var defaultGroups = []ikev2.Group{ikev2.GroupECP256, ikev2.GroupMODP2048, ikev2.GroupX25519, ikev2.GroupECP384}

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
	g.sas = make(map[ikev2.SPI]*gatewaySA)
	g.children = make(map[uint32]*gatewaySA)
	g.cookie = randomBytes(32)
	if g.former == nil {
		g.former, g.formerESP = make(map[ikev2.SPI]bool), make(map[uint32]bool)
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
		if a := g.handleESP(b); a != nil {
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
	h, list, err := parse(b)
	if err != nil {
		g.counts.Bad++
		return nil
	}
	if h.Exchange == ikev2.ExchangeSAInit {
		if a := g.handleInit(h, list, bytes.Clone(b), from); a != nil {
			return [][]byte{a}
		}
		return nil
	}
	sa := g.sas[ownSPI(h)]
	if sa == nil {
		g.stray(h)
		return nil // like charon: silence
	}
	return g.handleSecret(sa, b, from)
}

func (g *IKEGateway) stray(h ikev2.Header) {
	switch {
	case g.former[ownSPI(h)]:
		g.counts.Stale++
	case h.Exchange == ikev2.ExchangeAuth:
		g.counts.SplitAuth++
	default:
		g.counts.StrayIKE++
	}
	if g.Logger != nil {
		g.Logger.Info("unknown IKE SA", "gateway", g.Name, "message", h.String())
	}
}

// handleInit answers IKE_SA_INIT.
func (g *IKEGateway) handleInit(h ikev2.Header, list []ikev2.Payload, b []byte, from netip.AddrPort) []byte {
	if h.Response() || h.Flags&ikev2.FlagInitiator == 0 || h.SPIr != 0 {
		g.counts.Bad++
		return nil
	}
	if sa := g.inits[initKey{h.SPIi, from}]; sa != nil && bytes.Equal(sa.request, b) {
		return sa.answer // a repetition
	}
	x, err := parseExchange(list)
	if err != nil {
		g.counts.Bad++
		return nil
	}
	refuse := func(count *uint64, t ikev2.NotifyType, data []byte) []byte {
		*count++
		head := ikev2.Header{SPIi: h.SPIi, Exchange: ikev2.ExchangeSAInit, Flags: ikev2.FlagResponse}
		return ikev2.AppendMessage(nil, head, ikev2.NotifyPayload(t, data))
	}
	if want := g.wantCookie(h, x.nonce, from); want != nil {
		if got, _ := findNotify(list, ikev2.NotifyCookie); !hmac.Equal(got, want) {
			return refuse(&g.counts.Cookies, ikev2.NotifyCookie, want)
		}
	}
	groups := g.Groups
	if groups == nil {
		groups = defaultGroups
	}
	s, chosen, ok := choose(x.proposals, groups)
	if !ok {
		return refuse(&g.counts.NoProposal, ikev2.NotifyNoProposalChosen, nil)
	}
	if x.ke.Group != s.group {
		return refuse(&g.counts.InvalidKE, ikev2.NotifyInvalidKEPayload, binary.BigEndian.AppendUint16(nil, uint16(s.group)))
	}
	return g.openSA(h, s, chosen, x, b, from)
}

// wantCookie returns the cookie a client must send, or nil if there is no need.
func (g *IKEGateway) wantCookie(h ikev2.Header, ni []byte, from netip.AddrPort) []byte {
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
	return mac(sha256.New, g.cookie, ni, from.Addr().AsSlice(), appendSPI(h.SPIi))
}

// openSA makes a half-open SA and the answer that tells the client.
func (g *IKEGateway) openSA(h ikev2.Header, s suite, chosen ikev2.Proposal, x exchange, b []byte, from netip.AddrPort) []byte {
	own, shared, err := agree(s.group, x.ke.Data)
	if err != nil {
		g.counts.Bad++
		return nil
	}
	sa := &gatewaySA{from: from, begun: time.Now(), ni: bytes.Clone(x.nonce), nr: randomBytes(32), request: b}
	sa.spiI, sa.spiR = h.SPIi, randomSPI()
	sa.keys = deriveKeys(s, nil, shared, sa.ni, sa.nr, sa.spiI, sa.spiR)
	sa.recvID = 1
	head := sa.header(ikev2.ExchangeSAInit, true, 0)
	answer := exchange{[]ikev2.Proposal{chosen}, ikev2.KeyExchange{Group: s.group, Data: own}, sa.nr}
	sa.answer = ikev2.AppendMessage(nil, head, append(answer.payloads(),
		// The hash of no address never fits, so the client takes the gateway to
		// be behind a NAT and sends ESP in UDP: nothing else is to be had
		// without a kernel's help.
		ikev2.NotifyPayload(ikev2.NotifyNATDetectionSource, natHash(head, nil, 0)),
		ikev2.NotifyPayload(ikev2.NotifyNATDetectionDest, natHash(head, from.Addr().AsSlice(), from.Port())),
		ikev2.NotifyPayload(ikev2.NotifyFragmentationSupported, nil))...)
	g.inits[initKey{h.SPIi, from}] = sa
	g.sas[sa.spiR] = sa
	g.counts.Begun++
	return sa.answer
}

// agree makes a responder's public value and the shared one.
func agree(group ikev2.Group, peer []byte) (public, shared []byte, err error) {
	own, err := newDH(group)
	if err != nil {
		return nil, nil, err
	}
	shared, err = own.shared(peer)
	return own.public, shared, err
}

// handleSecret answers an encrypted request.
func (g *IKEGateway) handleSecret(sa *gatewaySA, b []byte, from netip.AddrPort) [][]byte {
	h, list, done, err := sa.open(b)
	if err != nil {
		g.counts.Bad++
		return nil
	}
	if ikev2.PayloadType(b[16]) == ikev2.PayloadSKF {
		g.counts.Fragments++
	}
	if !done || h.Response() {
		return nil
	}
	if h.MessageID == sa.recvID-1 && sa.last != nil {
		return cloneAll(sa.last) // a repetition
	}
	if h.MessageID != sa.recvID || (h.Exchange != ikev2.ExchangeAuth) != sa.ready {
		g.counts.Bad++
		return nil
	}
	var answer []ikev2.Payload
	switch h.Exchange {
	case ikev2.ExchangeAuth:
		answer = g.handleAuth(sa, list)
	case ikev2.ExchangeInformational:
		g.handleInform(sa, list, from)
	case ikev2.ExchangeCreateChildSA:
		answer = g.handleRekey(sa, list)
	}
	sa.recvID++
	sa.last = sa.response(h.Exchange, h.MessageID, answer)
	return cloneAll(sa.last)
}

func cloneAll(list [][]byte) [][]byte { return append([][]byte{}, list...) }

// handleAuth lets a client in who knows the secret, with one child SA.
func (g *IKEGateway) handleAuth(sa *gatewaySA, list []ikev2.Payload) []ikev2.Payload {
	id, auth := find(list, ikev2.PayloadIDi), find(list, ikev2.PayloadAuth)
	want := sa.keys.sign(g.Secret, sa.request, sa.nr, id, true)
	if len(auth) < 4 || auth[0] != authSharedKey || !hmac.Equal(auth[4:], want) {
		g.counts.AuthFailed++
		return []ikev2.Payload{ikev2.NotifyPayload(ikev2.NotifyAuthenticationFailed, nil)}
	}
	out, err := espSPI(find(list, ikev2.PayloadSA))
	if err != nil {
		g.counts.NoProposal++
		return []ikev2.Payload{ikev2.NotifyPayload(ikev2.NotifyNoProposalChosen, nil)}
	}
	in := g.newESPSPI()
	sa.in, sa.out = deriveChild(&sa.keys, sa.ni, sa.nr, false, in, out)
	sa.client, sa.ready = nameOf(id), true
	g.children[in] = sa
	delete(g.inits, initKey{sa.spiI, sa.from})
	now := time.Now()
	sa.session = g.book.open(Session{Client: sa.client, Begun: sa.begun, Established: now, Last: now})
	own := idBody(g.Name)
	auth = sa.keys.sign(g.Secret, sa.answer, sa.ni, own, false)
	return []ikev2.Payload{
		part(ikev2.PayloadIDr, own),
		part(ikev2.PayloadAuth, append([]byte{authSharedKey, 0, 0, 0}, auth...)),
		part(ikev2.PayloadSA, espOffer(in)),
		part(ikev2.PayloadTSi, anyTraffic()),
		part(ikev2.PayloadTSr, anyTraffic()),
		ikev2.NotifyPayload(ikev2.NotifyMOBIKESupported, nil),
	}
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

// handleInform takes DPD (RFC 7296 section 1.4), DELETE, and that a client has
// moved (RFC 4555 section 3.5). The answer to each is empty.
func (g *IKEGateway) handleInform(sa *gatewaySA, list []ikev2.Payload, from netip.AddrPort) {
	now := time.Now()
	if len(list) == 0 {
		g.counts.DPD++
	}
	if del := find(list, ikev2.PayloadDelete); len(del) > 0 && del[0] == byte(ikev2.ProtocolIKE) {
		g.drop(sa)
		if sa.in != nil { // a rekeyed SA has handed its session on
			g.book.note(sa.session, func(s *Session) { s.Ended = now })
		}
		return
	}
	_, moved := findNotify(list, ikev2.NotifyUpdateSAAddresses)
	g.book.note(sa.session, func(s *Session) {
		s.Last = now
		if moved && sa.from != from {
			s.Moves++
		}
	})
	if moved {
		sa.from = from
	}
}

// handleRekey replaces an IKE SA (RFC 7296 section 1.3.2). Its child SA goes on
// under the new one.
func (g *IKEGateway) handleRekey(old *gatewaySA, list []ikev2.Payload) []ikev2.Payload {
	answer, err := g.rekey(old, list)
	if err != nil {
		g.counts.NoProposal++
		return []ikev2.Payload{ikev2.NotifyPayload(ikev2.NotifyNoProposalChosen, nil)}
	}
	g.counts.Rekeys++
	return answer
}

func (g *IKEGateway) rekey(old *gatewaySA, list []ikev2.Payload) ([]ikev2.Payload, error) {
	x, err := parseExchange(list)
	if err != nil {
		return nil, err
	}
	peer, err := x.rekeySPI()
	s, chosen, ok := choose(x.proposals, []ikev2.Group{x.ke.Group})
	if err != nil || !ok || old.in == nil {
		return nil, errMalformed
	}
	own, shared, err := agree(s.group, x.ke.Data)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	sa := &gatewaySA{from: old.from, begun: now, client: old.client, ready: true, in: old.in, out: old.out}
	nr := randomBytes(32)
	sa.spiI, sa.spiR = peer, randomSPI()
	sa.keys = deriveKeys(s, old.keys.d, shared, x.nonce, nr, sa.spiI, sa.spiR)
	next := Session{Client: sa.client, Begun: now, Established: now, Last: now, Rekeyed: true}
	g.book.note(old.session, func(s *Session) {
		s.Ended = now
		next.Packets, next.Highest = s.Packets, s.Highest // of the same ESP SA
	})
	sa.session = g.book.open(next)
	g.sas[sa.spiR] = sa
	g.children[sa.in.spi] = sa
	old.in, old.out = nil, nil
	chosen.SPI = appendSPI(sa.spiR)
	return exchange{[]ikev2.Proposal{chosen}, ikev2.KeyExchange{Group: s.group, Data: own}, nr}.payloads(), nil
}

// handleESP sends an ESP message back with the gateway's name.
func (g *IKEGateway) handleESP(b []byte) []byte {
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
	g.book.note(sa.session, func(s *Session) { s.Last, s.Highest = now, uint64(sa.in.seq); s.Packets++ })
	return sa.out.seal(append(data[:8:8], g.Name...))
}
