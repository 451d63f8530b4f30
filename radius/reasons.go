package radius

import (
	"errors"
	"sync/atomic"

	"github.com/aovlb/aovlb/lb"
)

// Why a Proxy drops what the Classifier would let pass.
const (
	reasonUnknown    = "radius: unknown client"
	reasonSecret     = "radius: wrong authenticator: the client's secret is another, or the packet was changed"
	reasonProxyState = "radius: Proxy-State without Message-Authenticator"
	reasonClosing    = "radius: shutting down"
	reasonFull       = "radius: too many requests"
	reasonNoServer   = "radius: no server"
	reasonStatusBare = "radius: Status-Server without Message-Authenticator"

	reasonLate       = "radius: answer came too late"
	reasonStray      = "radius: answer to nothing that was asked"
	reasonAnswer     = "radius: wrong authenticator in an answer: the server's secret is another, or the packet is forged"
	reasonBareAnswer = "radius: answer without Message-Authenticator"
)

// reasonText are all reasons for dropping what a client sent.
var reasonText = [...]string{
	reasonShort, reasonLength, reasonAttribute, reasonMessage, reasonNoMessage, reasonRequire, reasonStatus,
	reasonReply, reasonChange, reasonCode, reasonPort,
	reasonUnknown, reasonSecret, reasonProxyState, reasonClosing, reasonFull, reasonNoServer, reasonStatusBare,
}

// reasonErrors are the same as errors, so that dropping allocates nothing.
var reasonErrors = func() (errs [len(reasonText)]error) {
	for i, text := range reasonText {
		errs[i] = errors.New(text)
	}
	return errs
}()

// reasons counts and warns by reason.
type reasons struct {
	n     [len(reasonText)]atomic.Uint64
	rare  [len(reasonText)]rare
	bad   rare
	spool rare
	dial  rare
}

// drop counts a packet that isn't taken, and returns why as an error. pe is nil
// if the client isn't known.
func (p *Proxy) drop(pe *peer, f lb.Flow, reason string) error {
	i := 0
	for i < len(reasonText)-1 && reasonText[i] != reason {
		i++
	}
	p.reasons.n[i].Add(1)
	name := ""
	if pe != nil {
		name = pe.Name
		pe.count.dropped.Add(1)
		if reason == reasonSecret {
			pe.count.badAuthenticator.Add(1)
		}
	}
	if p.Trace != nil && p.Trace.Dropped != nil {
		p.Trace.Dropped(name, f, reason)
	}
	if p.Logger != nil {
		p.warn(&p.reasons.rare[i], "dropped a packet", "reason", reason, "client", name, "from", f.Client)
	}
	return reasonErrors[i]
}

func (p *Proxy) badAnswer(v *server, reason string) {
	if p.Trace != nil && p.Trace.BadAnswer != nil {
		p.Trace.BadAnswer(v.name, reason)
	}
	if p.Logger != nil {
		p.warn(&p.reasons.bad, "dropped a packet of a server", "reason", reason, "backend", v.name, "port", v.port)
	}
}
