package builtin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/fastpath"
	"github.com/aovlb/aovlb/lb/tcp"
	"github.com/aovlb/aovlb/lb/udp"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/radius"
	"github.com/aovlb/aovlb/radius/radsec"
)

// A listener is a plugins.Listener that is served, by one engine.
type listener struct {
	named   atomic.Pointer[string]
	spec    plugins.Listener // but for its name, which can change
	group   *group
	front   *front
	udp     *udp.Engine // one of these three
	tcp     *tcp.Engine
	rad     *radius.Proxy
	carrier *carrier       // l.udp's
	path    *fastpath.Path // what carries for udp; nil: nothing
	tls     *terminated    // of tcp; nil if TLS passes through
	sec     *radsec.Server // before rad, if that is reached over TLS

	cancel   context.CancelFunc
	doors    []*door       // where the engine accepts, of TCP
	done     chan struct{} // closed when the engine has returned
	err      atomic.Pointer[error]
	draining atomic.Bool
}

func (l *listener) name() string { return *l.named.Load() }

// maxSockets is how many sockets a UDP listener has if nobody says.
const maxSockets = 4

// sockets returns how many sockets l is to have.
func sockets(l *plugins.Listener) int {
	if l.Protocol.Network() == "tcp" {
		return 1
	}
	if runtime.GOOS != "linux" {
		return 1
	}
	return cmp.Or(l.Workers, min(runtime.NumCPU(), maxSockets))
}

// Threads returns how many threads the UDP listeners of a site have. A program
// that raises GOMAXPROCS by as many never has them keep other goroutines waiting.
func Threads(s *plugins.Site) int {
	n := 0
	for i := range s.Groups {
		for j := range s.Groups[i].Listeners {
			if l := &s.Groups[i].Listeners[j]; l.Protocol.Network() == "udp" {
				n += sockets(l)
			}
		}
	}
	return n
}

func (d *Driver) newListener(spec *plugins.Listener, g *group, tls *terminated) *listener {
	l := &listener{spec: *spec, group: g, done: make(chan struct{})}
	l.named.Store(&spec.Name)
	transparent := g.made.client == plugins.ClientAddressTransparent
	log := d.logger().With("group", g.name, "listener", spec.Name)
	p := g.pool
	if (spec.Protocol == plugins.ProtocolRADIUS || spec.Protocol == plugins.ProtocolRadSec) && g.made.radius.proxy {
		l.rad = d.newProxy(spec, g, log)
		if spec.Protocol == plugins.ProtocolRadSec {
			l.sec = newRadSec(spec, g, l.rad, log)
		}
		return l
	}
	if spec.Protocol.Network() == "udp" {
		l.udp = &udp.Engine{
			Balancer: g.balancer, Classifier: classifier(spec, &g.made),
			Port: uint16(spec.BackendPort), Transparent: transparent,
			Workers: spec.Workers, Logger: log,
			// It carries first messages of IKE, and nothing that is in a hurry.
			Calm: spec.Protocol == plugins.ProtocolIKEv2 && !mayBeFast(spec),
			Trace: &udp.Trace{
				Unreachable: func(m *lb.Member, err error) { p.suspect(m.Name, err) },
				Control:     g.watchIKE(spec),
			},
		}
		return l
	}
	l.tcp = &tcp.Engine{
		Balancer: g.balancer, Sniffer: sniffer(spec, g.made.affinity),
		Port: uint16(spec.BackendPort), Transparent: transparent,
		ProxyTo: map[plugins.ProxyProtocol]tcp.ProxyVersion{plugins.ProxyV1: tcp.ProxyV1, plugins.ProxyV2: tcp.ProxyV2}[spec.ProxyProtocol],
		Idle:    spec.IdleTimeout.D(), Logger: log,
		Trace: &tcp.Trace{Unreachable: func(m *lb.Member, _ netip.AddrPort, err error) { p.suspect(m.Name, err) }},
	}
	d.terminate(l, tls)
	return l
}

// accelerate has p carry clients of l, unless it is nil.
func (l *listener) accelerate(p *fastpath.Path) {
	if p == nil || l.udp == nil {
		return
	}
	l.path = p
	l.carrier = new(carrier)
	l.carrier.now.Store(p.Carrier())
	l.udp.FastPath = l.carrier
}

