package builtin

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/sstp"
)

// The defaults of a plugins.Rollout.
const (
	defaultPatience       = 8 * time.Hour
	defaultCommandTimeout = 10 * time.Minute
)

// A rollout is a goroutine that can be ended.
type rollout struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (d *Driver) goRollout(run func(context.Context)) *rollout {
	ctx, cancel := context.WithCancel(context.Background())
	o := &rollout{cancel: cancel, done: make(chan struct{})}
	d.wg.Go(func() {
		defer close(o.done)
		run(ctx)
	})
	return o
}

// end ends it, and waits until it has ended.
func (o *rollout) end() {
	if o != nil {
		o.cancel()
		<-o.done
	}
}

// resume carries out the renewal that there is, unless it is done, paused, or
// being carried out.
func (r *ring) resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.d.stopped():
		return
	default:
	}
	if r.rollout != nil || r.renewal == nil || !r.renewal.Ended.IsZero() || r.renewal.Paused {
		return
	}
	work := r.renewal.Clone()
	n := r.renewer()
	r.stopped = ""
	var o *rollout
	o = r.d.goRollout(func(ctx context.Context) {
		err := n.Run(ctx, work)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.rollout == o {
			r.rollout = nil
		}
		if err != nil && ctx.Err() == nil {
			r.stopped = err.Error()
			r.d.logger().Error("the renewal stands still", "certificate", r.name, "error", err)
			r.d.events.send(plugins.SeverityError, "renewal", r.name, err.Error())
		}
		if err == nil {
			r.d.logger().Info("the renewal is done", "certificate", r.name, "hash", work.To.String())
			r.d.events.send(plugins.SeverityInfo, "renewal", r.name, "done: all gateways expect "+work.To.String())
		}
	})
	r.rollout = o
}

// renewer returns what carries a renewal out. r.mu is held.
func (r *ring) renewer() *sstp.Renewer {
	spec := r.spec.Renewal
	patience := cmp.Or(spec.Patience.D(), defaultPatience)
	n := &sstp.Renewer{
		Keyring: r.keyring, Set: r.set, Verify: r.verify, Save: r.saveRenewal,
		Patience: max(patience, 0), Settle: spec.Settle.D(), Bindings: r.bindings, Prove: spec.Prove.D(),
		Control: sstp.GatewayControl{
			Drain: func(ctx context.Context, g string) error { return r.hold(ctx, g, true, false) },
			Close: r.shut, Clients: r.clients,
			Return: func(ctx context.Context, g string) error { return r.hold(ctx, g, false, false) },
		},
		Logger: r.d.logger().With("certificate", r.name),
	}
	if !spec.Outage {
		n.Control.Spare = r.spare
	}
	return n
}

func (r *ring) saveRenewal(now *sstp.Renewal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now.Paused = r.renewal.Paused
	r.renewal = now
	return r.save()
}

// hold drains or closes a gateway, or lets it go.
func (r *ring) hold(ctx context.Context, gateway string, drained, closed bool) error {
	r.mu.Lock()
	set := func(m map[string]bool, on bool) {
		if on {
			m[gateway] = true
		} else {
			delete(m, gateway)
		}
	}
	set(r.drained, drained)
	set(r.closed, closed)
	r.mu.Unlock()
	return r.enforce(ctx)
}

// enforce has the pool drain what r wants drained, and nothing else because of r.
func (r *ring) enforce(ctx context.Context) error {
	pool := r.pool()
	// Shutdown holds the lock and waits for us, so it must not be waited for.
	for !r.d.applying.TryLock() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
	defer r.d.applying.Unlock()
	for _, p := range r.d.current().pools {
		if p.name == pool {
			r.d.enforce(p)
		}
	}
	return nil
}

// cutWithin is longer than an engine takes to cut the streams of a backend.
const cutWithin = 5 * time.Second

