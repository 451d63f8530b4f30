package ikev2

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// The defaults of a Scanner.
const (
	// DefaultScanInterval is the time between two questions of a scan.
	DefaultScanInterval = 50 * time.Millisecond
	// DefaultScanMax is how many questions a scan asks at most.
	DefaultScanMax = 400
	// DefaultScanTimeout is how long a scan waits for one answer.
	DefaultScanTimeout = 3 * time.Second
)

// A Scanner finds out which algorithms for IKE a gateway accepts, by asking many
// questions of a [Prober], none of which leaves anything behind. It asks one at a
// time, with a pause between, and a limited number in all. Scan gateways that are
// yours, or whose owner agrees. The zero Scanner is ready for use, by many
// goroutines at once.
//
// First each encryption is offered with everything else, so that refusal is the
// fault of the encryption. For those that are accepted, the same is done with
// each integrity algorithm and PRF. Groups need fewer questions: a gateway says
// which one it wants, which then is left out of the next question. In the end the
// combinations of what remains are tried one by one, if there aren't too many.
type Scanner struct {
	// Candidates are the algorithms to ask about; nil means
	// [WindowsCandidates].
	Candidates []Transform
	// Interval is the time between two questions, and before the first;
	// DefaultScanInterval if 0.
	Interval time.Duration
	// Max is how many questions there are at most; DefaultScanMax if 0.
	Max int
	// Timeout is how long to wait for one answer; DefaultScanTimeout if 0.
	Timeout time.Duration
	// Local is the address to ask from; the system chooses if it is zero.
	Local netip.Addr
	// Retransmit is as in Prober.
	Retransmit time.Duration
	// Progress, if not nil, is told after each question how many there were.
	Progress func(questions int)
}

// WindowsCandidates returns the algorithms that Windows can be told to use, by
// default or by a custom policy.
func WindowsCandidates() []Transform {
	var ts []Transform
	for _, v := range WindowsValues() {
		switch v.Setting {
		case SettingEncryption, SettingIntegrity, SettingDHGroup:
			for _, t := range v.Transforms {
				if !slices.Contains(ts, t) {
					ts = append(ts, t)
				}
			}
		}
	}
	return ts
}

// AllCandidates returns the algorithms of all gateways that are about.
func AllCandidates() []Transform {
	ts := WindowsCandidates()
	add := func(kind TransformType, more ...Transform) {
		for _, t := range more {
			if t.Type = kind; !slices.Contains(ts, t) {
				ts = append(ts, t)
			}
		}
	}
	add(TransformEncr, Transform{ID: EncrAESGCM16, KeyBits: 192}, Transform{ID: EncrChaCha20Poly1305},
		Transform{ID: EncrAESCCM16, KeyBits: 128}, Transform{ID: EncrAESCCM16, KeyBits: 256},
		Transform{ID: EncrAESCTR, KeyBits: 128}, Transform{ID: EncrAESCTR, KeyBits: 256},
		Transform{ID: EncrCamelliaCBC, KeyBits: 128}, Transform{ID: EncrCamelliaCBC, KeyBits: 256}, Transform{ID: EncrNULL})
	add(TransformInteg, Transform{ID: IntegHMACSHA512}, Transform{ID: IntegAESXCBC}, Transform{ID: IntegAESCMAC})
	add(TransformPRF, Transform{ID: PRFHMACSHA512}, Transform{ID: PRFAES128XCBC}, Transform{ID: PRFAES128CMAC})
	for _, g := range []Group{
		GroupMODP1536, GroupMODP3072, GroupMODP4096, GroupMODP6144, GroupMODP8192, GroupECP521, GroupMODP2048S224,
		GroupBrainpoolP256, GroupBrainpoolP384, GroupBrainpoolP512, GroupX25519, GroupX448,
	} {
		add(TransformKE, Transform{ID: uint16(g)})
	}
	return ts
}

// An Accepted is an encryption that a gateway accepts, with what it accepts
// beside it. Not all of these need go together: see [Scan.Suites].
type Accepted struct {
	// Encr is the encryption.
	Encr Transform
	// Integ, PRFs and Groups are each accepted with at least one of the others.
	Integ, PRFs []Transform
	Groups      []Group
}

// A Scan is what a Scanner found out.
type Scan struct {
	// Alive says that the gateway answers at all.
	Alive bool
	// Accepted are the encryptions.
	Accepted []Accepted
	// Suites are the suites that were accepted one by one.
	Suites []Suite
	// Exact says that Suites are all there are among the candidates.
	Exact bool
	// PostQuantum are the ML-KEM groups that it accepts as an additional key
	// exchange (RFC 9370).
	PostQuantum []Group
	// Cookies says that it asked for cookies.
	Cookies bool
	// HalfOpen is how many half-open SAs were left, since the gateway accepted
	// what was meant as a decoy.
	HalfOpen int
	// Questions and Sent are how many questions and datagrams there were.
	Questions, Sent int
	// Took is how long all of it took, RoundTrip the shortest time to an
	// answer.
	Took, RoundTrip time.Duration
}

