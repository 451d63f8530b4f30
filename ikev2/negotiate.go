package ikev2

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Policy is what one side offers or accepts.
type Policy struct {
	// Name is what people call it.
	Name string
	// Note says where it comes from, or what it is for.
	Note string
	// IKE are its proposals for IKE SAs, the preferred one first.
	IKE []Proposal
	// ESP are its proposals for the packets of the tunnel. A key exchange in
	// them is perfect forward secrecy: see [NegotiateChild].
	ESP []Proposal
	// PreferOffer says that, as responder, it takes the first proposal of the
	// other side that it accepts at all, as RRAS does. Otherwise it takes the
	// first of its own, as strongSwan does unless told otherwise.
	PreferOffer bool
	// Custom is what it is made of, if it is a custom policy of Windows.
	Custom *CustomPolicy
}

// A Negotiation is what becomes of an offer.
type Negotiation struct {
	// OK says that there is a suite.
	OK bool
	// Suite is what the responder chooses.
	Suite Suite
	// Offered and Accepted are the places, from 0, of the proposals that met, in
	// the offer and in the policy. They mean nothing unless OK.
	Offered, Accepted int
	// Misses say, for each proposal of the offer, why the proposal of the policy
	// that comes closest doesn't fit; closest first. There are none if OK.
	Misses []Miss
}

// A Miss says why a proposal of an offer doesn't meet one of a policy.
type Miss struct {
	// Offered and Accepted are their places, from 0.
	Offered, Accepted int
	// Proposal is the offered one.
	Proposal Proposal
	// Faults are the types of algorithms of which they have none in common.
	Faults []Fault
}

// A Fault is one type of algorithm that both sides want different ones of.
type Fault struct {
	// Type is what they differ in; 0 if one is for ESP and the other isn't.
	Type TransformType
	// Offered and Accepted are what each would take; one of them may be empty:
	// then one side wants such an algorithm and the other none.
	Offered, Accepted []Transform
}

// String says which algorithms didn't meet.
func (f Fault) String() string {
	if f.Type == 0 {
		return "it is for another protocol"
	}
	return fmt.Sprintf("%v: offered %s, accepted %s", f.Type, list(f.Offered), list(f.Accepted))
}

func list(ts []Transform) string {
	if len(ts) == 0 {
		return "none"
	}
	var s strings.Builder
	for i, t := range ts {
		switch {
		case i > 0 && i == len(ts)-1:
			s.WriteString(" or ")
		case i > 0:
			s.WriteString(", ")
		}
		s.WriteString(t.String())
	}
	return s.String()
}

// Windows says the fault in the words of Windows' settings, as in "DHGroup: the
// client has Group2, the server wants Group14"; "" if a setting has no word for
// either side. protocol is what the proposals are for.
func (f Fault) Windows(protocol ProtocolID) string {
	setting, ok := settingOf(protocol, f.Type)
	if !ok {
		return ""
	}
	has, wants := windowsWords(setting, f.Offered), windowsWords(setting, f.Accepted)
	if has == "" || wants == "" {
		return ""
	}
	return fmt.Sprintf("%v: the client has %s, the server wants %s", setting, has, wants)
}

// settingOf returns the setting that decides about algorithms of a type.
func settingOf(p ProtocolID, kind TransformType) (Setting, bool) {
	ike := p == ProtocolIKE
	switch kind {
	case TransformEncr:
		if ike {
			return SettingEncryption, true
		}
		return SettingCipherTransform, true
	case TransformInteg, TransformPRF:
		if ike {
			return SettingIntegrity, true
		}
		return SettingAuthenticationTransform, true
	case TransformKE:
		if ike {
			return SettingDHGroup, true
		}
		return SettingPFSGroup, true
	}
	return 0, false
}

// windowsWords returns PowerShell's words for algorithms.
func windowsWords(s Setting, ts []Transform) string {
	if len(ts) == 0 {
		if s == SettingPFSGroup {
			return "None"
		}
		return ""
	}
	var words []string
	for _, t := range ts {
		for _, v := range WindowsValues() {
			if v.Setting == s && slices.Contains(v.Transforms, t) {
				words = append(words, v.PowerShell)
			}
		}
	}
	return strings.Join(words, " or ")
}

// Answer returns how a responder answers an IKE_SA_INIT whose key exchange is of
// group guess: INVALID_KE_PAYLOAD if the suite needs another group.
func (n Negotiation) Answer(guess Group) AnswerKind {
	switch {
	case !n.OK:
		return AnswerNoProposal
	case n.Suite.KE != guess:
		return AnswerInvalidKE
	}
	return AnswerSA
}

// String says what is chosen, or what doesn't meet in the proposal that comes
// closest.
func (n Negotiation) String() string {
	switch {
	case n.OK:
		return n.Suite.String()
	case len(n.Misses) == 0:
		return "NO_PROPOSAL_CHOSEN: one side has no proposal at all"
	}
	m := n.Misses[0]
	var s strings.Builder
	fmt.Fprintf(&s, "NO_PROPOSAL_CHOSEN (error 13868 or 800): of %d proposals number %d comes closest, but ", len(n.Misses), m.Offered+1)
	for i, f := range m.Faults {
		if i > 0 {
			s.WriteString("; ")
		}
		s.WriteString(f.String())
	}
	return s.String()
}

// Negotiate predicts what a responder with this policy makes of the proposals in
// an IKE_SA_INIT.
func Negotiate(offer []Proposal, policy Policy) Negotiation {
	return negotiate(offer, policy.IKE, policy.PreferOffer, false)
}

