package standin

import (
	"context"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/aovlb/aovlb/ikev2"
)

// errRefused is what a socket may report of an earlier datagram.
const errRefused = syscall.ECONNREFUSED

// What ends a tunnel.
var (
	errNoAnswer = errors.New("standin: the gateway does not answer")
	errDeleted  = errors.New("standin: the gateway deleted the SA")
)

// A clientSA is the client's side of an established tunnel.
type clientSA struct {
	ikeSA
	gateway string
	in, out *espSA
	count   uint64

	heard   time.Time // when an answer last came
	pending *pending  // the request under way
	next    *ikeSA    // what the SA is being replaced by
	nextDH  dh
	nextNi  []byte
}

// A pending is a request that has not been answered.
type pending struct {
	id     uint32
	kind   requestKind
	wire   [][]byte
	tries  int
	sentAt time.Time
}

type requestKind uint8

const (
	askAlive requestKind = iota
	askMove
	askRekey
	askDelete
)

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

func (t *Tunnel) every() time.Duration    { return orDefault(t.Every, time.Second) }
func (t *Tunnel) patience() time.Duration { return orDefault(t.Patience, 10*t.every()) }
func (t *Tunnel) repeat() time.Duration   { return orDefault(t.Repeat, time.Second) }
func (t *Tunnel) tries() int              { return orDefault(t.Tries, 3) }

// run keeps the tunnel up until ctx is done.
func (t *Tunnel) run(ctx context.Context) {
	for ctx.Err() == nil {
		sa, err := t.connect(ctx)
		if err != nil {
			t.failed(ctx, err)
			continue
		}
		err = t.hold(ctx, sa)
		t.machine.unlisten(sa.own(), sa.in.spi)
		if ctx.Err() != nil {
			return
		}
		t.note(func(s *TunnelStatus) { s.Gateway, s.Lost = "", sa.heard })
		if t.Trace != nil && t.Trace.Lost != nil {
			t.Trace.Lost(t, sa.gateway, err)
		}
		if t.Logger != nil {
			t.Logger.Info("tunnel lost", "client", t.Name, "gateway", sa.gateway, "error", err)
		}
	}
}

// failed notes an attempt that failed; a refusal is retried only after a while.
func (t *Tunnel) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	t.note(func(s *TunnelStatus) { s.Failed++ })
	if t.Logger != nil {
		t.Logger.Info("no tunnel", "client", t.Name, "error", err)
	}
	if !errors.Is(err, errNoAnswer) {
		select {
		case <-ctx.Done():
		case <-time.After(t.repeat()):
		}
	}
}

// exchange is what the tunnel proposes for an IKE SA. spi is its own, if that has
// to be said.
func (t *Tunnel) exchange(guess ikev2.Group, public, spi, nonce []byte) exchange {
	p := ikev2.Proposal{Number: 1, Protocol: ikev2.ProtocolIKE, SPI: spi}
	add := func(kind ikev2.TransformType, id, bits uint16) {
		p.Transforms = append(p.Transforms, ikev2.Transform{Type: kind, ID: id, KeyBits: bits})
	}
	if t.CBC {
		add(ikev2.TransformEncr, ikev2.EncrAESCBC, 256)
		add(ikev2.TransformInteg, ikev2.IntegHMACSHA256, 0)
	} else {
		add(ikev2.TransformEncr, ikev2.EncrAESGCM16, 128)
	}
	add(ikev2.TransformPRF, ikev2.PRFHMACSHA256, 0)
	groups := []ikev2.Group{t.group(), ikev2.GroupECP256, ikev2.GroupMODP2048}
	for i, g := range groups {
		if !slices.Contains(groups[:i], g) {
			add(ikev2.TransformKE, uint16(g), 0)
		}
	}
	return exchange{[]ikev2.Proposal{p}, ikev2.KeyExchange{Group: guess, Data: public}, nonce}
}

