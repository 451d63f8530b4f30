package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/proto/wire"
)

// The defaults of a Plugin.
const (
	// DefaultStartTimeout is how long a program may take to be ready.
	DefaultStartTimeout = 15 * time.Second
	// DefaultBackoff is the time after a first death, doubled at each further
	// one up to MaxBackoff.
	DefaultBackoff = 100 * time.Millisecond
	MaxBackoff     = 30 * time.Second
	// DefaultDeaths is how many deaths in a row open the circuit breaker, and
	// DefaultRest how long it stays open.
	DefaultDeaths = 6
	DefaultRest   = time.Minute
	// DefaultMemory bounds a program's memory, in bytes, DefaultFiles its open
	// files.
	DefaultMemory = 4 << 30
	DefaultFiles  = 1024
	// healthy is how long a program must have lived for its death to be a first
	// one.
	healthy = time.Minute
)

// ErrResting says that a plugin died so often that it isn't started for a while.
var ErrResting = errors.New("host: the plugin died too often, it is started again in a while")

// ErrClosed says that a Plugin was closed.
var ErrClosed = errors.New("host: the plugin is closed")

// A Plugin is a driver in a program of its own. Its program is started when it is
// first called, or when it is called after it died. Calls that change nothing, or
// may be repeated, are made again then; an Apply is not, since its plan is old. The
// fields must not be changed after the first call. It must not be copied.
type Plugin struct {
	// Name is the plugin's, Path its program.
	Name, Path string
	// Args are its arguments, of which most plugins have none.
	Args []string
	// SHA256 is what its content must be, in hexadecimal. It is needed.
	SHA256 string
	// Host says who starts it, such as "aovlb 1.2".
	Host string
	// Env are the names of variables that it gets of this process's
	// environment: those that hold secrets which its settings or deployments
	// refer to. Beside PATH, LANG, TZ and what names the CAs and proxies, it
	// gets no others.
	Env []string
	// Logger hears what it logs, and of its starts and deaths; nil is silent.
	Logger *slog.Logger
	// Dir is where its private folder is made; empty means the folder for
	// temporary files. It must allow sockets.
	Dir string
	// StartTimeout, Backoff, Deaths and Rest are as the constants say; 0 means
	// these.
	StartTimeout time.Duration
	Backoff      time.Duration
	Deaths       int
	Rest         time.Duration
	// Memory and Files are limits, where the operating system has them; 0
	// means the constants.
	Memory, Files uint64

	mu     sync.Mutex // below
	now    *process
	config *plugins.Config
	deaths int
	next   time.Time // when it may be started again
	closed bool
	starts int
}

var _ plugins.Driver = (*Plugin)(nil)

func (p *Plugin) logger() *slog.Logger {
	if p.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return p.Logger.With("plugin", p.Name)
}

// running returns a process that lives, and starts one if need be.
func (p *Plugin) running(ctx context.Context) (*process, error) {
	for {
		wait, proc, err := p.tryRunning(ctx)
		if err != nil || proc != nil {
			return proc, err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

func (p *Plugin) tryRunning(ctx context.Context) (wait time.Duration, _ *process, _ error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, nil, ErrClosed
	}
	if p.now != nil && !p.now.dead() {
		return 0, p.now, nil
	}
	if p.now != nil {
		p.bury()
	}
	if wait := time.Until(p.next); wait > 0 {
		if p.deaths >= cmp.Or(p.Deaths, DefaultDeaths) {
			return 0, nil, fmt.Errorf("%w: %s died %d times; it is tried again in %v", ErrResting, p.Name, p.deaths, wait.Round(time.Second))
		}
		return wait, nil, nil
	}
	if err := ctx.Err(); err != nil {
		return 0, nil, context.Cause(ctx)
	}
	proc, err := p.start(ctx)
	if err == nil && p.config != nil {
		if err = proc.driver.Configure(ctx, *p.config); err != nil {
			err = fmt.Errorf("configure again: %w", err)
			proc.end()
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			p.died(0)
		}
		return 0, nil, fmt.Errorf("host: plugin %s: %w", p.Name, err)
	}
	p.now = proc
	p.starts++
	return 0, proc, nil
}

// bury cleans up after a process that died.
func (p *Plugin) bury() {
	lived := time.Since(p.now.began)
	p.now.end()
	p.now = nil
	p.died(lived)
}

// died says when the next process may be started. p.mu is held.
func (p *Plugin) died(lived time.Duration) {
	if lived > healthy {
		p.deaths = 0
	}
	p.deaths++
	pause := min(cmp.Or(p.Backoff, DefaultBackoff)<<min(p.deaths-1, 20), MaxBackoff)
	if p.deaths >= cmp.Or(p.Deaths, DefaultDeaths) {
		pause = cmp.Or(p.Rest, DefaultRest)
	}
	p.next = time.Now().Add(pause)
	p.logger().Error("the plugin died", "lived", lived, "deaths", p.deaths, "restart_in", pause)
}

// Close ends the program and removes its folder.
func (p *Plugin) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.now != nil {
		p.now.end()
		p.now = nil
	}
	return nil
}

// PID returns the process that runs now, or 0.
func (p *Plugin) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil || p.now.dead() {
		return 0
	}
	return p.now.pid
}

// Died returns a channel that is closed when the process that runs now dies; nil
// if none runs.
func (p *Plugin) Died() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil {
		return nil
	}
	return p.now.gone
}

// once calls f with a driver that runs.
func (p *Plugin) once(ctx context.Context, f func(plugins.Driver) error) error {
	proc, err := p.running(ctx)
	if err != nil {
		return err
	}
	err = f(proc.driver)
	var lost *wire.UnavailableError
	if errors.As(err, &lost) {
		proc.awaitDeath() // it is noticed now, and not by the next call
		return fmt.Errorf("host: plugin %s: %w", p.Name, err)
	}
	return err
}

// again does the same, and once more if the plugin dies meanwhile.
func (p *Plugin) again(ctx context.Context, f func(plugins.Driver) error) error {
	err := p.once(ctx, f)
	var lost *wire.UnavailableError
	if errors.As(err, &lost) && ctx.Err() == nil {
		err = p.once(ctx, f)
	}
	return err
}
