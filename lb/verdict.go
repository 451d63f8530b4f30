package lb

// MaxKeys is how many names one [Verdict] can carry.
const MaxKeys = 4

// A Verdict is what a protocol saw in one datagram, or at the start of one
// stream.
type Verdict struct {
	// Drop says that the bytes must not be forwarded: they aren't of this
	// protocol, or they are an answer that the client must not see.
	Drop bool
	// Begin says that these bytes start a client rather than continue one.
	// Only a client that begins follows Hints.
	Begin bool
	// Anew says that these bytes need nothing that a backend remembers, even if
	// the client is known, as the first message of a new login does. Its names
	// then lead to its backend only while that takes new clients: so a backend
	// that drains loses its clients between logins, and not within one.
	Anew bool
	// Control says that these bytes are about the client's session rather than
	// what it carries: engines tell their Trace of them. It changes nothing
	// else.
	Control bool
	// Bound says that only the backend of the first of Keys can make sense of
	// these bytes: they go there even if it is down, for it may only have been
	// held up, and another could do nothing but harm. Where that Key isn't
	// known, or its backend has left the Pool, Bound doesn't count.
	Bound bool
	// Miss says what to do when none of Keys is known.
	Miss Miss
	// Stage says, of an answer, how far it proves the client to be. It is
	// not used for bytes from a client.
	Stage Stage
	// Keys are names of the client, strongest first. Zero Keys are skipped.
	Keys [MaxKeys]Key
	// Hints steer a client that begins towards the backend of another client.
	// A hint in SpaceAddr is followed only while few clients share the
	// address (see [Balancer.MaxHinted]).
	Hints [2]Key
	// Pick is what a Picker hashes; if zero, the first of Keys is.
	Pick Key
	// Exchange, if not zero, is the number that a request and its answer have
	// in common, for protocols in which many clients share one flow and have
	// requests under way at once, as RADIUS does. Engines then keep what was
	// said of each request apart, in [Exchanges]. Zero means that whatever a
	// backend sends answers the last datagram of the flow.
	Exchange uint16
	// Scope, of a request, is within what the first of the Keys of its answer
	// is unique: see [Key.In] and [Exchanges.Answered]. Zero means that it is
	// unique by itself.
	Scope Key
	// Reason says why Drop is set: constant text, without any input in it.
	Reason string
}

// A Miss says what happens to a client none of whose names is known.
type Miss uint8

const (
	// MissPick picks a backend.
	MissPick Miss = iota
	// MissAsk sends the datagram to every usable backend: the one that
	// answers owns the client. Asking is rate-limited.
	MissAsk
	// MissDrop drops the datagram: no backend could make sense of it.
	MissDrop
)

// A Stage says how much a backend's answer proves.
type Stage uint8

const (
	// StageNone proves nothing: nothing is recorded. A stateless answer, as
	// to an IKE_SA_INIT without a cookie, is of this kind.
	StageNone Stage = iota
	// StageHalfOpen is recorded for [Table.HalfOpen].
	StageHalfOpen
	// StageEstablished is recorded for [Table.Idle].
	StageEstablished
)

func (s Stage) String() string {
	switch s {
	case StageHalfOpen:
		return "half-open"
	case StageEstablished:
		return "established"
	}
	return "none"
}

// A Classifier names the client of a datagram. It is pure, must not retain b,
// must not block and must not allocate: an engine calls it for every datagram,
// from several goroutines at once.
type Classifier interface {
	// Classify judges a datagram that came from a client.
	Classify(b []byte, f Flow) Verdict
	// Answer judges a datagram that a backend sent to the client of f. In
	// the Verdict only Drop, Reason, Stage, Keys and Exchange count.
	Answer(b []byte, f Flow) Verdict
}

// A Sniffer names the client of a stream by its first bytes.
type Sniffer interface {
	// Sniff judges b, the first bytes of the stream. If it must see more, it
	// returns how many bytes more it would like, and is called again with all
	// that have come. An engine bounds how much and how long it waits, and
	// then uses the Verdict that came last.
	Sniff(b []byte, f Flow) (v Verdict, more int)
}

// ByAddr is the Classifier and Sniffer that knows no protocol: a client is its
// source address. This is what other products call source-IP persistence.
type ByAddr struct{}

// Classify names the client by its address.
func (ByAddr) Classify(_ []byte, f Flow) Verdict {
	return Verdict{Begin: true, Keys: [MaxKeys]Key{AddrKey(f.Client.Addr())}}
}

// Answer takes every datagram of a backend as proof.
func (ByAddr) Answer([]byte, Flow) Verdict { return Verdict{Stage: StageEstablished} }

// Sniff names the client by its address, without waiting for a byte.
func (c ByAddr) Sniff(b []byte, f Flow) (Verdict, int) { return c.Classify(b, f), 0 }