func (t *Tunnel) group() ikev2.Group { return orDefault(t.Group, ikev2.GroupECP256) }

// connect makes an SA: IKE_SA_INIT on the IKE port, IKE_AUTH on the NAT-T port.
func (t *Tunnel) connect(ctx context.Context) (*clientSA, error) {
	spi, esp := randomSPI(), binary.BigEndian.Uint32(randomBytes(4))|0x100
	t.machine.listen(t, spi, esp)
	o, err := t.initiate(ctx, spi)
	if err == nil {
		err = t.authenticate(ctx, o, esp)
	}
	if err != nil {
		t.machine.unlisten(spi, esp)
		return nil, err
	}
	sa := o.clientSA
	t.moved.Store(false) // nothing to tell a gateway that is new
	sa.heard = time.Now()
	t.note(func(s *TunnelStatus) {
		s.Gateway = sa.gateway
		s.Established++
		if !s.Lost.IsZero() {
			s.Back = sa.heard
		}
	})
	if t.Trace != nil && t.Trace.Up != nil {
		t.Trace.Up(t, sa.gateway)
	}
	return sa, nil
}

// An opening is an SA that isn't authenticated yet.
type opening struct {
	*clientSA
	request, answer []byte
	ni, nr          []byte
}

// initiate does IKE_SA_INIT, again with a cookie or another group if the gateway
// says so.
func (t *Tunnel) initiate(ctx context.Context, spi ikev2.SPI) (*opening, error) {
	head := ikev2.Header{SPIi: spi, Exchange: ikev2.ExchangeSAInit, Flags: ikev2.FlagInitiator}
	guess, ni := t.group(), randomBytes(32)
	var cookie []ikev2.Payload
	for range 4 {
		own, err := newDH(guess)
		if err != nil {
			return nil, err
		}
		request := ikev2.AppendMessage(nil, head, slices.Concat(cookie,
			t.exchange(guess, own.public, nil, ni).payloads(), t.detectNAT(head, t.machine.IKE),
			[]ikev2.Payload{ikev2.NotifyPayload(ikev2.NotifyFragmentationSupported, nil)})...)
		answer, err := t.roundTrip(ctx, [][]byte{request}, false, func(a arrival) bool {
			h, err := ikev2.ParseHeader(a.b)
			return err == nil && h.Exchange == ikev2.ExchangeSAInit && h.Response()
		})
		if err != nil {
			return nil, err
		}
		h, list, err := parse(answer)
		if err != nil {
			return nil, err
		}
		if c, ok := findNotify(list, ikev2.NotifyCookie); ok {
			cookie = []ikev2.Payload{ikev2.NotifyPayload(ikev2.NotifyCookie, c)}
			continue
		}
		if g, ok := findNotify(list, ikev2.NotifyInvalidKEPayload); ok && len(g) == 2 {
			guess = ikev2.Group(binary.BigEndian.Uint16(g))
			continue
		}
		return openedSA(h, list, own, guess, &opening{request: request, answer: answer, ni: ni})
	}
	return nil, errors.New("standin: the gateway wants ever other cookies or groups")
}

// detectNAT is what tells the gateway whether there is a NAT (RFC 7296 section
// 2.23). The machine doesn't look for its own address; the hash of none fits
// nothing, and so ESP goes in UDP.
func (t *Tunnel) detectNAT(h ikev2.Header, service netip.AddrPort) []ikev2.Payload {
	return []ikev2.Payload{
		ikev2.NotifyPayload(ikev2.NotifyNATDetectionSource, natHash(h, nil, 0)),
		ikev2.NotifyPayload(ikev2.NotifyNATDetectionDest, natHash(h, service.Addr().AsSlice(), service.Port())),
	}
}

