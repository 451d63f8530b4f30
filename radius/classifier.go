package radius

import (
	"bytes"

	"github.com/aovlb/aovlb/lb"
)

// The spaces of this package's names.
const (
	// SpaceRequest holds single requests: NAS address and port, Identifier
	// and Authenticator.
	SpaceRequest lb.Space = 48 + iota
	// SpaceState holds State values; see [Classifier.Classify] for their scope.
	SpaceState
	// SpaceSession holds accounting sessions of a NAS: Acct-Session-Id.
	SpaceSession
	// SpaceUser holds users: Calling-Station-Id and User-Name.
	SpaceUser
	// SpacePort holds the ports of a NAS, for users without a name.
	SpacePort
	// SpaceNAS holds NASes.
	SpaceNAS
	spaceScope
	// SpaceClass holds Class values, where they are names: see
	// [Classifier.Class].
	SpaceClass
)

// An Identity says by what a server is picked for a user. (Once it has answered,
// a user is known by Calling-Station-Id and User-Name together.)
type Identity uint8

const (
	// ByStation is by Calling-Station-Id, and without one by User-Name. It
	// agrees for a NAS that calls its user differently in accounting. RRAS
	// sends the client's public address as Calling-Station-Id: users behind
	// one NAT are picked the same server.
	ByStation Identity = iota
	// ByStationAndName is by both together, so that users behind one NAT
	// spread.
	ByStationAndName
	// ByName is by User-Name, and without one by Calling-Station-Id: all
	// computers of a user are picked the same server.
	ByName
)

func (i Identity) String() string {
	switch i {
	case ByStation:
		return "station"
	case ByStationAndName:
		return "station and name"
	case ByName:
		return "name"
	}
	return "unknown"
}

// Classifier is the [lb.Classifier] for RADIUS that is forwarded unchanged. It
// holds no secret, so it judges form only: whether an authenticator is right is
// for the server and the NAS to say. The zero Classifier is ready for use.
//
// An Access-Request without a State may begin on any server; with one, it must
// go to the server that issued it, also while that is down: it may only have been
// held up for some seconds, and no other server can answer. Another would reject
// it (FreeRADIUS) or discard it (NPS). Where nothing is known of the State, it goes
// where a new user would.
type Classifier struct {
	// User says by what a server is picked for a user.
	User Identity
	// Class has accounting follow the Class that a server gave with its accept,
	// even if the NAS calls the user and the session differently there. It is
	// for servers that give each session a Class of its own, as NPS does; one
	// that a policy gives to many users would lead them all to one server.
	Class bool
	// AuthPort and AcctPort, if not 0, are the only listening ports to which
	// Access-Requests and Accounting-Requests may come.
	AuthPort, AcctPort uint16
	// RequireMessageAuthenticator drops Access-Requests without a
	// Message-Authenticator, of all kinds, as a defence against forged answers
	// (CVE-2024-3596). Requests with EAP must have one in any case.
	RequireMessageAuthenticator bool
}

// Why a datagram is dropped.
const (
	reasonShort     = "radius: cut off"
	reasonLength    = "radius: length isn't 20 to 4096"
	reasonAttribute = "radius: malformed attribute"
	reasonMessage   = "radius: malformed Message-Authenticator"
	reasonNoMessage = "radius: EAP-Message without Message-Authenticator"
	reasonRequire   = "radius: Access-Request without Message-Authenticator"
	reasonStatus    = "radius: Status-Server isn't forwarded"
	reasonReply     = "radius: answer sent by a client"
	reasonChange    = "radius: CoA or Disconnect on the way to a server"
	reasonCode      = "radius: unknown code"
	reasonPort      = "radius: wrong port for its code"
	reasonBackend   = "radius: not an answer"
)

func drop(reason string) lb.Verdict { return lb.Verdict{Drop: true, Reason: reason} }

// reasonOf returns the constant text for an error of Parse.
func reasonOf(err error) string {
	switch err {
	case ErrShort:
		return reasonShort
	case ErrLength:
		return reasonLength
	}
	return reasonAttribute
}

// facts are the attributes that matter here, as one walk finds them. Of an
// attribute that is there several times, the first counts. An empty one is as
// good as none.
type facts struct {
	user, station, state, session []byte
	nas, port                     []byte // the most telling of several
	class                         [maxClass][]byte
	classes                       int
	nasRank, portRank             uint8
	eap                           bool
	messages                      int // Message-Authenticators
	badMessage                    bool
}

// maxClass is how many Class attributes are looked at.
const maxClass = 4

