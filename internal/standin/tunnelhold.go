package standin

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/aovlb/aovlb/ikev2"
)

// hold keeps an established tunnel until it is lost. One request is under way at
// a time, as IKE's window of one demands:
//
//	every tick:  message due ──▶ ESP
//	             request unanswered ──▶ repeat, at last give up
//	             nothing heard for Patience ──▶ request: alive?
//	moved ──▶ request: UPDATE_SA_ADDRESSES
//	Rekey ──▶ request: CREATE_CHILD_SA ──▶ request: DELETE (old SA) ──▶ new SA
func (t *Tunnel) hold(ctx context.Context, sa *clientSA) error {
	tick := time.NewTicker(min(t.every(), t.repeat()/4))
	defer tick.Stop()
	nextEcho := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-t.inbox:
			if err := t.arrived(sa, a); err != nil {
				return err
			}
		case now := <-tick.C:
			if err := t.watch(sa, now); err != nil {
				return err
			}
			if !now.Before(nextEcho) {
				nextEcho = now.Add(t.every())
				t.echo(sa)
			}
		}
	}
}

// start begins what the tunnel has been told to do, if it has been.
func (t *Tunnel) start(sa *clientSA, now time.Time) {
	switch {
	case t.moved.Swap(false):
		t.ask(sa, askMove, ikev2.ExchangeInformational, append(t.detectNAT(sa.header(0, false, 0), t.machine.NATT),
			ikev2.NotifyPayload(ikev2.NotifyUpdateSAAddresses, nil)))
	case t.wantRekey.Swap(false):
		if err := t.startRekey(sa); err != nil && t.Logger != nil {
			t.Logger.Info("no rekey", "client", t.Name, "error", err)
		}
	case now.Sub(sa.heard) >= t.patience():
		t.ask(sa, askAlive, ikev2.ExchangeInformational, nil)
	}
}

// echo sends the next numbered message.
func (t *Tunnel) echo(sa *clientSA) {
	sa.count++
	b := binary.BigEndian.AppendUint64(nil, sa.count)
	t.machine.send([][]byte{sa.out.seal(append(b, t.Name...))}, true)
	t.note(func(s *TunnelStatus) { s.Sent++ })
}

// ask sends a request that watch repeats.
func (t *Tunnel) ask(sa *clientSA, kind requestKind, x ikev2.ExchangeType, list []ikev2.Payload) {
	id, wire := sa.request(x, list, 0)
	sa.pending = &pending{id: id, kind: kind, wire: mark(wire), tries: 1, sentAt: time.Now()}
	t.machine.send(sa.pending.wire, true)
}

// watch repeats the request under way, or starts one that is due.
func (t *Tunnel) watch(sa *clientSA, now time.Time) error {
	p := sa.pending
	switch {
	case p == nil:
		t.start(sa, now)
	case now.Sub(p.sentAt) < t.repeat():
	case p.tries >= t.tries():
		return errNoAnswer
	default:
		p.tries++
		p.sentAt = now
		t.machine.send(p.wire, true)
	}
	return nil
}

// arrived judges a datagram of the gateway. Only what ends the tunnel is an error.
func (t *Tunnel) arrived(sa *clientSA, a arrival) error {
	if a.esp {
		data, err := sa.in.open(a.b)
		if err != nil || len(data) < 8 {
			return nil
		}
		sa.heard = time.Now()
		t.note(func(s *TunnelStatus) {
			s.Received++
			if string(data[8:]) != sa.gateway {
				s.Alien++
			}
		})
		return nil
	}
	h, list, done, err := sa.open(a.b)
	if err != nil || !done {
		return nil
	}
	if h.Response() {
		if sa.pending != nil && h.MessageID == sa.pending.id {
			kind := sa.pending.kind
			sa.pending, sa.heard = nil, time.Now()
			return t.answered(sa, kind, list)
		}
		return nil
	}
	return t.requested(sa, h, list)
}

// requested answers a request of the gateway.
func (t *Tunnel) requested(sa *clientSA, h ikev2.Header, list []ikev2.Payload) error {
	if h.Exchange != ikev2.ExchangeInformational || h.MessageID > sa.recvID {
		return nil
	}
	sa.recvID = h.MessageID + 1
	sa.heard = time.Now()
	t.machine.send(mark(sa.response(h.Exchange, h.MessageID, nil)), true)
	if find(list, ikev2.PayloadDelete) != nil {
		return errDeleted
	}
	return nil
}

// answered goes on after a request was answered.
func (t *Tunnel) answered(sa *clientSA, kind requestKind, list []ikev2.Payload) error {
	if err := refusal(list); err != nil {
		return err
	}
	switch kind {
	case askMove:
		t.note(func(s *TunnelStatus) { s.Moves++ })
	case askRekey:
		if err := sa.finishNext(list); err != nil {
			return err
		}
		t.machine.listen(t, sa.next.own(), sa.in.spi)
		t.ask(sa, askDelete, ikev2.ExchangeInformational, []ikev2.Payload{part(ikev2.PayloadDelete, []byte{byte(ikev2.ProtocolIKE), 0, 0, 0})})
	case askDelete:
		t.machine.unlisten(sa.own(), 0)
		sa.ikeSA, sa.next = *sa.next, nil
		t.note(func(s *TunnelStatus) { s.Rekeyed++ })
	}
	return nil
}

// startRekey asks for an IKE SA that replaces this one (RFC 7296 section 1.3.2).
func (t *Tunnel) startRekey(sa *clientSA) error {
	own, err := newDH(sa.keys.group)
	if err != nil {
		return err
	}
	sa.next = &ikeSA{spiI: randomSPI(), initiator: true}
	sa.nextDH, sa.nextNi = own, randomBytes(32)
	x := t.exchange(sa.keys.group, own.public, appendSPI(sa.next.spiI), sa.nextNi)
	t.ask(sa, askRekey, ikev2.ExchangeCreateChildSA, x.payloads())
	return nil
}

// finishNext makes the keys of the SA that replaces this one.
func (sa *clientSA) finishNext(list []ikev2.Payload) error {
	s, x, shared, err := accept(list, sa.nextDH, sa.keys.group)
	if err != nil {
		return err
	}
	if sa.next.spiR, err = x.rekeySPI(); err != nil {
		return err
	}
	sa.next.keys = deriveKeys(s, sa.keys.d, shared, sa.nextNi, x.nonce, sa.next.spiI, sa.next.spiR)
	return nil
}