// Assess grades what the gateway accepts by the worst of it.
func (s Scan) Assess() Assessment {
	if len(s.Accepted) == 0 {
		return Assessment{Grade: GradeCritical, Remarks: []Remark{{
			Grade: GradeCritical, About: "gateway", Reason: "it accepts nothing that was asked about",
			Fix: "compare its policy with what the clients offer",
		}}}
	}
	p := Policy{}
	for _, x := range s.Suites {
		p.IKE = append(p.IKE, x.Proposal())
	}
	if !s.Exact {
		for _, x := range s.Accepted {
			ts := slices.Concat([]Transform{x.Encr}, x.Integ, x.PRFs)
			for _, g := range x.Groups {
				ts = append(ts, Transform{TransformKE, uint16(g), 0})
			}
			p.IKE = append(p.IKE, Proposal{Protocol: ProtocolIKE, Transforms: ts})
		}
	}
	return p.Assess()
}

// scanning is a scan on its way.
type scanning struct {
	Scanner
	ctx    context.Context
	target netip.AddrPort
	out    Scan
	decoys []Group
	encr   []Transform
	integ  []Transform
	prf    []Transform
	groups []Transform
}

// errScanMax ends a scan that has asked enough.
var errScanMax = errors.New("as many questions as were allowed")

// Scan asks the gateway at target. With an error it returns what was found out
// until then. A scan that ran out of questions has none: see [Scan.Exact].
func (s Scanner) Scan(ctx context.Context, target netip.AddrPort) (Scan, error) {
	c := s.Candidates
	if c == nil {
		c = WindowsCandidates()
	}
	all := Proposal{Transforms: c}
	x := &scanning{
		Scanner: s, ctx: ctx, target: target,
		encr: all.of(TransformEncr), integ: all.of(TransformInteg), prf: all.of(TransformPRF), groups: all.of(TransformKE),
	}
	for _, g := range []Group{DefaultDecoy, GroupMODP2048S224, GroupMODP1536, GroupMODP8192} {
		if !slices.Contains(x.groups, Transform{TransformKE, uint16(g), 0}) {
			x.decoys = append(x.decoys, g)
		}
	}
	if len(x.encr) == 0 || len(x.prf) == 0 || len(x.groups) == 0 || len(x.decoys) == 0 {
		return Scan{}, errors.New("ikev2: scan: the candidates need an encryption, a PRF and a key exchange, and mustn't hold every group")
	}
	began := time.Now()
	err := x.run()
	x.out.Took = time.Since(began)
	if errors.Is(err, errScanMax) {
		x.out.Exact, err = false, nil
	}
	if err != nil {
		err = fmt.Errorf("ikev2: scan: %w", err)
	}
	return x.out, err
}

func (x *scanning) run() error {
	x.out.Exact = true
	for _, e := range x.encr {
		if len(x.integ) == 0 && !aead(e.ID) {
			continue
		}
		ok, _, err := x.accepts(x.offer(e, x.integ, x.prf, x.groups))
		if err != nil {
			return err
		}
		if ok {
			x.out.Accepted = append(x.out.Accepted, Accepted{Encr: e})
		}
	}
	for i := range x.out.Accepted {
		if err := x.beside(&x.out.Accepted[i]); err != nil {
			return err
		}
	}
	if err := x.postQuantum(); err != nil {
		return err
	}
	for i := range x.out.Accepted {
		if err := x.combine(&x.out.Accepted[i]); err != nil {
			return err
		}
	}
	return nil
}

// offer returns one proposal of these.
func (x *scanning) offer(e Transform, integ, prf, groups []Transform) Proposal {
	if aead(e.ID) {
		integ = nil
	}
	return Proposal{Number: 1, Protocol: ProtocolIKE, Transforms: slices.Concat([]Transform{e}, integ, prf, groups)}
}

// beside finds out what a accepts beside its encryption.
func (x *scanning) beside(a *Accepted) error {
	if !aead(a.Encr.ID) {
		for _, t := range x.integ {
			ok, _, err := x.accepts(x.offer(a.Encr, []Transform{t}, x.prf, x.groups))
			if err != nil {
				return err
			}
			if ok {
				a.Integ = append(a.Integ, t)
			}
		}
	}
	for _, t := range x.prf {
		ok, _, err := x.accepts(x.offer(a.Encr, x.integ, []Transform{t}, x.groups))
		if err != nil {
			return err
		}
		if ok {
			a.PRFs = append(a.PRFs, t)
		}
	}
	var err error
	a.Groups, err = x.strip(a.Encr, x.integ, x.prf, x.groups)
	return err
}

