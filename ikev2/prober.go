package ikev2

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The defaults of a Prober.
const (
	// DefaultRetransmit is after how long the first retransmission comes.
	DefaultRetransmit = 500 * time.Millisecond
	// DefaultTimeout bounds a probe whose context has no deadline.
	DefaultTimeout = 5 * time.Second
	// DefaultDecoy is a group that gateways don't choose: it has been
	// deprecated since RFC 8247, and RRAS never had it.
	DefaultDecoy = GroupMODP1024S160
)

// A Prober asks an IKEv2 gateway whether it serves, by a real IKE_SA_INIT that
// leaves nothing behind: the key exchange is of a group that is offered but that
// the gateway won't choose, so it has to ask for another one by
// INVALID_KE_PAYLOAD. By then it has read the message and accepted a proposal,
// and keeps no state. A plain IKE_SA_INIT would leave a half-open SA each time,
// of which a gateway takes few from one address before it falls silent.
//
// Every well-formed answer to the question proves that the gateway lives. The
// zero Prober is ready for use, by many goroutines at once.
type Prober struct {
	// Proposals are offered; nil means DefaultProposals. The decoy group is
	// added to each.
	Proposals []Proposal
	// Decoy is the group of the key exchange; 0 means DefaultDecoy. It must be
	// one that the gateway doesn't choose.
	Decoy Group
	// Strict fails a gateway that refuses all proposals: it lives, but its
	// policy isn't what was expected.
	Strict bool
	// Complete goes on after INVALID_KE_PAYLOAD with the group that the gateway
	// wants, and so learns the suite, the vendor and whether it takes
	// fragments. This leaves a half-open SA on the gateway for some thirty
	// seconds, so it isn't for checks that repeat.
	Complete bool
	// Exact offers Proposals as they are, as a client does: without a decoy, with
	// a key exchange of Guess. A gateway that accepts keeps a half-open SA for
	// some thirty seconds, so this isn't for checks that repeat either.
	Exact bool
	// Guess is the group of the key exchange with Exact; 0 means the first one
	// that the proposals name.
	Guess Group
	// Marker precedes messages with the non-ESP marker. Towards port 4500 that
	// is done anyway.
	Marker bool
	// Retransmit is after how long the question is first repeated; the time
	// doubles with each repetition. 0 means DefaultRetransmit.
	Retransmit time.Duration
	// Local is the address to ask from; the system chooses if it is zero.
	Local netip.Addr
}

// An AnswerKind says how a gateway answered an IKE_SA_INIT.
type AnswerKind uint8

const (
	// AnswerNone is no answer.
	AnswerNone AnswerKind = iota
	// AnswerInvalidKE wants another group: a proposal was accepted.
	AnswerInvalidKE
	// AnswerSA accepted a proposal and the key exchange.
	AnswerSA
	// AnswerCookie wants its cookie back and was silent when it got it: the
	// gateway defends itself against too many half-open SAs.
	AnswerCookie
	// AnswerNoProposal refused all proposals.
	AnswerNoProposal
	// AnswerNotify is another notification.
	AnswerNotify
)

var answerNames = [...]string{"none", "INVALID_KE_PAYLOAD", "SA", "COOKIE", "NO_PROPOSAL_CHOSEN", "other notification"}

func (a AnswerKind) String() string {
	if int(a) < len(answerNames) {
		return answerNames[a]
	}
	return fmt.Sprintf("AnswerKind(%d)", uint8(a))
}