func gather(p Packet) (f facts) {
	for at := HeaderLen; at < len(p.b); at += int(p.b[at+1]) {
		t, v := p.attribute(at)
		switch t {
		case UserName:
			keep(&f.user, v)
		case CallingStationID:
			keep(&f.station, v)
		case State:
			keep(&f.state, v)
		case AcctSessionID:
			keep(&f.session, v)
		case NASIdentifier:
			rank(&f.nas, &f.nasRank, v, 1)
		case NASIPv6Address:
			rank(&f.nas, &f.nasRank, v, 2)
		case NASIPAddress:
			rank(&f.nas, &f.nasRank, v, 3)
		case NASPortID:
			rank(&f.port, &f.portRank, v, 1)
		case NASPort:
			rank(&f.port, &f.portRank, v, 2)
		case Class:
			if f.classes < maxClass {
				f.class[f.classes] = v
				f.classes++
			}
		case EAPMessage:
			f.eap = true
		case MessageAuthenticator:
			f.messages++
			f.badMessage = f.badMessage || len(v) != 16 || f.messages > 1
		}
	}
	return f
}

func keep(to *[]byte, v []byte) {
	if len(*to) == 0 {
		*to = v
	}
}

// rank keeps v if nothing of the same or a higher rank has been found.
func rank(to *[]byte, was *uint8, v []byte, n uint8) {
	if len(v) > 0 && n > *was {
		*to, *was = v, n
	}
}

// Classify judges a datagram from a NAS. Its names are, strongest first:
//
//   - State, which only the server knows that issued it. As two servers may
//     issue the same, its Scope is the NAS, the Calling-Station-Id and the
//     User-Name. Without a State, the request itself: its address, port,
//     Identifier and Authenticator.
//   - Acct-Session-Id within the same Scope: a NAS that has been restarted
//     gives the numbers of earlier sessions to other users.
//   - in accounting, Class, if c.Class says so.
//   - the user: Calling-Station-Id and User-Name. For one without a name, such
//     as "anonymous" with no Calling-Station-Id, it is the port of the NAS; in
//     accounting, if there is none either, the NAS.
//   - Acct-Session-Id within the NAS alone, for a NAS that calls its user
//     differently in accounting.
//
// Pick is as c.User says, else that port, else the request or the NAS.
//
// Otherwise Class is no name, although a NAS repeats it in accounting: policies give
// the same Class to many users.
func (c Classifier) Classify(b []byte, f lb.Flow) lb.Verdict {
	p, err := Parse(b)
	if err != nil {
		return drop(reasonOf(err))
	}
	switch p.Code() {
	case AccessRequest:
		return c.access(p, f)
	case AccountingRequest:
		return c.accounting(p, f)
	case StatusServer:
		// It asks for the health of whom it is sent to (RFC 5997 §2).
		return drop(reasonStatus)
	case AccessAccept, AccessReject, AccessChallenge, AccountingResponse:
		return drop(reasonReply)
	case DisconnectRequest, CoARequest:
		return drop(reasonChange)
	}
	return drop(reasonCode)
}

func (c Classifier) access(p Packet, f lb.Flow) lb.Verdict {
	if c.AuthPort != 0 && f.Service != c.AuthPort {
		return drop(reasonPort)
	}
	a := gather(p)
	switch {
	case a.badMessage:
		return drop(reasonMessage)
	case a.eap && a.messages == 0: // RFC 3579 §3.2
		return drop(reasonNoMessage)
	case c.RequireMessageAuthenticator && a.messages == 0:
		return drop(reasonRequire)
	}
	nas := a.nasName(f)
	session := a.sessionKey(&nas)
	begins := len(a.state) == 0
	v := lb.Verdict{Begin: begins, Anew: begins, Bound: !begins, Miss: lb.MissPick, Exchange: exchange(p), Scope: a.scope(&nas)}
	user := a.userKey(&nas)
	v.Keys = [lb.MaxKeys]lb.Key{{}, session.In(v.Scope), user, session}
	if v.Begin {
		v.Keys[0] = requestKey(p, f)
	} else {
		v.Keys[0] = stateKey(a.state).In(v.Scope)
	}
	if v.Pick = c.pick(&a, user); v.Pick.IsZero() {
		v.Pick = v.Keys[0]
	}
	return v
}

func (c Classifier) accounting(p Packet, f lb.Flow) lb.Verdict {
	if c.AcctPort != 0 && f.Service != c.AcctPort {
		return drop(reasonPort)
	}
	a := gather(p)
	if a.badMessage {
		return drop(reasonMessage)
	}
	nas := a.nasName(f)
	session, user := a.sessionKey(&nas), a.userKey(&nas)
	v := lb.Verdict{Begin: true, Exchange: exchange(p)}
	class := c.classKey(&a)
	if !user.IsZero() {
		v.Keys = [lb.MaxKeys]lb.Key{session.In(a.scope(&nas)), user, session}
		if !class.IsZero() {
			v.Keys = [lb.MaxKeys]lb.Key{v.Keys[0], class, user, session}
		}
		v.Pick = c.pick(&a, user)
		return v
	}
	// The NAS speaks of itself (Accounting-On), or keeps its user's name.
	v.Pick = lb.HashKey(SpaceNAS, nas.bytes())
	v.Keys = [lb.MaxKeys]lb.Key{session, v.Pick, class}
	return v
}