// strip returns the groups that are accepted: the one that the gateway wants is
// left out of the next question, until it refuses.
func (x *scanning) strip(e Transform, integ, prf, groups []Transform) ([]Group, error) {
	var found []Group
	groups = slices.Clone(groups)
	for len(groups) > 0 {
		ok, g, err := x.accepts(x.offer(e, integ, prf, groups))
		if err != nil || !ok {
			return found, err
		}
		i := slices.Index(groups, Transform{TransformKE, uint16(g), 0})
		if i < 0 {
			return found, fmt.Errorf("%v wants group %v, which wasn't offered", x.target, g)
		}
		found = append(found, g)
		groups = slices.Delete(groups, i, i+1)
	}
	return found, nil
}

// combine finds out which combinations of a are accepted.
func (x *scanning) combine(a *Accepted) error {
	groups := make([]Transform, 0, len(a.Groups))
	for _, g := range a.Groups {
		groups = append(groups, Transform{TransformKE, uint16(g), 0})
	}
	integ := a.Integ
	if aead(a.Encr.ID) {
		integ = []Transform{{}}
	}
	for _, i := range integ {
		for _, p := range a.PRFs {
			found, err := x.strip(a.Encr, []Transform{i}, []Transform{p}, groups)
			for _, g := range found {
				x.out.Suites = append(x.out.Suites, Suite{
					Protocol: ProtocolIKE, Encr: a.Encr.ID, KeyBits: a.Encr.KeyBits, Integ: i.ID, PRF: p.ID, KE: g,
				})
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// postQuantum asks for ML-KEM beside the first encryption that is accepted.
func (x *scanning) postQuantum() error {
	if len(x.out.Accepted) == 0 {
		return nil
	}
	for _, g := range []Group{GroupMLKEM768, GroupMLKEM1024, GroupMLKEM512} {
		p := x.offer(x.out.Accepted[0].Encr, x.integ, x.prf, x.groups)
		p.Transforms = append(p.Transforms, Transform{TransformAddKE1, uint16(g), 0})
		ok, _, err := x.accepts(p)
		if err != nil {
			return err
		}
		if ok {
			x.out.PostQuantum = append(x.out.PostQuantum, g)
		}
	}
	return nil
}

// accepts asks one question: whether the gateway accepts a proposal, and then
// which group it wants. Silence after answers is taken for defence: it is waited
// out twice.
func (x *scanning) accepts(p Proposal) (bool, Group, error) {
	pause := x.Interval
	if pause <= 0 {
		pause = DefaultScanInterval
	}
	for patience := 0; ; patience++ {
		if err := x.wait(pause); err != nil {
			return false, 0, err
		}
		r, err := x.ask(p)
		switch {
		case errors.Is(err, errScanMax):
			return false, 0, err
		case x.ctx.Err() != nil:
			return false, 0, context.Cause(x.ctx)
		case err == nil && r.Answer == AnswerInvalidKE:
			return true, r.Group, nil
		case err == nil && r.Answer == AnswerNoProposal:
			return false, 0, nil
		case err == nil && r.Answer == AnswerSA:
			x.out.HalfOpen++
			if len(x.decoys) == 1 {
				return false, 0, fmt.Errorf("%v accepts every group: it can't be asked without leaving half-open SAs", x.target)
			}
			x.decoys = x.decoys[1:]
		case err == nil && r.Answer == AnswerNotify:
			return false, 0, fmt.Errorf("%v answers by %v", x.target, r.Notify)
		case !x.out.Alive:
			return false, 0, err
		case patience >= 2:
			return false, 0, fmt.Errorf("%v fell silent after %d questions: it may defend itself, ask more slowly or later", x.target, x.out.Questions)
		default:
			pause = max(2*pause, time.Second)
		}
	}
}

func (x *scanning) wait(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-x.ctx.Done():
		return context.Cause(x.ctx)
	case <-t.C:
		return nil
	}
}

func (x *scanning) ask(p Proposal) (Result, error) {
	most := x.Max
	if most <= 0 {
		most = DefaultScanMax
	}
	if x.out.Questions >= most {
		return Result{}, errScanMax
	}
	x.out.Questions++
	timeout := x.Timeout
	if timeout <= 0 {
		timeout = DefaultScanTimeout
	}
	ctx, cancel := context.WithTimeout(x.ctx, timeout)
	defer cancel()
	q := Prober{Proposals: []Proposal{p}, Decoy: x.decoys[0], Local: x.Local, Retransmit: x.Retransmit}
	r, err := q.Ask(ctx, x.target)
	x.out.Sent += r.Sent
	if err == nil && r.Answer != AnswerNone {
		x.out.Alive = true
		x.out.Cookies = x.out.Cookies || r.Cookie
		if x.out.RoundTrip == 0 || r.RoundTrip < x.out.RoundTrip {
			x.out.RoundTrip = r.RoundTrip
		}
	}
	if x.Progress != nil {
		x.Progress(x.out.Questions)
	}
	return r, err
}
