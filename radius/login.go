package radius

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// LoginProber asks a RADIUS server to let a real account in, one with few rights:
// only an Access-Accept is proof. It proves what a [Prober] doesn't, that the
// directory behind the server works. As a directory that is slow makes it fail
// for every server at once, nothing should be brought down by it: see
// [lb.Check.Advisory].
//
// After a reject the account is left alone for half an hour, after another for an
// hour and so on, whichever server it was: a password that was changed must not
// lock it out. For the same reason not more than two servers are asked at a time,
// and the others afterwards. It may be used from many goroutines at once, and must
// not be copied after its first use.
type LoginProber struct {
	// Prober says how to ask, and whom about. Accounting and StatusServer must
	// be false. Servers that want EAP reject its PAP.
	Prober Prober
	// Password is that of Prober.User. It must be set.
	Password Secret

	mu    sync.Mutex // below
	rests map[netip.AddrPort]*rest
	turns chan struct{} // has something for each server that is being asked
}

// atOnce is how many servers are asked at a time: each of them may count a wrong
// password before the first has said that it is wrong. With two, one server that
// doesn't answer keeps nobody waiting.
const atOnce = 2

// Probe asks target. It returns nil only if the account was let in.
func (p *LoginProber) Probe(ctx context.Context, target netip.AddrPort) error {
	_, err := p.Ask(ctx, target)
	return err
}

// Ask is like Probe, and returns what it has found as well, with an error too.
func (p *LoginProber) Ask(ctx context.Context, target netip.AddrPort) (Result, error) {
	if p.Password.IsZero() {
		return Result{}, fmt.Errorf("radius: the login of %q has no password", p.Prober.User)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cmp.Or(p.Prober.Timeout, DefaultTimeout))
		defer cancel()
	}
	turns := p.queue()
	select {
	case turns <- struct{}{}:
		defer func() { <-turns }()
	case <-ctx.Done():
		return Result{}, fmt.Errorf("radius: the account wasn't tried: other servers have been asked about it and don't answer: %w", context.Cause(ctx))
	}
	if err := p.refuse(); err != nil {
		return Result{}, err
	}
	q := p.Prober
	q.login = p.Password
	res, err := q.Ask(ctx, target)
	if err == nil {
		err = p.judge(target, res)
	}
	return res, err
}

const (
	// restFirst and restMost bound how long an account is left alone after a
	// reject: a lockout counts a few wrong passwords within some minutes.
	restFirst = 30 * time.Minute
	restMost  = 8 * time.Hour
)

type rest struct {
	until time.Time
	last  time.Duration
}

func (p *LoginProber) queue() chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.turns == nil {
		p.turns = make(chan struct{}, atOnce)
	}
	return p.turns
}

// refuse returns an error if the account must be left alone.
func (p *LoginProber) refuse() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	// An account is locked out everywhere, whichever server counted.
	for at, e := range p.rests {
		if left := time.Until(e.until); left > 0 {
			return fmt.Errorf("radius: the account was rejected by %v and isn't tried for another %v, so that it isn't locked out: check its password and the policy", at.Addr(), left.Round(time.Minute))
		}
	}
	return nil
}

// judge takes an answer to a real account.
func (p *LoginProber) judge(target netip.AddrPort, res Result) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if res.Code != AccessReject {
		delete(p.rests, target)
		if res.Code != AccessAccept {
			return fmt.Errorf("radius: the account was answered by %v, not let in", res.Code)
		}
		return nil
	}
	if p.rests == nil {
		p.rests = make(map[netip.AddrPort]*rest)
	}
	e := p.rests[target]
	if e == nil {
		e = new(rest)
		p.rests[target] = e
	}
	e.last = min(max(2*e.last, restFirst), restMost)
	e.until = time.Now().Add(e.last)
	reason := ""
	if res.Message != "" {
		reason = ": " + printable([]byte(res.Message))
	}
	return fmt.Errorf("radius: the account was rejected%s", reason)
}