// MarshalText returns the AnswerKind as String does.
func (a AnswerKind) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// A Result is what a Prober found out.
type Result struct {
	// Answer is how the gateway answered, at last.
	Answer AnswerKind
	// Notify is its notification, if it answered by one.
	Notify NotifyType
	// Group is the group it wants, after AnswerInvalidKE or before AnswerSA; 0
	// if it hasn't said.
	Group Group
	// Suite is what it chose, with AnswerSA.
	Suite Proposal
	// Cookie says that it asked for a cookie.
	Cookie bool
	// Fragments says that it takes IKE fragments (RFC 7383), with AnswerSA.
	Fragments bool
	// Vendors are its vendor IDs: most gateways send them with AnswerSA only.
	Vendors []VendorID
	// Notifies are the types of all its notifications, in its order.
	Notifies []NotifyType
	// Authorities is how many certificate authorities it says it trusts.
	Authorities int
	// NAT says whether addresses are translated on the way, with AnswerSA.
	NAT NAT
	// RoundTrip is the time from the last question to the last answer. After a
	// retransmission it may be to the question before.
	RoundTrip time.Duration
	// Sent is how many datagrams were sent.
	Sent int
}

// A NAT says which addresses are translated between here and a gateway, as far as
// the gateway's own view of them tells.
type NAT uint8

const (
	// NATUnknown is that the gateway didn't say.
	NATUnknown NAT = iota
	// NATNone is that nobody changes addresses.
	NATNone
	// NATHere is that the address of this side is changed.
	NATHere
	// NATThere is that the gateway has another address than the one asked, as
	// behind most load balancers.
	NATThere
	// NATBoth is that both addresses are changed.
	NATBoth
)

var natNames = [...]string{"unknown", "none", "here", "at the gateway", "at both ends"}

func (n NAT) String() string {
	if s := nameFrom(natNames[:], int(n), 0); s != "" {
		return s
	}
	return fmt.Sprintf("NAT(%d)", uint8(n))
}

// MarshalText returns the NAT as String does.
func (n NAT) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// String describes the Result in one line.
func (r Result) String() string {
	var s strings.Builder
	s.WriteString(r.Answer.String())
	switch r.Answer {
	case AnswerInvalidKE:
		fmt.Fprintf(&s, ": accepts a proposal, with group %v", r.Group)
	case AnswerSA:
		fmt.Fprintf(&s, ": %v", r.Suite)
		if !r.Fragments {
			s.WriteString(", without IKE fragments")
		}
	case AnswerNoProposal:
		s.WriteString(": accepts none of the proposals")
	case AnswerNotify:
		fmt.Fprintf(&s, ": %v", r.Notify)
	default:
	}
	fmt.Fprintf(&s, " (%v)", r.RoundTrip.Round(10*time.Microsecond))
	return s.String()
}

// DefaultProposals offers what Windows, RRAS and other gateways of Always On VPN
// are usually given, strong suites first and the weak defaults of Windows last.
func DefaultProposals() []Proposal {
	encr := func(id uint16, bits ...uint16) (ts []Transform) {
		for _, n := range bits {
			ts = append(ts, Transform{TransformEncr, id, n})
		}
		return ts
	}
	list := func(t TransformType, ids ...uint16) (ts []Transform) {
		for _, id := range ids {
			ts = append(ts, Transform{t, id, 0})
		}
		return ts
	}
	prf := list(TransformPRF, PRFHMACSHA256, PRFHMACSHA384, PRFHMACSHA512, PRFHMACSHA1)
	groups := list(TransformKE, uint16(GroupECP256), uint16(GroupECP384), uint16(GroupMODP2048), uint16(GroupX25519),
		uint16(GroupECP521), uint16(GroupMODP3072), uint16(GroupMODP4096), uint16(GroupMODP2048S256), uint16(GroupMODP1024))
	integ := list(TransformInteg, IntegHMACSHA256, IntegHMACSHA384, IntegHMACSHA512, IntegHMACSHA1)
	old := append(encr(Encr3DES, 0), list(TransformInteg, IntegHMACSHA1, IntegHMACSHA256, IntegHMACSHA384)...)
	return []Proposal{
		{Number: 1, Protocol: ProtocolIKE, Transforms: slices.Concat(encr(EncrAESGCM16, 256, 128), prf, groups)},
		{Number: 2, Protocol: ProtocolIKE, Transforms: slices.Concat(encr(EncrAESCBC, 256, 192, 128), integ, prf, groups)},
		{Number: 3, Protocol: ProtocolIKE, Transforms: slices.Concat(old, prf, groups)},
	}
}

