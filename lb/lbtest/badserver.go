package lbtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
)

// A badServer is a server that no probe may believe. It does something with each
// connection, which is closed afterwards, and answers each datagram.
type badServer struct {
	kind string
	// stream serves a connection; if it is nil, nobody listens at all.
	stream func(net.Conn) error
	// packet returns the answer to a datagram, and whether there is one.
	packet func(b []byte) ([]byte, bool)
}

var nonsense = []byte("\x00\xffnobody understands this\r\n\r\n\x1b[31m")

var badServers = []badServer{
	{kind: "a port where nobody listens"},
	{
		"a server that says nothing",
		func(c net.Conn) error { _, err := io.Copy(io.Discard, c); return err },
		func([]byte) ([]byte, bool) { return nil, false },
	},
	{
		"a server that says nonsense",
		func(c net.Conn) error {
			_, err := c.Write(nonsense)
			_, eof := io.Copy(io.Discard, c)
			return errors.Join(err, eof)
		},
		func([]byte) ([]byte, bool) { return nonsense, true },
	},
	{
		"a server that hangs up",
		func(net.Conn) error { return nil },
		func([]byte) ([]byte, bool) { return nil, true },
	},
	{
		"a server that echoes",
		func(c net.Conn) error { _, err := io.Copy(c, c); return err },
		func(b []byte) ([]byte, bool) { return b, true },
	},
}

// withBad calls f for each kind of bad server, all at once.
func withBad(f func(kind string, at netip.AddrPort) error) error {
	errs := make([]error, len(badServers))
	var wg sync.WaitGroup
	for i, s := range badServers {
		wg.Go(func() { errs[i] = s.during(f) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// during calls f while the server serves on loopback.
func (s badServer) during(f func(kind string, at netip.AddrPort) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l, p, err := listenBoth(ctx)
	if err != nil {
		return err
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	var wg sync.WaitGroup
	if s.stream == nil {
		l.Close()
		p.Close()
	} else {
		wg.Go(func() { s.accept(ctx, l, &wg) })
		wg.Go(func() { s.answer(p) })
	}
	err = f(s.kind, at)
	cancel()
	l.Close()
	p.Close()
	wg.Wait()
	return err
}

// listenBoth opens a port that is free for TCP and for UDP.
func listenBoth(ctx context.Context) (net.Listener, net.PacketConn, error) {
	const tries = 20
	var lc net.ListenConfig
	var last error
	for range tries {
		l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, fmt.Errorf("lbtest: %w", err)
		}
		p, err := lc.ListenPacket(ctx, "udp", l.Addr().String())
		if err == nil {
			return l, p, nil
		}
		l.Close()
		last = err
	}
	return nil, nil, fmt.Errorf("lbtest: no port is free for both TCP and UDP: %w", last)
}

// accept serves connections until l is closed, and those it has until ctx ends.
func (s badServer) accept(ctx context.Context, l net.Listener, wg *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			// How a probe ends its side is its own business.
			_ = s.stream(c)
			c.Close()
		})
	}
}

func (s badServer) answer(p net.PacketConn) {
	b := make([]byte, maxPayload)
	for {
		n, from, err := p.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for an answer before
		}
		if a, ok := s.packet(b[:n]); ok {
			_, _ = p.WriteTo(a, from) // the probe may be gone
		}
	}
}