// Answer judges a datagram from a server.
//
// A challenge, an accept and the answer to accounting are taken as proof of an
// established user, since a server answers only a NAS that it knows. Even the
// first challenge is: a conversation may wait for a person who types a code, and
// a whole gateway's conversations come from one address, to which
// [lb.Table.MaxHalfOpenPerSource] would allow a few hundred. A reject leaves
// nothing on the server but its memory of the request, so it is half-open: a
// repetition must not count as another wrong password.
func (c Classifier) Answer(b []byte, _ lb.Flow) lb.Verdict {
	p, err := Parse(b)
	if err != nil {
		return drop(reasonOf(err))
	}
	v := lb.Verdict{Exchange: exchange(p), Stage: lb.StageEstablished}
	switch p.Code() {
	case AccessAccept, AccessChallenge, AccountingResponse:
	case AccessReject:
		v.Stage = lb.StageHalfOpen
	default:
		return drop(reasonBackend)
	}
	a := gather(p)
	switch {
	case a.badMessage:
		return drop(reasonMessage)
	case a.eap && a.messages == 0: // RFC 3579 §3.2
		return drop(reasonNoMessage)
	}
	if len(a.state) > 0 {
		v.Keys[0] = stateKey(a.state).In(v.Scope)
	}
	if p.Code() == AccessAccept {
		v.Keys[1] = c.classKey(&a)
	}
	return v
}

// classKey names a session by its Class, or is zero.
func (c Classifier) classKey(a *facts) lb.Key {
	if !c.Class || a.classes == 0 {
		return lb.Key{}
	}
	return lb.HashKey(SpaceClass, a.class[:a.classes]...)
}

// exchange is the Identifier as a number that isn't zero.
func exchange(p Packet) uint16 { return uint16(p.Identifier()) + 1 }

func stateKey(state []byte) lb.Key { return lb.HashKey(SpaceState, state) }

// requestKey names a request as a server tells it from others (RFC 5080 §2.2.2).
func requestKey(p Packet, f lb.Flow) lb.Key {
	addr := f.Client.Addr().As16()
	port := [2]byte{byte(f.Client.Port() >> 8), byte(f.Client.Port())}
	return lb.HashKey(SpaceRequest, addr[:], port[:], p.b[1:2], p.b[4:20])
}

// nasName is what names a NAS: its own attribute, since its requests may come
// through a proxy or from several addresses, else its address.
type nasName struct {
	attr []byte
	addr [16]byte
}

func (n *nasName) bytes() []byte {
	if len(n.attr) > 0 {
		return n.attr
	}
	return n.addr[:]
}

func (a *facts) nasName(f lb.Flow) nasName {
	return nasName{attr: a.nas, addr: f.Client.Addr().As16()}
}

// scope is within what the names are unique that others made up for a user.
func (a *facts) scope(nas *nasName) lb.Key {
	var port []byte
	if a.nameless() {
		port = a.port
	}
	return lb.HashKey(spaceScope, nas.bytes(), a.station, a.user, port)
}

func (a *facts) sessionKey(nas *nasName) lb.Key {
	if len(a.session) == 0 {
		return lb.Key{}
	}
	return lb.HashKey(SpaceSession, nas.bytes(), a.session)
}

// nameless reports whether nothing but a port tells the user from others.
func (a *facts) nameless() bool { return len(a.station) == 0 && anonymous(a.user) }

// userKey names the user, or else the port of the NAS. It returns the zero Key
// if there is neither.
func (a *facts) userKey(nas *nasName) lb.Key {
	switch {
	case !a.nameless():
		return lb.HashKey(SpaceUser, a.station, a.user)
	case len(a.port) > 0:
		return lb.HashKey(SpacePort, nas.bytes(), a.port)
	}
	return lb.Key{}
}

// pick returns what a Picker hashes, given the user's key.
func (c Classifier) pick(a *facts, user lb.Key) lb.Key {
	name := a.user
	if anonymous(name) {
		name = nil
	}
	switch {
	case len(a.station) == 0 || (len(name) == 0 && c.User == ByStationAndName):
		return user // of one of them, or of neither
	case c.User == ByStation || len(name) == 0:
		return lb.HashKey(SpaceUser, a.station, nil)
	case c.User == ByName:
		return lb.HashKey(SpaceUser, nil, name)
	}
	return user
}

// anonymous reports whether a User-Name hides who the user is, as the outer
// identities of PEAP and EAP-TTLS may (RFC 7542 §2.4).
func anonymous(name []byte) bool {
	local, _, _ := bytes.Cut(name, []byte("@"))
	if i := bytes.LastIndexByte(local, '\\'); i >= 0 {
		local = local[i+1:]
	}
	return len(local) == 0 || bytes.EqualFold(local, []byte("anonymous"))
}
