package sstp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// The defaults of a Renewer.
const (
	// DefaultRenewPoll is the time between two looks at what is waited for.
	DefaultRenewPoll = time.Second
	// DefaultRenewSettle is longer than a client may take from the choice of its
	// gateway to the connection to it.
	DefaultRenewSettle = 15 * time.Second
	// DefaultRenewTries is how often something is tried before a Renewer gives up.
	DefaultRenewTries = 5
	// DefaultRenewRetry is the time between the first two tries; it doubles.
	DefaultRenewRetry = 10 * time.Second
	// DefaultRenewProve is how long a session is waited for that proves a hash.
	DefaultRenewProve = 5 * time.Minute
)

// refutedBy is how many sessions have to be aborted, and none survive, until that
// is no accident of one client.
const refutedBy = 3

// GatewayControl is what a [Renewer] has done to gateways by whoever balances
// them. All functions may be called again for what is done already, and must end
// with ctx.
type GatewayControl struct {
	// Spare returns nil if the other gateways can take all new clients, and
	// otherwise why not. Nil means that they always can.
	Spare func(ctx context.Context, gateway string) error
	// Drain has the gateway get no new clients. It must outlive the process.
	Drain func(ctx context.Context, gateway string) error
	// Clients returns how many clients the gateway still has.
	Clients func(ctx context.Context, gateway string) (int, error)
	// Close sees to it that nobody is at the gateway, and nobody comes: those that
	// are still there are cut.
	Close func(ctx context.Context, gateway string) error
	// Return undoes Drain and Close.
	Return func(ctx context.Context, gateway string) error
}

// A RenewalTask is what is to be done to one gateway.
type RenewalTask struct {
	// Gateway is its name.
	Gateway string
	// From is the hash it has, if known, To the one it is to have.
	From, To Fingerprint
	// Certificate is the one with the hash To.
	Certificate *Certificate
}

// A Renewer changes a certificate at all gateways, one after the other, without an
// outage: at every moment the other gateways serve, and each client is shown the
// leaf that its gateway expects. Its fields must not be changed while it runs.
type Renewer struct {
	// Keyring is the listeners'. It must hold the old certificate and the new.
	Keyring *Keyring
	// Control drains gateways and has them return.
	Control GatewayControl
	// Set configures a gateway with the new hash, and restarts it. It is called
	// again if it fails, and after a crash although it had worked.
	Set func(ctx context.Context, t RenewalTask) error
	// Verify finds out whether the gateway expects the new leaf. It may be called
	// before the gateway is up again, and is then tried again.
	Verify func(ctx context.Context, t RenewalTask) (Evidence, error)
	// Bindings, if not nil, says what came of the sessions of a gateway that began
	// after a time and were shown the leaf To: how many have survived their crypto
	// binding, and how many were aborted for it; see [Sessions.Bindings]. It is
	// asked where Verify had nothing but somebody's word that the hash is set:
	// the next gateway isn't touched before one session has proved it, and if
	// they are aborted, the gateway is taken out of service again.
	Bindings func(t RenewalTask, since time.Time) (bound, aborted int)
	// Prove is how long a session is waited for that proves a hash; if none has
	// come by then, whoever said that it is set is believed. 0 means
	// DefaultRenewProve, less than 0 not to wait.
	Prove time.Duration
	// Save keeps a Renewal, and with it what the Keyring knows, so that both
	// outlive the process. It returns when they would. It must not keep r.
	Save func(r *Renewal) error
	// Patience is how long clients may stay at a gateway that is drained; then
	// they are cut. 0 means as long as they like.
	Patience time.Duration
	// Settle is how long after a gateway was drained those clients have to arrive
	// that were on their way to it; 0 means DefaultRenewSettle, less than 0 no
	// time.
	Settle time.Duration
	// Poll, Tries and Retry are the time between two looks, how often something is
	// tried, and the time between the first two tries; 0 means the defaults.
	Poll  time.Duration
	Tries int
	Retry time.Duration
	// Logger hears of each step; nil is silent.
	Logger *slog.Logger
	// Changed, if not nil, is called with a copy after each step.
	Changed func(r *Renewal)
}

// A RenewalError says at which gateway a renewal stands still, and why.
type RenewalError struct {
	// Gateway and Phase are where.
	Gateway string
	Phase   Phase
	// Err is why.
	Err error
}

func (e *RenewalError) Error() string {
	return fmt.Sprintf("sstp: renewal of %s stands still while %s: %v", e.Gateway, e.Phase, e.Err)
}

func (e *RenewalError) Unwrap() error { return e.Err }