// NegotiateChild predicts what a responder with this policy makes of the
// proposals for ESP. The first child SA, which comes with the IKE_AUTH exchange,
// never has a key exchange of its own: so a difference in PFS is first noticed
// when the child SA is renewed, hours later. initial says that it is the first.
func NegotiateChild(offer []Proposal, policy Policy, initial bool) Negotiation {
	return negotiate(offer, policy.ESP, policy.PreferOffer, initial)
}

func negotiate(offer, accept []Proposal, preferOffer, skipKE bool) Negotiation {
	outer, inner := accept, offer
	if preferOffer {
		outer, inner = offer, accept
	}
	for i := range outer {
		for j := range inner {
			s, ok := meet(outer[i], inner[j], skipKE)
			if !ok {
				continue
			}
			n := Negotiation{OK: true, Suite: s, Accepted: i, Offered: j}
			if preferOffer {
				n.Accepted, n.Offered = j, i
			}
			return n
		}
	}
	return Negotiation{Misses: misses(offer, accept, skipKE)}
}

// misses returns the closest miss of each proposal of the offer.
func misses(offer, accept []Proposal, skipKE bool) []Miss {
	var out []Miss
	if len(accept) == 0 {
		return nil
	}
	for i := range offer {
		best := Miss{Offered: i, Proposal: offer[i]}
		for j := range accept {
			f := faults(offer[i], accept[j], skipKE)
			if best.Faults == nil || distance(f) < distance(best.Faults) {
				best.Accepted, best.Faults = j, f
			}
		}
		out = append(out, best)
	}
	slices.SortStableFunc(out, func(a, b Miss) int { return cmp.Compare(distance(a.Faults), distance(b.Faults)) })
	return out
}

// distance says how far two proposals are from meeting. Another cipher is worse
// than another key length, and both are worse than another hash or group.
func distance(faults []Fault) int {
	n := 0
	for _, f := range faults {
		n += 10
		if f.Type == TransformEncr && !slices.ContainsFunc(f.Offered, func(o Transform) bool {
			return slices.ContainsFunc(f.Accepted, func(a Transform) bool { return a.ID == o.ID })
		}) {
			n += 5
		}
	}
	return n
}

// negotiated are the types in the order in which they are looked at.
var negotiated = [...]TransformType{
	TransformEncr, TransformInteg, TransformPRF, TransformKE, TransformESN, TransformAddKE1, TransformAddKE2,
	TransformAddKE3, TransformAddKE4, TransformAddKE5, TransformAddKE6, TransformAddKE7,
}

// meet returns the suite of two proposals: of each type the first of a's
// algorithms that b has too.
func meet(a, b Proposal, skipKE bool) (Suite, bool) {
	if a.Protocol != b.Protocol {
		return Suite{}, false
	}
	s := Suite{Protocol: a.Protocol}
	for _, kind := range negotiated {
		if skipKE && kind.keyExchange() || kind == TransformInteg && aead(s.Encr) {
			continue
		}
		t, found, ok := common(a, b, kind, s)
		if !ok {
			return Suite{}, false
		}
		if found {
			s.set(t)
		}
	}
	return s, true
}

// common returns the first algorithm of a type in a that is in b too. It is ok to
// have none if neither has any, or if who has one could do without it: an
// optional key exchange among whose choices is NONE.
func common(a, b Proposal, kind TransformType, s Suite) (t Transform, found, ok bool) {
	as, bs := a.of(kind), b.of(kind)
	if kind == TransformInteg {
		as, bs = slices.DeleteFunc(as, none), slices.DeleteFunc(bs, none)
	}
	optional := kind.keyExchange() && (kind != TransformKE || s.Protocol != ProtocolIKE)
	switch {
	case len(as) == 0 && len(bs) == 0:
		return t, false, true
	case len(as) == 0:
		return t, false, optional && slices.ContainsFunc(bs, none)
	case len(bs) == 0:
		return t, false, optional && slices.ContainsFunc(as, none)
	}
	for _, t := range as {
		if kind != TransformKE && kind.keyExchange() && s.uses(Group(t.ID)) {
			continue // RFC 9370 §2.2.1: no method twice
		}
		if slices.Contains(bs, t) {
			return t, true, true
		}
	}
	return t, false, false
}

// uses reports whether g is one of the key exchanges of s.
func (s *Suite) uses(g Group) bool {
	return g != GroupNone && (s.KE == g || slices.Contains(s.AddKE[:], g))
}

func none(t Transform) bool { return t.ID == 0 }

// of returns the algorithms of one type.
func (p Proposal) of(kind TransformType) []Transform {
	var ts []Transform
	for _, t := range p.Transforms {
		if t.Type == kind {
			ts = append(ts, t)
		}
	}
	return ts
}

// faults returns what keeps two proposals from meeting.
func faults(offer, accept Proposal, skipKE bool) []Fault {
	if offer.Protocol != accept.Protocol {
		return []Fault{{}}
	}
	var out []Fault
	s := Suite{Protocol: offer.Protocol}
	combined := func(p Proposal) bool {
		ts := p.of(TransformEncr)
		return len(ts) > 0 && !slices.ContainsFunc(ts, func(t Transform) bool { return !aead(t.ID) })
	}
	for _, kind := range negotiated {
		if skipKE && kind.keyExchange() {
			continue
		}
		// If the ciphers don't meet, that one brings its own integrity check
		// and the other doesn't is no news.
		if kind == TransformInteg && (aead(s.Encr) || s.Encr == 0 && combined(offer) != combined(accept)) {
			continue
		}
		t, found, ok := common(accept, offer, kind, s)
		if !ok {
			out = append(out, Fault{Type: kind, Offered: offer.of(kind), Accepted: accept.of(kind)})
		}
		if found {
			s.set(t)
		}
	}
	return out
}