// serve starts the engine. The sockets are open, so nothing is lost meanwhile.
func (d *Driver) serve(l *listener, flows []udp.FlowState) error {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	var run func() error
	if l.sec != nil {
		var err error
		if run, err = l.serveRadSec(ctx); err != nil {
			cancel()
			return fmt.Errorf("builtin: listener %s: %w", l.name(), err)
		}
	} else if l.rad != nil {
		conns, err := l.front.packetConns()
		if err != nil {
			cancel()
			return fmt.Errorf("builtin: listener %s: %w", l.name(), err)
		}
		run = func() error { return l.rad.Serve(ctx, conns...) }
	} else if l.udp != nil {
		conns, err := l.front.packetConns()
		if err != nil {
			cancel()
			return fmt.Errorf("builtin: listener %s: %w", l.name(), err)
		}
		l.udp.Restore(flows)
		run = func() error { return l.udp.Serve(ctx, conns...) }
	} else {
		conns, err := l.accepting()
		if err != nil {
			cancel()
			return fmt.Errorf("builtin: listener %s: %w", l.name(), err)
		}
		run = func() error { return l.tcp.Serve(ctx, conns...) }
	}
	d.fronts.claim(l.front, l)
	d.wg.Go(func() {
		defer close(l.done)
		if l.carrier != nil {
			defer l.carrier.close()
		}
		d.ended(l, run())
	})
	return nil
}

// ended takes note of why the engine of l returned.
func (d *Driver) ended(l *listener, err error) {
	if errors.Is(err, udp.ErrClosed) || errors.Is(err, tcp.ErrClosed) || errors.Is(err, radius.ErrClosed) ||
		errors.Is(err, radsec.ErrClosed) || errors.Is(err, context.Canceled) {
		return
	}
	l.err.Store(&err)
	d.logger().Error("listener failed", "listener", l.name(), "address", l.spec.Address, "error", err)
	d.events.send(plugins.SeverityError, "listener", l.name(), "failed: "+err.Error())
}

// failed returns why l doesn't serve, or nil.
func (l *listener) failed() error {
	if p := l.err.Load(); p != nil {
		return *p
	}
	return nil
}

// gone reports whether the engine of l has returned.
func (l *listener) gone() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// shutdown has the engine end: when its clients have, or when ctx does.
func (l *listener) shutdown(ctx context.Context) {
	if l.cancel == nil {
		return // it never served
	}
	l.draining.Store(true)
	// That ctx ended first is no fault: it is what ctx is for.
	switch {
	case l.sec != nil:
		l.shutdownRadSec(ctx)
	case l.rad != nil:
		_ = l.rad.Shutdown(ctx)
	case l.udp != nil:
		_ = l.udp.Shutdown(ctx)
	default:
		_ = l.tcp.Shutdown(ctx)
	}
	<-l.done
	l.cancel()
}

// stop ends the engine of a UDP listener now, and returns the flows it had.
func (l *listener) stop() []udp.FlowState {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.shutdown(ctx)
	if l.udp == nil {
		return nil
	}
	return slices.Collect(l.udp.Flows())
}

// datagrams reports whether l serves UDP.
func (l *listener) datagrams() bool { return l.tcp == nil && l.sec == nil }

// linger lets the clients of l stay for a while, after which its sockets are
// closed, unless another listener has taken them over. When it returns, l accepts no
// connection any more: the next one is its successor's.
func (d *Driver) linger(l *listener) {
	l.draining.Store(true)
	if !l.datagrams() {
		// Its streams don't need it, and connections must not be taken by the
		// kernel for nobody.
		d.fronts.release(l.front, l)
	}
	after := cmp.Or(d.Linger, DefaultLinger)
	d.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), max(after, 0))
		defer cancel()
		l.shutdown(ctx)
		d.fronts.release(l.front, l)
	})
	for _, door := range l.doors {
		<-door.closed // that is what shutdown begins with
	}
}

// equal reports whether an engine made for spec would be like that of l.
func (l *listener) equal(spec *plugins.Listener) bool {
	a, b := l.spec, *spec
	a.Name, b.Name = "", ""
	return reflect.DeepEqual(a, b)
}

// key identifies the sockets of l.
func (l *listener) key() frontKey { return keyOf(l.spec.Protocol.Network(), l.spec.Address) }
