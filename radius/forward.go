package radius

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// forwardEvery is how often Forward repeats a request.
const forwardEvery = 2 * time.Second

// ErrNotSent says that a request was sent to no server.
var ErrNotSent = errors.New("radius: sent to no server")

// waiter takes the answer of a Forward.
type waiter chan []byte

// Reply hands b over.
func (w waiter) Reply(b []byte, _ lb.Flow) {
	select {
	case w <- append([]byte(nil), b...):
	default:
	}
}

func (p *Proxy) forward(ctx context.Context, client string, pkt Packet, f lb.Flow) (answer []byte, err error) {
	pe := p.clients.Load().named(client)
	switch {
	case p.state.Load() != stateServing && p.state.Load() != stateDraining:
		return nil, fmt.Errorf("%w: %w", ErrNotSent, ErrClosed)
	case pe == nil:
		return nil, fmt.Errorf("radius: forward: there is no client %q", client)
	case pkt.Code() != AccessRequest && pkt.Code() != AccountingRequest:
		return nil, fmt.Errorf("radius: forward: %v isn't a request to forward", pkt.Code())
	}
	w := make(waiter, 1)
	in := incoming{pkt: pkt, flow: f, peer: pe, via: w, own: p.count.own.Add(1)}
	defer func() {
		if sent := p.withdraw(&in); !sent && err != nil {
			err = fmt.Errorf("%w: %w", ErrNotSent, err)
		}
	}()
	for {
		v := p.Classifier.Classify(pkt.b, f)
		if v.Drop {
			return nil, fmt.Errorf("radius: forward: %s", v.Reason)
		}
		in.verdict = &v
		h := p.borrow()
		reason := p.admit(h, &in)
		p.giveBack(h)
		if reason == reasonFull {
			return nil, errors.New("radius: forward: too many requests")
		}
		select {
		case b := <-w:
			return b, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("radius: forward: no server has answered: %w", context.Cause(ctx))
		case <-p.ended:
			return nil, ErrClosed
		case <-time.After(forwardEvery):
		}
	}
}

// withdraw forgets a request of Forward, and reports whether it was sent.
func (p *Proxy) withdraw(in *incoming) (sent bool) {
	c := p.cellFor(in.flow)
	c.mu.Lock()
	defer c.mu.Unlock()
	id := requestID{from: in.flow.Client, service: in.flow.Service, id: in.pkt.b[1], acct: in.pkt.Code() == AccountingRequest, own: in.own}
	if r := c.byKey[id]; r != nil {
		sent = r.tried
		c.forget(r, p.now())
	}
	return sent
}