// shut closes a gateway, and waits until its streams are cut. Clients of UDP are
// moved with their next packet.
func (r *ring) shut(ctx context.Context, gateway string) error {
	if err := r.hold(ctx, gateway, true, true); err != nil {
		return err
	}
	for end := time.Now().Add(cutWithin); time.Now().Before(end); {
		if n, err := r.clients(ctx, gateway); err != nil || n == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// poolNow returns the pool that is served, and a gateway of it.
func (r *ring) poolNow(gateway string) (*pool, *lb.Member, error) {
	name := r.pool()
	for _, p := range r.d.current().pools {
		if p.name == name {
			if m := p.lb.View().ByName(gateway); m != nil {
				return p, m, nil
			}
		}
	}
	return nil, nil, fmt.Errorf("pool %s has no backend %s any more", name, gateway)
}

func (r *ring) clients(_ context.Context, gateway string) (int, error) {
	_, m, err := r.poolNow(gateway)
	if err != nil {
		return 0, err
	}
	return m.Clients(), nil
}

// bindings says what came of the sessions of a gateway that were shown a leaf.
func (r *ring) bindings(t sstp.RenewalTask, since time.Time) (bound, aborted int) {
	p, _, err := r.poolNow(t.Gateway)
	if err != nil {
		return 0, 0
	}
	return p.sessions.Bindings(t.Gateway, t.To, since)
}

// spare says why the other gateways can't take the clients of one.
func (r *ring) spare(_ context.Context, gateway string) error {
	p, _, err := r.poolNow(gateway)
	if err != nil {
		return err
	}
	v := p.lb.View()
	for _, m := range v.Ready {
		if _, ok := r.keyring.Expected(m.Name); ok && m.Name != gateway && m.State == lb.Up {
			return nil
		}
	}
	for _, m := range v.Members {
		if _, ok := r.keyring.Expected(m.Name); ok {
			return fmt.Errorf("no other gateway of pool %s takes clients now", p.name)
		}
	}
	return nil // nobody can be served by any of them yet, so nobody loses anything
}

// set has the hash set, by the command or by hand.
func (r *ring) set(ctx context.Context, t sstp.RenewalTask) error {
	r.mu.Lock()
	command := r.spec.Renewal.Set
	r.mu.Unlock()
	if len(command) > 0 {
		_, err := r.command(ctx, command, "set", t, r.script(t))
		return err
	}
	ch := make(chan struct{})
	r.mu.Lock()
	r.asked[t.Gateway] = ch
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.asked, t.Gateway)
		r.mu.Unlock()
	}()
	r.d.events.send(plugins.SeverityWarning, "renewal", r.name, t.Gateway+" waits for its hash to be set by hand: see aovlb renew")
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// script returns what sets the hash on the gateway itself.
func (r *ring) script(t sstp.RenewalTask) string {
	h := sstp.HashChange{SHA256: t.To, PlainHTTP: r.plain(), Restart: true}
	return h.PowerShell()
}

// plain reports whether TLS ends before the gateways, by their check.
func (r *ring) plain() bool { return r.plainFor(r.pool()) }

// plainFor is plain, for the pool of r, where r.mu is held.
func (r *ring) plainFor(pool string) bool {
	c := r.checkOf(pool)
	return c != nil && c.PlainHTTP
}

// check returns the check of type sstp of the gateways' pool.
func (r *ring) check() *plugins.Check { return r.checkOf(r.pool()) }

func (r *ring) checkOf(pool string) *plugins.Check {
	s := r.d.siteNow()
	if s == nil {
		return nil
	}
	p := s.Pool(pool)
	if p == nil {
		return nil
	}
	for i := range p.Checks {
		if p.Checks[i].Type == plugins.CheckSSTP {
			return &p.Checks[i]
		}
	}
	return nil
}

// command runs a command of the rollout, and returns what it printed.
func (r *ring) command(ctx context.Context, argv []string, step string, t sstp.RenewalTask, input string) (string, error) {
	_, m, err := r.poolNow(t.Gateway)
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	timeout := cmp.Or(r.spec.Renewal.Timeout.D(), defaultCommandTimeout)
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	fill := strings.NewReplacer("{gateway}", t.Gateway, "{address}", m.Addr.String())
	args := make([]string, len(argv))
	for i := range argv {
		args[i] = fill.Replace(argv[i])
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = r.environment(step, t, m.Addr)
	cmd.WaitDelay = 5 * time.Second
	out := &limited{most: 64 << 10}
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("%s of %s: %w: %s", step, t.Gateway, err, lastLine(out.b.String()))
	}
	return out.b.String(), nil
}

// environment is what a command is told. It gets nothing else of ours, which may
// hold secrets, but what programs need to run.
func (r *ring) environment(step string, t sstp.RenewalTask, addr netip.Addr) []string {
	env := []string{
		"AOVLB_STEP=" + step, "AOVLB_CERTIFICATE=" + r.name, "AOVLB_GATEWAY=" + t.Gateway, "AOVLB_ADDRESS=" + addr.String(),
		"AOVLB_SHA256=" + t.To.String(), "AOVLB_SHA1=" + t.Certificate.SHA1().String(),
	}
	if !t.From.IsZero() {
		env = append(env, "AOVLB_PREVIOUS_SHA256="+t.From.String())
	}
	if r.store != nil {
		env = append(env, "AOVLB_CERT_FILE="+r.store.File(t.To))
	}
	for _, name := range []string{"PATH", "HOME", "LANG", "TMPDIR", "SystemRoot", "KRB5CCNAME"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// limited keeps the first bytes that are written to it.
type limited struct {
	b    bytes.Buffer
	most int
}

func (l *limited) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), max(l.most-l.b.Len(), 0))])
	return len(p), nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	line := strings.TrimSpace(lines[len(lines)-1])
	if line == "" {
		return "it printed nothing"
	}
	return fmt.Sprintf("%.200q", line)
}