// Probe reports whether the gateway lives: nil if it answered.
func (p Prober) Probe(ctx context.Context, target netip.AddrPort) error {
	r, err := p.Ask(ctx, target)
	if err != nil {
		return err
	}
	if p.Strict && r.Answer == AnswerNoProposal {
		return fmt.Errorf("ikev2: %v: lives, but refused all proposals (NO_PROPOSAL_CHOSEN): its IKE policy isn't the expected one, clients would fail with error 13868 or 800", target)
	}
	return nil
}

// Ask asks the gateway at target and says what was found. The error, if there
// was no answer, says what came instead.
func (p Prober) Ask(ctx context.Context, target netip.AddrPort) (Result, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	var d net.Dialer
	if p.Local.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.Local, 0))
	}
	conn, err := d.DialContext(ctx, "udp", target.String())
	if err != nil {
		return Result{}, fmt.Errorf("ikev2: %v: %w", target, err)
	}
	defer conn.Close()
	// A deadline in the past is how Read learns that ctx is over.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	q := &question{Prober: p, ctx: ctx, conn: conn, target: target, group: p.guess()}
	q.newSA()
	err = q.run()
	return q.result, err
}

// Ports is what a Prober found at the two ports of a gateway.
type Ports struct {
	// IKE is the result at port 500, NATT that at 4500.
	IKE, NATT Result
	// IKEErr and NATTErr say why there is none.
	IKEErr, NATTErr error
}

// String says which ports answer, and what a client makes of it.
func (p Ports) String() string {
	switch {
	case p.IKEErr == nil && p.NATTErr == nil:
		return "ports 500 and 4500 answer"
	case p.IKEErr == nil:
		return "port 500 answers but 4500 doesn't: clients get through the first exchange and then fail with error 809; let UDP 4500 through"
	case p.NATTErr == nil:
		return "port 4500 answers but 500 doesn't: clients start there, and fail with error 809; let UDP 500 through"
	}
	return "neither port 500 nor 4500 answers: clients fail with error 809"
}

// AskPorts asks a gateway on both ports at the same time. The question to port
// 4500 is never completed, so at most one half-open SA is left.
func (p Prober) AskPorts(ctx context.Context, gateway netip.Addr) Ports {
	var out Ports
	gentle := p
	gentle.Complete, gentle.Exact = false, false
	var wg sync.WaitGroup
	wg.Go(func() { out.NATT, out.NATTErr = gentle.Ask(ctx, netip.AddrPortFrom(gateway, PortNATT)) })
	out.IKE, out.IKEErr = p.Ask(ctx, netip.AddrPortFrom(gateway, Port))
	wg.Wait()
	return out
}

func (p Prober) decoy() Group {
	if p.Decoy != 0 {
		return p.Decoy
	}
	return DefaultDecoy
}

// guess returns the group of the first key exchange.
func (p Prober) guess() Group {
	if !p.Exact {
		return p.decoy()
	}
	if p.Guess != GroupNone {
		return p.Guess
	}
	if g := firstGroup(p.proposals()); g != GroupNone {
		return g
	}
	return p.decoy()
}

// firstGroup returns the group that comes first in proposals.
func firstGroup(ps []Proposal) Group {
	for _, p := range ps {
		if ts := p.of(TransformKE); len(ts) > 0 {
			return Group(ts[0].ID)
		}
	}
	return GroupNone
}

func (p Prober) proposals() []Proposal {
	if p.Proposals == nil {
		return DefaultProposals()
	}
	return p.Proposals
}

// offer returns the proposals as they are sent: with the decoy group in each,
// unless they are to be exact.
func (p Prober) offer() []Proposal {
	ps := p.proposals()
	if p.Exact {
		return ps
	}
	ps = slices.Clone(ps)
	decoy := Transform{Type: TransformKE, ID: uint16(p.decoy())}
	for i := range ps {
		if !slices.Contains(ps[i].Transforms, decoy) {
			ps[i].Transforms = append(slices.Clip(ps[i].Transforms), decoy)
		}
	}
	return ps
}

