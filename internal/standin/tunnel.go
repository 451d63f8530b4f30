package standin

import (
	"context"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"
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

// offer is what the tunnel proposes for its IKE SA.
func (t *Tunnel) offer(first uint16, spi []byte) []proposal {
	p := proposal{number: 1, protocol: protoIKE, spi: spi}
	if t.CBC {
		p.transforms = []transform{{trEncr, encrCBC, 256}, {trPRF, 5, 0}, {trInteg, 12, 0}}
	} else {
		p.transforms = []transform{{trEncr, encrGCM, 128}, {trPRF, 5, 0}}
	}
	p.transforms = append(p.transforms, transform{trKE, first, 0})
	for _, g := range []uint16{GroupP256, GroupMODP2048} {
		if g != first {
			p.transforms = append(p.transforms, transform{trKE, g, 0})
		}
	}
	return []proposal{p}
}

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

// opening is an SA before keys exist.
type opening struct {
	*clientSA
	request, answer []byte
	nr              []byte
}

// initiate does IKE_SA_INIT, again with a cookie or another group if the gateway
// says so.
func (t *Tunnel) initiate(ctx context.Context, spi uint64) (*opening, error) {
	group := orDefault[uint16](t.Group, GroupP256)
	var cookie []payload
	ni := randomBytes(32)
	head := ikeHeader{spiI: spi, exchange: exInit, flags: flagInitiator}
	for range 4 {
		own, err := newDH(group)
		if err != nil {
			return nil, err
		}
		request := plainMessage(head, append(cookie[:len(cookie):len(cookie)],
			payload{plSA, appendSA(t.offer(orDefault[uint16](t.Group, GroupP256), nil))},
			payload{plKE, keBody(group, own.public)},
			payload{plNonce, ni},
			notify(ntNATSource, natHash(head, nil, 0)),
			notify(ntNATDest, natHash(head, t.machine.IKE.Addr().AsSlice(), t.machine.IKE.Port())),
			notify(ntFragmentation, nil)))
		answer, err := t.roundTrip(ctx, [][]byte{request}, false, func(a arrival) bool {
			h, _, err := parseIKEHeader(a.b)
			return err == nil && h.exchange == exInit && h.response()
		})
		if err != nil {
			return nil, err
		}
		h, first, _ := parseIKEHeader(answer)
		list, err := parsePayloads(first, answer[ikeHeaderLen:])
		if err != nil {
			return nil, err
		}
		if c, ok := findNotify(list, ntCookie); ok {
			cookie = []payload{notify(ntCookie, c)}
			continue
		}
		if g, ok := findNotify(list, ntInvalidKE); ok && len(g) == 2 {
			group = binary.BigEndian.Uint16(g)
			continue
		}
		if n, ok := failure(list); ok {
			return nil, fmt.Errorf("standin: IKE_SA_INIT was refused with notification %d", n)
		}
		sa, err := openedSA(h, list, own, group, ni)
		if err != nil {
			return nil, err
		}
		return &opening{clientSA: sa, request: request, answer: answer, nr: find(list, plNonce)}, nil
	}
	return nil, errors.New("standin: the gateway wants ever other cookies or groups")
}

// openedSA makes the client's SA from the gateway's answer.
func openedSA(h ikeHeader, list []payload, own dh, group uint16, ni []byte) (*clientSA, error) {
	chosen, err := parseSA(find(list, plSA))
	ke, nr := find(list, plKE), find(list, plNonce)
	if err != nil || len(chosen) != 1 || len(ke) < 4 || len(nr) < 16 || h.spiR == 0 {
		return nil, errMalformed
	}
	s, _, ok := choose(chosen, []uint16{group})
	if !ok || binary.BigEndian.Uint16(ke) != group {
		return nil, errors.New("standin: the gateway chose what was not offered")
	}
	shared, err := own.shared(ke[4:])
	if err != nil {
		return nil, err
	}
	sa := new(clientSA)
	sa.initiator, sa.spiI, sa.spiR, sa.sendID = true, h.spiI, h.spiR, 1
	sa.keys = deriveKeys(s, nil, shared, ni, nr, h.spiI, h.spiR)
	sa.nextNi = ni
	return sa, nil
}

// authenticate does IKE_AUTH.
func (t *Tunnel) authenticate(ctx context.Context, o *opening, esp uint32) error {
	sa, ni := o.clientSA, o.nextNi
	id := idBody(t.Name)
	list := []payload{{plIDi, id}}
	if t.Fragment > 0 {
		// Hashes of 40 trusted authorities (RFC 7296 section 3.7).
		list = append(list, payload{plCertReq, append([]byte{4}, randomBytes(40*20)...)})
	}
	list = append(list,
		payload{plAuth, append([]byte{authSharedKey, 0, 0, 0}, sa.keys.sign(t.Secret, o.request, o.nr, id, true)...)},
		payload{plSA, espOffer(esp)}, payload{plTSi, anyTraffic()}, payload{plTSr, anyTraffic()},
		notify(ntMOBIKE, nil))
	number, wire := sa.request(exAuth, list, t.Fragment)
	var answer []payload
	_, err := t.roundTrip(ctx, mark(wire), true, func(a arrival) bool {
		h, list, done, err := sa.open(a.b)
		answer = list
		return err == nil && done && h.response() && h.id == number
	})
	if err != nil {
		return err
	}
	if n, ok := failure(answer); ok {
		return fmt.Errorf("standin: IKE_AUTH was refused with notification %d", n)
	}
	idr, auth := find(answer, plIDr), find(answer, plAuth)
	if len(auth) < 4 || !hmac.Equal(auth[4:], sa.keys.sign(t.Secret, o.answer, ni, idr, false)) {
		return errors.New("standin: the gateway does not know the secret")
	}
	out, err := espSPI(find(answer, plSA))
	if err != nil {
		return err
	}
	sa.in, sa.out = deriveChild(&sa.keys, ni, o.nr, true, esp, out)
	sa.gateway = nameOf(idr)
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