// openedSA makes the client's SA from the gateway's answer.
func openedSA(h ikev2.Header, list []ikev2.Payload, own dh, group ikev2.Group, o *opening) (*opening, error) {
	if err := refusal(list); err != nil {
		return nil, err
	}
	s, x, shared, err := accept(list, own, group)
	if err != nil {
		return nil, err
	}
	if h.SPIr == 0 {
		return nil, errMalformed
	}
	o.clientSA, o.nr = new(clientSA), x.nonce
	o.initiator, o.spiI, o.spiR, o.sendID = true, h.SPIi, h.SPIr, 1
	o.keys = deriveKeys(s, nil, shared, o.ni, o.nr, h.SPIi, h.SPIr)
	return o, nil
}

// accept reads the gateway's part of a key exchange.
func accept(list []ikev2.Payload, own dh, group ikev2.Group) (s suite, x exchange, shared []byte, err error) {
	if x, err = parseExchange(list); err != nil {
		return s, x, nil, err
	}
	s, _, ok := choose(x.proposals, []ikev2.Group{group})
	if !ok || x.ke.Group != group || len(x.proposals) != 1 {
		return s, x, nil, errors.New("standin: the gateway chose what was not offered")
	}
	shared, err = own.shared(x.ke.Data)
	return s, x, shared, err
}

// authenticate does IKE_AUTH.
func (t *Tunnel) authenticate(ctx context.Context, o *opening, esp uint32) error {
	sa, id := o.clientSA, idBody(t.Name)
	list := []ikev2.Payload{part(ikev2.PayloadIDi, id)}
	if t.Fragment > 0 {
		// Hashes of 40 trusted authorities (RFC 7296 section 3.7).
		list = append(list, part(ikev2.PayloadCertReq, append([]byte{4}, randomBytes(40*20)...)))
	}
	auth := sa.keys.sign(t.Secret, o.request, o.nr, id, true)
	list = append(list,
		part(ikev2.PayloadAuth, append([]byte{authSharedKey, 0, 0, 0}, auth...)),
		part(ikev2.PayloadSA, espOffer(esp)),
		part(ikev2.PayloadTSi, anyTraffic()), part(ikev2.PayloadTSr, anyTraffic()),
		ikev2.NotifyPayload(ikev2.NotifyMOBIKESupported, nil))
	number, wire := sa.request(ikev2.ExchangeAuth, list, t.Fragment)
	var answer []ikev2.Payload
	_, err := t.roundTrip(ctx, mark(wire), true, func(a arrival) bool {
		h, list, done, err := sa.open(a.b)
		answer = list
		return err == nil && done && h.Response() && h.MessageID == number
	})
	if err != nil {
		return err
	}
	return t.admitted(o, answer, esp)
}

// admitted reads the gateway's answer to IKE_AUTH.
func (t *Tunnel) admitted(o *opening, answer []ikev2.Payload, esp uint32) error {
	if err := refusal(answer); err != nil {
		return err
	}
	idr, auth := find(answer, ikev2.PayloadIDr), find(answer, ikev2.PayloadAuth)
	if len(auth) < 4 || !hmac.Equal(auth[4:], o.keys.sign(t.Secret, o.answer, o.ni, idr, false)) {
		return errors.New("standin: the gateway does not know the secret")
	}
	spi, err := espSPI(find(answer, ikev2.PayloadSA))
	if err != nil {
		return err
	}
	o.in, o.out = deriveChild(&o.keys, o.ni, o.nr, true, esp, spi)
	o.gateway = nameOf(idr)
	return nil
}

// roundTrip sends a request, repeats it, and returns the first arrival that
// accept takes.
func (t *Tunnel) roundTrip(ctx context.Context, wire [][]byte, natt bool, accept func(arrival) bool) ([]byte, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for sent := 0; ; {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
			if sent == t.tries() {
				return nil, errNoAnswer
			}
			t.machine.send(wire, natt)
			sent++
			timer.Reset(t.repeat())
		case a := <-t.inbox:
			if !a.esp && accept(a) {
				return a.b, nil
			}
		}
	}
}