// question is one probe on its way:
//
//	          ┌─ COOKIE: again, with it ──┐
//	IKE_SA_INIT ─▶ answer ─┼─ INVALID_KE_PAYLOAD: done, or if Complete again, with that group
//	     ▲                 └─ anything else: done
//	     └─ silence: the same again, later
type question struct {
	Prober
	ctx    context.Context
	conn   net.Conn
	target netip.AddrPort
	result Result

	spi     SPI
	nonce   []byte
	group   Group
	public  []byte // of group
	cookie  []byte
	strange error // the last thing that came and was no answer
}

// maxTurns bounds the answers that lead to another question.
const maxTurns = 4

func (q *question) run() error {
	for range maxTurns {
		if q.public == nil {
			pub, err := publicValue(q.group)
			if err != nil {
				return fmt.Errorf("ikev2: %v: %w", q.target, err)
			}
			q.public = pub
		}
		m, ok, err := q.exchange()
		if !ok || q.judge(m) {
			return err
		}
	}
	return nil
}

// newSA takes a new initiator SPI and nonce.
func (q *question) newSA() {
	var b [8 + 32]byte
	_, _ = rand.Read(b[:]) // never fails
	q.spi, q.nonce = SPI(binary.BigEndian.Uint64(b[:])|1), b[8:]
}

// message makes the IKE_SA_INIT, which Windows' own resembles.
func (q *question) message() []byte {
	var ps []Payload
	if q.cookie != nil {
		ps = append(ps, NotifyPayload(NotifyCookie, q.cookie))
	}
	ps = append(ps,
		Payload{Type: PayloadSA, Body: AppendSA(nil, q.offer()...)},
		Payload{Type: PayloadKE, Body: AppendKE(nil, KeyExchange{Group: q.group, Data: q.public})},
		Payload{Type: PayloadNonce, Body: q.nonce},
		NotifyPayload(NotifyFragmentationSupported, nil),
		NotifyPayload(NotifyNATDetectionSource, q.natDetection(q.conn.LocalAddr())),
		NotifyPayload(NotifyNATDetectionDest, q.natDetection(q.conn.RemoteAddr())),
	)
	if slices.ContainsFunc(q.offer(), func(p Proposal) bool {
		return slices.ContainsFunc(p.Transforms, func(t Transform) bool { return t.Type >= TransformAddKE1 && t.Type <= TransformAddKE7 })
	}) {
		ps = append(ps, NotifyPayload(NotifyIntermediateSupported, nil)) // RFC 9370 needs it
	}
	var b []byte
	if q.Marker || q.target.Port() == PortNATT {
		b = AppendMarker(b)
	}
	return AppendMessage(b, Header{SPIi: q.spi, Exchange: ExchangeSAInit, Flags: FlagInitiator}, ps...)
}

// WindowsInit returns the first message of a Windows client, octet for octet but
// for what is random or depends on addresses: its proposals, key exchange,
// notifications and vendor IDs in its order. The key exchange is of the first
// group that the proposals name, and no secret belongs to it. fragments adds
// IKEV2_FRAGMENTATION_SUPPORTED, as Windows 10 1803 and later do. A nonce of
// Windows has 48 octets.
func WindowsInit(spi SPI, nonce []byte, proposals []Proposal, fragments bool) []byte {
	g := firstGroup(proposals)
	public, err := publicValue(g)
	if err != nil {
		public = make([]byte, 256)
	}
	ps := []Payload{
		{Type: PayloadSA, Body: AppendSA(nil, proposals...)},
		{Type: PayloadKE, Body: AppendKE(nil, KeyExchange{Group: g, Data: public})},
		{Type: PayloadNonce, Body: nonce},
	}
	if fragments {
		ps = append(ps, NotifyPayload(NotifyFragmentationSupported, nil))
	}
	hash := make([]byte, HashLen)
	_, _ = rand.Read(hash) // never fails
	ps = append(ps, NotifyPayload(NotifyNATDetectionSource, hash), NotifyPayload(NotifyNATDetectionDest, hash))
	for _, v := range WindowsVendorIDs() {
		ps = append(ps, Payload{Type: PayloadVendor, Body: v})
	}
	return AppendMessage(nil, Header{SPIi: spi, Exchange: ExchangeSAInit, Flags: FlagInitiator}, ps...)
}