// Run carries r out, from where it stands. It returns nil when all is done, the
// cause of ctx if that ends first, or a [*RenewalError] when something has failed
// too often. Then the gateway stays drained, the others go on serving, and Run may
// be called again with r, by another process too: a gateway that couldn't be
// verified is then set again, unless it is known to hold the new hash.
func (n *Renewer) Run(ctx context.Context, r *Renewal) error {
	if err := r.validate(); err != nil {
		return err
	}
	if n.Keyring.Certificate(r.To) == nil {
		return fmt.Errorf("sstp: renewal: no certificate with the hash %s is held", r.To)
	}
	n.setAgain(r)
	n.withhold(r)
	if err := n.save(r); err != nil {
		return err
	}
	for g := r.Next(); g != nil; g = r.Next() {
		if err := n.step(ctx, r, g); err != nil {
			return err
		}
	}
	return n.finish(r)
}

// withhold has the Keyring know of a change that was begun by an earlier process,
// and of no gateway assume what a renewal is about to change.
func (n *Renewer) withhold(r *Renewal) {
	for i := range r.Gateways {
		g := &r.Gateways[i]
		switch g.Phase {
		case PhaseSetting, PhaseVerifying:
			n.Keyring.Withhold(g.Gateway, beingChanged)
		case PhaseReturning, PhaseProving, PhaseDone:
			n.Keyring.Expect(g.Gateway, r.To)
		default:
			if _, ok := n.Keyring.Expected(g.Gateway); ok && !g.From.IsZero() {
				n.Keyring.Expect(g.Gateway, g.From) // said aloud, so that it outlives a change of the current one
			}
		}
	}
}

const beingChanged = "its certificate is being changed"

func (n *Renewer) finish(r *Renewal) error {
	if err := n.Keyring.SetCurrent(r.To); err != nil {
		return err
	}
	if r.Ended.IsZero() {
		r.Ended = time.Now()
	}
	return n.save(r)
}

func (n *Renewer) save(r *Renewal) error {
	if err := n.Save(r.Clone()); err != nil {
		return fmt.Errorf("sstp: renewal: save its state: %w", err)
	}
	if n.Changed != nil {
		n.Changed(r.Clone())
	}
	return nil
}

