package tcp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// connect connects to the backend that the Balancer chooses, or to another if
// that one can't be reached.
func (e *Engine) connect(ctx context.Context, st *stream, v *lb.Verdict) (net.Conn, lb.Route, Refusal, error) {
	var room [8]lb.ID
	avoid := room[:0]
	var last error
	for try := range max(defaultTo(e.Tries, DefaultTries), 1) {
		r, err := e.Balancer.Route(v, st.flow, avoid...)
		if err != nil && last != nil {
			return nil, r, RefusedUnreachable, last
		}
		if err != nil {
			return nil, r, RefusedNoBackend, err
		}
		if try > 0 {
			e.count.retried.Add(1)
		}
		target := netip.AddrPortFrom(r.Member.Addr, e.Port)
		if e.Port == 0 {
			target = netip.AddrPortFrom(r.Member.Addr, st.flow.Service)
		}
		conn, why, err := e.reach(ctx, st, r.Member, target)
		if err == nil || why != RefusedUnreachable {
			return conn, r, why, err
		}
		avoid, last = append(avoid, r.Member.ID), err
	}
	return nil, lb.Route{}, RefusedUnreachable, last
}

// reach connects to one backend, and tells of it if it can't be reached, which is
// RefusedUnreachable.
func (e *Engine) reach(ctx context.Context, st *stream, m *lb.Member, target netip.AddrPort) (net.Conn, Refusal, error) {
	conn, err := e.dial(ctx, st.flow.Client, target)
	switch {
	case err == nil:
		e.tune(conn)
		return conn, 0, nil
	case ctx.Err() != nil:
		return nil, RefusedClosing, err
	case ours(err):
		e.logger().Log(ctx, e.grave(), "can't connect to any backend: this machine is to blame", "target", target, "err", err)
		return nil, RefusedLocal, err
	}
	e.count.unreachable.Add(1)
	e.Trace.unreachable(m, target, err)
	e.logger().Log(ctx, e.grave(), "backend can't be reached", "backend", m.Name, "target", target, "err", err)
	return nil, RefusedUnreachable, err
}

// grave is the level at which a failure to connect is logged: a warning at most
// once a second, since a thousand clients may meet the same dead backend.
func (e *Engine) grave() slog.Level {
	now := time.Now().Unix()
	if was := e.warned.Load(); was != now && e.warned.CompareAndSwap(was, now) {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// dial connects to target, for client.
func (e *Engine) dial(ctx context.Context, client, target netip.AddrPort) (net.Conn, error) {
	timeout := defaultTo(e.DialTimeout, DefaultDialTimeout)
	if e.Dial != nil {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return e.Dial(ctx, "tcp", target.String())
	}
	d := net.Dialer{Timeout: timeout, KeepAlive: -1} // tune sets keepalive
	var local netip.AddrPort
	if e.Transparent {
		if client.Addr().Is4() != target.Addr().Unmap().Is4() {
			return nil, errFamily
		}
		// Port 0: the kernel finds one that is free for this pair of
		// addresses, so the client's own can't be in the way.
		local = netip.AddrPortFrom(client.Addr(), 0)
		d.Control = controlTransparent
	}
	conn, err := d.DialTCP(ctx, "tcp", local, target)
	if err != nil {
		return nil, err // a nil *TCPConn must not become a net.Conn
	}
	return conn, nil
}

// errFamily says that a client can't be seen by a backend of the other family.
var errFamily = errors.New("tcp: a transparent stream can't change between IPv4 and IPv6")

// ours reports whether a failure to connect says nothing of the backend.
func ours(err error) bool {
	return slices.ContainsFunc([]error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.EPERM, syscall.EACCES,
		syscall.EAFNOSUPPORT, syscall.EINVAL, errFamily,
	}, func(e error) bool { return errors.Is(err, e) })
}

// tune sets what makes a vanished peer noticed. Failures are without
// consequence but that.
func (e *Engine) tune(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	if idle := defaultTo(e.KeepAlive, DefaultKeepAlive); idle > 0 {
		t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: idle, Interval: 15 * time.Second, Count: 4})
	} else {
		t.SetKeepAlive(false)
	}
	if d := defaultTo(e.UserTimeout, DefaultUserTimeout); d > 0 {
		setUserTimeout(t, d)
	}
}
