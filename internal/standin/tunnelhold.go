package standin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
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
		head := sa.header(0, false, 0)
		t.ask(sa, askMove, exInform, []payload{
			notify(ntUpdateAddresses, nil),
			notify(ntNATSource, natHash(head, nil, 0)),
			notify(ntNATDest, natHash(head, t.machine.NATT.Addr().AsSlice(), t.machine.NATT.Port())),
		})
	case t.wantRekey.Swap(false):
		if err := t.startRekey(sa); err != nil && t.Logger != nil {
			t.Logger.Info("no rekey", "client", t.Name, "error", err)
		}
	case now.Sub(sa.heard) >= t.patience():
		t.ask(sa, askAlive, exInform, nil)
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
func (t *Tunnel) ask(sa *clientSA, kind requestKind, exchange uint8, list []payload) {
	id, wire := sa.request(exchange, list, 0)
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
	if h.response() {
		if sa.pending != nil && h.id == sa.pending.id {
			kind := sa.pending.kind
			sa.pending, sa.heard = nil, time.Now()
			return t.answered(sa, kind, list)
		}
		return nil
	}
	return t.requested(sa, h, list)
}

// requested answers a request of the gateway.
func (t *Tunnel) requested(sa *clientSA, h ikeHeader, list []payload) error {
	if h.exchange != exInform || h.id > sa.recvID {
		return nil
	}
	sa.recvID = h.id + 1
	sa.heard = time.Now()
	t.machine.send(mark([][]byte{sa.keys.seal(sa.header(exInform, true, h.id), nil, true)}), true)
	if find(list, plDelete) != nil {
		return errDeleted
	}
	return nil
}

// answered goes on after a request was answered.
func (t *Tunnel) answered(sa *clientSA, kind requestKind, list []payload) error {
	if n, ok := failure(list); ok {
		return fmt.Errorf("standin: refused with notification %d", n)
	}
	switch kind {
	case askMove:
		t.note(func(s *TunnelStatus) { s.Moves++ })
	case askRekey:
		if err := sa.finishNext(list); err != nil {
			return err
		}
		t.machine.listen(t, sa.next.own(), sa.in.spi)
		t.ask(sa, askDelete, exInform, []payload{{plDelete, []byte{protoIKE, 0, 0, 0}}})
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
	t.ask(sa, askRekey, exChild, []payload{
		{plSA, appendSA(t.offer(sa.keys.group, binary.BigEndian.AppendUint64(nil, sa.next.spiI)))},
		{plNonce, sa.nextNi},
		{plKE, keBody(sa.keys.group, own.public)},
	})
	return nil
}

// finishNext makes the keys of the SA that replaces this one.
func (sa *clientSA) finishNext(list []payload) error {
	chosen, err := parseSA(find(list, plSA))
	ke, nr := find(list, plKE), find(list, plNonce)
	if err != nil || len(chosen) != 1 || len(chosen[0].spi) != 8 || len(ke) < 4 || len(nr) < 16 {
		return errMalformed
	}
	s, _, ok := choose(chosen, []uint16{sa.keys.group})
	if !ok {
		return errors.New("standin: the gateway chose what was not offered")
	}
	shared, err := sa.nextDH.shared(ke[4:])
	if err != nil {
		return err
	}
	sa.next.spiR = binary.BigEndian.Uint64(chosen[0].spi)
	sa.next.keys = deriveKeys(s, sa.keys.d, shared, sa.nextNi, nr, sa.next.spiI, sa.next.spiR)
	return nil
}