// step does the work of the phase that g is in, until it succeeds or is given up,
// and has g go on.
func (n *Renewer) step(ctx context.Context, r *Renewal, g *GatewayRenewal) error {
	wait := cmp.Or(n.Retry, DefaultRenewRetry)
	for {
		next, err := n.work(ctx, r, g)
		if err == nil {
			return n.enter(r, g, next)
		}
		var later *notYet
		if errors.As(err, &later) {
			if err := n.note(r, g, later.why); err != nil {
				return err
			}
			if err := sleep(ctx, cmp.Or(n.Poll, DefaultRenewPoll)); err != nil {
				return err
			}
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if g.Phase == PhaseProving {
			return n.refute(ctx, r, g, err)
		}
		g.Tries++
		n.logger().Warn("renewal: a step failed", "gateway", g.Gateway, "phase", g.Phase.String(), "try", g.Tries, "error", err)
		if err := n.note(r, g, err.Error()); err != nil {
			return err
		}
		if g.Tries >= cmp.Or(n.Tries, DefaultRenewTries) {
			return n.giveUp(r, g, err)
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, 5*time.Minute)
	}
}

// giveUp leaves g where it is, so that somebody can put it right. What couldn't be
// verified is set again when Run is called again: to look at a gateway that was
// never told, or has lost what it was told, would be in vain forever.
func (n *Renewer) giveUp(r *Renewal, g *GatewayRenewal, err error) error {
	stands := &RenewalError{Gateway: g.Gateway, Phase: g.Phase, Err: err}
	g.Tries = 0
	if g.Phase == PhaseVerifying && !g.Evidence.Holds(r.To) {
		g.enter(PhaseSetting, time.Now())
		g.Error = err.Error()
	}
	if err := n.save(r); err != nil {
		return err
	}
	return stands
}

// refute takes a gateway out of service again that has aborted the sessions which
// were to prove its hash: it is to be set again when Run is called again.
func (n *Renewer) refute(ctx context.Context, r *Renewal, g *GatewayRenewal, err error) error {
	refuted := &RenewalError{Gateway: g.Gateway, Phase: g.Phase, Err: err}
	n.logger().Error("renewal: its sessions are aborted", "gateway", g.Gateway, "error", err)
	if err := n.Control.Drain(ctx, g.Gateway); err != nil {
		return errors.Join(refuted, err)
	}
	g.enter(PhaseSetting, time.Now())
	g.Error, g.Evidence = err.Error(), nil
	n.Keyring.Withhold(g.Gateway, beingChanged)
	if err := n.save(r); err != nil {
		return errors.Join(refuted, err)
	}
	if err := n.Control.Close(ctx, g.Gateway); err != nil {
		return errors.Join(refuted, err)
	}
	return refuted
}

// setAgain has a gateway set again that an earlier call of Run left while it
// couldn't be verified. One that was to be proved takes clients again, of which a
// new process knows nothing yet: it may have been about to be drained again.
func (n *Renewer) setAgain(r *Renewal) {
	for i := range r.Gateways {
		g := &r.Gateways[i]
		if g.Phase == PhaseProving {
			g.enter(PhaseReturning, time.Now())
		}
		if g.Phase == PhaseVerifying && g.Error != "" && !g.Evidence.Holds(r.To) {
			g.enter(PhaseSetting, time.Now())
		}
	}
}

// notYet is what is still waited for; it is no failure.
type notYet struct{ why string }

func (e *notYet) Error() string { return e.why }

// note saves why g doesn't go on, if that is news.
func (n *Renewer) note(r *Renewal, g *GatewayRenewal, why string) error {
	if g.Error == why && g.Tries == 0 {
		return nil
	}
	g.Error = why
	return n.save(r)
}

// enter has g go on to a phase. What its clients are shown changes before the
// phase is saved if they are to be shown nothing, and is saved with it.
func (n *Renewer) enter(r *Renewal, g *GatewayRenewal, p Phase) error {
	g.enter(p, time.Now())
	switch p {
	case PhaseSetting:
		n.Keyring.Withhold(g.Gateway, beingChanged)
	case PhaseReturning:
		n.Keyring.Expect(g.Gateway, r.To)
	case PhaseProving:
		g.Until = g.Since.Add(cmp.Or(n.Prove, DefaultRenewProve))
	case PhaseEmptying:
		if n.Patience > 0 {
			g.Until = g.Since.Add(n.Patience)
		}
	default:
	}
	n.logger().Info("renewal", "gateway", g.Gateway, "phase", p.String(), "hash", r.To.String())
	return n.save(r)
}

// work does what belongs to the phase of g, and returns the one that follows.
func (n *Renewer) work(ctx context.Context, r *Renewal, g *GatewayRenewal) (Phase, error) {
	t := RenewalTask{Gateway: g.Gateway, From: g.From, To: r.To, Certificate: n.Keyring.Certificate(r.To)}
	switch g.Phase {
	case PhaseWaiting:
		if n.Control.Spare != nil {
			if err := n.Control.Spare(ctx, g.Gateway); err != nil {
				return 0, &notYet{err.Error()}
			}
		}
		return PhaseDraining, nil
	case PhaseDraining:
		return PhaseEmptying, n.Control.Drain(ctx, g.Gateway)
	case PhaseEmptying:
		return PhaseSetting, n.empty(ctx, g)
	case PhaseSetting:
		// After a crash the gateway may not be as closed as it was.
		if err := n.Control.Close(ctx, g.Gateway); err != nil {
			return 0, err
		}
		return PhaseVerifying, n.Set(ctx, t)
	case PhaseVerifying:
		e, err := n.Verify(ctx, t)
		if err == nil {
			err = e.Judge(r.To)
		}
		g.Evidence = &e
		return PhaseReturning, err
	case PhaseReturning:
		if n.Bindings == nil || n.Prove < 0 || g.Evidence.Holds(r.To) || r.first() {
			return PhaseDone, n.Control.Return(ctx, g.Gateway)
		}
		return PhaseProving, n.Control.Return(ctx, g.Gateway)
	case PhaseProving:
		return PhaseDone, n.prove(t, g)
	case PhaseDone:
	}
	return PhaseDone, nil
}

// prove looks what came of the sessions that g has had since it takes clients.
func (n *Renewer) prove(t RenewalTask, g *GatewayRenewal) error {
	if n.Bindings == nil || g.Evidence == nil {
		return nil // it was begun by another Renewer, which could look
	}
	until := g.Since.Add(cmp.Or(n.Prove, DefaultRenewProve))
	switch bound, aborted := n.Bindings(t, g.Since); {
	case bound > 0:
		g.Evidence.Bound = true
	case aborted >= refutedBy || aborted > 0 && !time.Now().Before(until):
		return fmt.Errorf("%d of its sessions with the new certificate were aborted for their crypto binding, and none survived: "+
			"its hash isn't the new one, or its service wasn't restarted", aborted)
	case time.Now().Before(until):
		return &notYet{fmt.Sprintf("until %s a session is waited for that proves its hash; aborted so far: %d", until.Format(time.TimeOnly), aborted)}
	}
	return nil
}

// empty waits for the clients of g to leave, and then closes it.
func (n *Renewer) empty(ctx context.Context, g *GatewayRenewal) error {
	// After a crash the gateway may not be as drained as it was.
	if err := n.Control.Drain(ctx, g.Gateway); err != nil {
		return err
	}
	if settled := g.Since.Add(cmp.Or(n.Settle, DefaultRenewSettle)); time.Now().Before(settled) {
		return &notYet{"clients that were on their way to it may still arrive"}
	}
	left, err := n.Control.Clients(ctx, g.Gateway)
	if err != nil {
		return err
	}
	patient := n.Patience == 0 || time.Since(g.Since) < n.Patience
	if left > 0 && patient {
		why := "clients are still there: " + fmt.Sprint(left)
		if n.Patience > 0 {
			why += ", until " + g.Since.Add(n.Patience).Format(time.TimeOnly)
		}
		return &notYet{why}
	}
	return n.Control.Close(ctx, g.Gateway)
}

func (n *Renewer) logger() *slog.Logger {
	if n.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return n.Logger
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
