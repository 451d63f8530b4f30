package ikev2

import (
	"encoding/binary"
	"fmt"

	"github.com/aovlb/aovlb/lb"
)

// The spaces of the names this package gives to clients; see [lb.Space].
const (
	// SpaceSPI holds the initiator SPIs of IKE SAs.
	SpaceSPI = lb.SpaceProtocol
	// SpaceESP holds the SPIs of ESP packets from clients.
	SpaceESP = lb.SpaceProtocol + 1
)

// SPIKey returns the name that the header SPIi of an IKE SA gives to a client.
func SPIKey(initiator SPI) lb.Key { return lb.Uint64Key(SpaceSPI, uint64(initiator)) }

// ESPKey returns the name that the SPI of its ESP packets gives to a client. Its
// gateway chose the SPI, so two gateways may choose the same: within one
// lb.Table the client heard last has it, and no table may be shared by balancers
// with other gateways.
func ESPKey(spi uint32) lb.Key { return lb.Uint64Key(SpaceESP, uint64(spi)) }

// An Affinity says what keeps a client at its gateway.
type Affinity uint8

const (
	// AffinitySPI follows the SAs of a client, wherever it sends from.
	AffinitySPI Affinity = iota
	// AffinitySource follows its address, as load balancers that don't know
	// IKE do.
	AffinitySource
)

func (a Affinity) String() string {
	switch a {
	case AffinitySPI:
		return "spi"
	case AffinitySource:
		return "source"
	}
	return fmt.Sprintf("Affinity(%d)", uint8(a))
}

// MarshalText returns the Affinity as String does.
func (a Affinity) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText accepts "spi" and "source".
func (a *Affinity) UnmarshalText(b []byte) error {
	switch string(b) {
	case "spi":
		*a = AffinitySPI
	case "source":
		*a = AffinitySource
	default:
		return fmt.Errorf("ikev2: affinity is neither %q nor %q", AffinitySPI, AffinitySource)
	}
	return nil
}

// A Classifier names the clients of IKEv2 gateways by the datagrams of UDP 500
// and 4500. The package comment shows how it decides. The zero Classifier is
// ready for use, by many goroutines at once.
type Classifier struct {
	// Affinity is what names a client.
	Affinity Affinity
}

// Classify judges a datagram from a client.
func (c Classifier) Classify(b []byte, f lb.Flow) (v lb.Verdict) {
	// A Verdict is large, and each copy of it costs as much as all else here.
	// Being no more than this, Classify becomes part of who calls it, so that
	// the Verdict is filled where the caller has it.
	c.classify(&v, b, f)
	return v
}

func (c Classifier) classify(v *lb.Verdict, b []byte, f lb.Flow) {
	kind, msg, reason := identify(b, f.Service)
	if kind == KindIKE {
		reason = unfit(msg)
		v.Control = reason == ""
	}
	switch {
	case reason != "":
		v.Drop, v.Reason = true, reason
	case c.Affinity == AffinitySource:
		v.Begin = true
		v.Keys[0] = lb.AddrKey(f.Client.Addr())
	case kind == KindESP:
		v.Miss = lb.MissAsk
		v.Keys[0], v.Keys[1] = lb.FlowKey(f), ESPKey(binary.BigEndian.Uint32(b))
	case kind == KindKeepalive:
		v.Miss = lb.MissDrop
		v.Keys[0] = lb.FlowKey(f)
	default:
		classifyIKE(v, msg, f)
	}
}

// header fields at their offsets; the message is at least HeaderLen long.
func initiatorSPI(msg []byte) SPI      { return SPI(binary.BigEndian.Uint64(msg)) }
func responderSPI(msg []byte) SPI      { return SPI(binary.BigEndian.Uint64(msg[8:])) }
func exchange(msg []byte) ExchangeType { return ExchangeType(msg[18]) }
func isResponse(msg []byte) bool       { return Flags(msg[19])&FlagResponse != 0 }

// protected reports whether only who has the keys could have made msg.
func protected(msg []byte) bool {
	return PayloadType(msg[16]) == PayloadSK || PayloadType(msg[16]) == PayloadSKF
}

// begins reports whether the exchange is one that makes an SA out of nothing.
func begins(msg []byte) bool {
	return exchange(msg) == ExchangeSAInit || exchange(msg) == ExchangeSessionResume
}

// unfit returns why an IKE message can't be from a client, or "".
func unfit(msg []byte) string {
	switch {
	case initiatorSPI(msg) == 0:
		return reasonNoSPI
	case begins(msg) && !isResponse(msg) && responderSPI(msg) != 0:
		return reasonNotFirst
	}
	return ""
}