// natDetection is the hash for one end of the socket.
func (q *question) natDetection(a net.Addr) []byte {
	var end netip.AddrPort
	if u, ok := a.(*net.UDPAddr); ok {
		end = u.AddrPort()
	}
	sum := NATDetection(q.spi, 0, end)
	return sum[:]
}

// exchange sends the question until an answer comes or time is over. Silence is
// no error if the gateway has answered before: that was proof.
func (q *question) exchange() (m Message, ok bool, err error) {
	req := q.message()
	wait := q.Retransmit
	if wait <= 0 {
		wait = DefaultRetransmit
	}
	for ; ; wait *= 2 {
		sent := time.Now()
		if _, err := q.conn.Write(req); err != nil {
			return Message{}, false, q.failed(err)
		}
		q.result.Sent++
		m, err := q.receive(sent.Add(wait))
		switch {
		case err == nil:
			q.result.RoundTrip = time.Since(sent)
			return m, true, nil
		case q.ctx.Err() != nil:
			return Message{}, false, q.silent()
		case !errors.Is(err, errRepeat):
			return Message{}, false, q.failed(err)
		}
	}
}

var errRepeat = errors.New("no answer yet")

// receive returns the first answer until then, or errRepeat.
func (q *question) receive(until time.Time) (Message, error) {
	if err := q.conn.SetReadDeadline(until); err != nil {
		return Message{}, err
	}
	if err := q.ctx.Err(); err != nil {
		return Message{}, err // it may have ended before the deadline was set
	}
	buf := make([]byte, 1<<16)
	for {
		n, err := q.conn.Read(buf)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			return Message{}, errRepeat
		case err != nil:
			return Message{}, err
		}
		m, err := q.answer(buf[:n])
		if err == nil {
			return m, nil
		}
		q.strange = err
	}
}

// answer returns b as an answer to the question, or says what is wrong with it.
func (q *question) answer(b []byte) (Message, error) {
	kind, msg := Identify(b)
	if kind != KindIKE {
		return Message{}, fmt.Errorf("%d octets that aren't IKEv2 (%v)", len(b), kind)
	}
	m, err := ParseMessage(msg)
	switch {
	case err != nil:
		return Message{}, err
	case m.SPIi != q.spi:
		return Message{}, fmt.Errorf("an answer to other SPIs (%v)", m.Header)
	case m.Exchange != ExchangeSAInit || !m.Response():
		return Message{}, fmt.Errorf("an IKE message that is no answer (%v)", m.Header)
	}
	w := m.Payloads()
	n := 0
	for w.Next() {
		n++
	}
	if err := w.Err(); err != nil {
		return Message{}, err
	}
	if n == 0 {
		return Message{}, errors.New("an IKE_SA_INIT answer without payloads")
	}
	return m, nil
}

// judge notes what m says, and reports whether that is the end.
func (q *question) judge(m Message) (done bool) {
	r := &q.result
	r.Vendors, r.Fragments, r.Notifies, r.Authorities = nil, false, nil, 0
	var sa []byte
	var told *Notify
	for w := m.Payloads(); w.Next(); {
		switch w.Payload.Type {
		case PayloadSA:
			sa = w.Payload.Body
		case PayloadVendor:
			r.Vendors = append(r.Vendors, VendorID(slices.Clone(w.Payload.Body)))
		case PayloadNotify:
			n, err := ParseNotify(w.Payload.Body)
			switch {
			case err != nil:
				continue
			case n.Type == NotifyFragmentationSupported:
				r.Fragments = true
			case told == nil && (n.Type < NotifyInitialContact || n.Type == NotifyCookie || n.Type == NotifyRedirect):
				told = &n
			}
			r.Notifies = append(r.Notifies, n.Type)
		case PayloadCertReq:
			if c, err := ParseCertRequest(w.Payload.Body); err == nil {
				r.Authorities += c.Len()
			}
		default:
		}
	}
	if sa == nil {
		return q.refused(told)
	}
	r.NAT = q.nat(m)
	r.Answer, r.Notify = AnswerSA, 0
	if ps, err := ParseSA(sa); err == nil {
		r.Suite = ps[0]
		r.Suite.SPI = slices.Clone(ps[0].SPI)
	}
	return true
}