// verify finds out what a gateway expects, as far as that can be found out from
// outside: see sstp.Evidence.
func (r *ring) verify(ctx context.Context, t sstp.RenewalTask) (sstp.Evidence, error) {
	e, err := r.look(ctx, t.Gateway)
	if err != nil {
		return e, err
	}
	r.mu.Lock()
	set, read := r.spec.Renewal.Set, r.spec.Renewal.Read
	r.mu.Unlock()
	if len(read) > 0 {
		if e.Configured, err = r.configured(ctx, read, t); err != nil {
			return e, err
		}
		return e, nil
	}
	e.Word = "administrator"
	if len(set) > 0 {
		e.Word = "command " + set[0]
	}
	return e, nil
}

// configured reads the hash that a gateway is configured with.
func (r *ring) configured(ctx context.Context, read []string, t sstp.RenewalTask) (sstp.Fingerprint, error) {
	out, err := r.command(ctx, read, "read", t, sstp.ReadHashPowerShell(""))
	if err != nil {
		return sstp.Fingerprint{}, err
	}
	if strings.TrimSpace(out) == "" {
		return sstp.Fingerprint{}, errors.New("no hash is configured at the gateway")
	}
	for line := range strings.Lines(out) {
		if f, err := sstp.ParseFingerprint(line); err == nil {
			return f, nil
		}
	}
	return sstp.Fingerprint{}, fmt.Errorf("read of %s printed no hash: %s", t.Gateway, lastLine(out))
}

// look asks a gateway, as its check does.
func (r *ring) look(ctx context.Context, gateway string) (sstp.Evidence, error) {
	_, m, err := r.poolNow(gateway)
	if err != nil {
		return sstp.Evidence{}, err
	}
	c := r.check()
	if c == nil {
		return sstp.Evidence{}, errors.New("its pool has no check of type sstp")
	}
	p := sstp.Prober{Question: sstpQuestion(c), ServerName: c.Host, PlainHTTP: c.PlainHTTP, Expect: c.Expect, Timeout: cmp.Or(c.Timeout.D(), sstp.DefaultTimeout)}
	res, err := p.Ask(ctx, netip.AddrPortFrom(m.Addr, uint16(c.Usual().Port)))
	e := sstp.Evidence{Answers: err == nil}
	if res.Leaf != nil {
		e.Shows = res.LeafSHA256
	}
	return e, err
}