func classifyIKE(v *lb.Verdict, msg []byte, f lb.Flow) {
	if begins(msg) && !isResponse(msg) {
		// A flow is shared by the device tunnel and the user tunnel of one
		// computer, and by ESP nobody can tell them apart: hence the hints. A
		// retry with a cookie must reach the gateway that made the cookie: it
		// keeps its SPI, so that is what is hashed.
		v.Begin = true
		v.Keys[0] = SPIKey(initiatorSPI(msg))
		v.Pick = v.Keys[0]
		v.Hints[0], v.Hints[1] = f.Keys()
		return
	}
	spi, flow := SPIKey(initiatorSPI(msg)), lb.FlowKey(f)
	switch {
	case responderSPI(msg) == 0 && !begins(msg):
		// It belongs to no SA, so its SPI names nobody.
		v.Miss = lb.MissDrop
		v.Keys[0] = flow
	case !isResponse(msg) && protected(msg):
		// Its owner would answer.
		v.Miss = lb.MissAsk
		v.Keys[0], v.Keys[1] = spi, flow
	default:
		// To a response or to what isn't protected nobody would answer, so
		// asking would find no owner.
		v.Miss = lb.MissDrop
		v.Keys[0], v.Keys[1] = spi, flow
	}
}

// Answer judges a datagram from a gateway to a client.
func (c Classifier) Answer(b []byte, f lb.Flow) (v lb.Verdict) {
	c.answer(&v, b, f) // as Classify does
	return v
}

func (c Classifier) answer(v *lb.Verdict, b []byte, f lb.Flow) {
	kind, msg, reason := identify(b, f.Service)
	switch kind {
	case KindNone:
		v.Drop, v.Reason = true, reason
	case KindESP:
		v.Stage = lb.StageEstablished
		v.Keys[0] = c.flowKey(f)
	case KindIKE:
		if c.Affinity == AffinitySPI && !begins(msg) && !protected(msg) {
			// INVALID_IKE_SPI and INVALID_SPI: what gateways that were asked
			// in vain may say. A client must not believe them anyway (RFC
			// 7296 §2.4), and to the Balancer they prove nothing.
			v.Drop, v.Reason = true, reasonUnsafe
			break
		}
		v.Stage, v.Control = stage(msg), true
		switch {
		case v.Stage == lb.StageNone:
		case c.Affinity == AffinitySource:
			v.Keys[0] = lb.AddrKey(f.Client.Addr())
		default:
			// The SPI comes first: a gateway only speaks of SAs that it has,
			// so the SPI is proof; who has the flow may have changed.
			v.Keys[0], v.Keys[1] = SPIKey(initiatorSPI(msg)), lb.FlowKey(f)
		}
	case KindKeepalive:
	}
}

// flowKey names the client of an ESP packet to f.
func (c Classifier) flowKey(f lb.Flow) lb.Key {
	if c.Affinity == AffinitySource {
		return lb.AddrKey(f.Client.Addr())
	}
	return lb.FlowKey(f)
}

// stage returns how far a gateway's IKE message proves the client to be.
func stage(msg []byte) lb.Stage {
	switch {
	case initiatorSPI(msg) == 0 || responderSPI(msg) == 0:
		// COOKIE, INVALID_KE_PAYLOAD, NO_PROPOSAL_CHOSEN, REDIRECT, or a
		// gateway's own first message: it keeps no state that the client
		// must come back to.
		return lb.StageNone
	case begins(msg):
		// Some gateways put a responder SPI into refusals too: only an answer
		// with a nonce makes an SA.
		if isResponse(msg) && hasNonce(msg) {
			return lb.StageHalfOpen
		}
		return lb.StageNone
	case !protected(msg):
		return lb.StageNone
	case exchange(msg) == ExchangeIntermediate, unfinished(msg):
		return lb.StageHalfOpen
	}
	return lb.StageEstablished
}

// unfinished reports whether a protected message is an answer in IKE_AUTH that
// can't have made a tunnel, by all of it that isn't encrypted. A step of EAP begins
// with EAP, while the answer before the first begins with the gateway's name, and
// the one that makes the tunnel with the name or AUTH (RFC 7296 §2.16).
func unfinished(msg []byte) bool {
	return exchange(msg) == ExchangeAuth && isResponse(msg) && (firstInside(msg) == PayloadEAP || refuses(msg))
}

// refuses reports whether msg looks like the answer in IKE_AUTH that refuses a
// client: a Notify and little else.
func refuses(msg []byte) bool {
	return exchange(msg) == ExchangeAuth && isResponse(msg) && len(msg) < minFinalAuth && firstInside(msg) == PayloadNotify
}

// firstInside returns which kind of payload comes first in an encrypted message;
// none in all IKE fragments but the first (RFC 7383 §2.5).
func firstInside(msg []byte) PayloadType {
	if len(msg) < HeaderLen+payloadHeaderLen || !protected(msg) {
		return PayloadNone
	}
	return PayloadType(msg[HeaderLen])
}

func hasNonce(msg []byte) bool {
	w := Walker{rest: msg[HeaderLen:], next: PayloadType(msg[16]), at: HeaderLen}
	for w.Next() {
		if w.Payload.Type == PayloadNonce {
			return true
		}
	}
	return false
}