// nat compares the addresses of the socket with those that the gateway sees.
func (q *question) nat(m Message) NAT {
	there, ok := m.Notify(NotifyNATDetectionSource)
	here, ok2 := m.Notify(NotifyNATDetectionDest)
	if !ok || !ok2 || q.conn == nil {
		return NATUnknown
	}
	differs := func(n Notify, a net.Addr) bool {
		u, ok := a.(*net.UDPAddr)
		if !ok {
			return false
		}
		sum := NATDetection(m.SPIi, m.SPIr, u.AddrPort())
		return !bytes.Equal(n.Data, sum[:])
	}
	n := NATNone
	if differs(here, q.conn.LocalAddr()) {
		n = NATHere
	}
	if differs(there, q.conn.RemoteAddr()) {
		if n == NATHere {
			return NATBoth
		}
		n = NATThere
	}
	return n
}

// refused notes an answer without an SA, which n explains.
func (q *question) refused(n *Notify) (done bool) {
	r := &q.result
	if n == nil {
		r.Answer = AnswerNotify
		return true
	}
	r.Notify = n.Type
	switch {
	case n.Type == NotifyCookie && len(n.Data) > 0 && len(n.Data) <= 64:
		r.Answer, r.Cookie, q.cookie = AnswerCookie, true, slices.Clone(n.Data)
		return false
	case n.Type == NotifyInvalidKEPayload && len(n.Data) == 2:
		r.Answer, r.Group = AnswerInvalidKE, Group(binary.BigEndian.Uint16(n.Data))
		if !q.Complete || r.Group == q.group {
			return true
		}
		q.group, q.public = r.Group, nil
		return false
	case n.Type == NotifyNoProposalChosen:
		r.Answer = AnswerNoProposal
	default:
		r.Answer = AnswerNotify
	}
	return true
}

// failed explains an error of the socket.
func (q *question) failed(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("ikev2: %v: nothing listens on UDP %d: %w", q.target, q.target.Port(), syscall.ECONNREFUSED)
	}
	return fmt.Errorf("ikev2: %v: %w", q.target, err)
}

// silent explains that no answer came, unless one has come before.
func (q *question) silent() error {
	if q.result.Answer != AnswerNone {
		return nil
	}
	err := fmt.Errorf("ikev2: %v: no answer to %d IKE_SA_INIT requests", q.target, q.result.Sent)
	if q.strange != nil {
		err = fmt.Errorf("%w; what came instead: %w", err, q.strange)
	}
	return fmt.Errorf("%w: %w", err, context.Cause(q.ctx))
}

// publicValue returns a key exchange value of g that a peer accepts. Its secret
// is thrown away: nothing is ever encrypted with it.
func publicValue(g Group) ([]byte, error) {
	var curve ecdh.Curve
	skip := 1 // the octet that says that a point isn't compressed
	switch g {
	case GroupECP256:
		curve = ecdh.P256()
	case GroupECP384:
		curve = ecdh.P384()
	case GroupECP521:
		curve = ecdh.P521()
	case GroupX25519:
		curve, skip = ecdh.X25519(), 0
	default:
		n := g.PublicLen()
		if n == 0 {
			return nil, fmt.Errorf("the gateway wants key exchange group %d, which isn't known here", uint16(g))
		}
		b := make([]byte, n)
		_, _ = rand.Read(b) // never fails
		b[0] &= 0x7f        // less than the prime of every MODP group
		return b, nil
	}
	k, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return k.PublicKey().Bytes()[skip:], nil
}
