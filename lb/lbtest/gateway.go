package lbtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A Gateway answers datagrams in the place of a server. To each it says its name
// and what it was sent, unless Answer is set: see [Said]. It may be used from
// many goroutines.
type Gateway struct {
	// Name is what it calls itself.
	Name string
	// Answer, if not nil, returns what the gateway says to b, a datagram that
	// came from and to these addresses; nil says nothing. It must not retain b.
	Answer func(b []byte, from, to netip.AddrPort) []byte

	mu     sync.Mutex // below
	silent bool
	seen   map[netip.AddrPort]int
	heard  int
}

// Serve answers what comes to conns until ctx is done, whose cause it returns, or
// a socket fails. It owns conns and closes them.
func (g *Gateway) Serve(ctx context.Context, conns ...net.PacketConn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() { cancel(g.serve(c)) })
	}
	<-ctx.Done()
	err := context.Cause(ctx)
	for _, c := range conns {
		if cerr := c.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	wg.Wait()
	return err
}

func (g *Gateway) serve(c net.PacketConn) error {
	to, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return fmt.Errorf("lbtest: gateway %s: %w", g.Name, err)
	}
	b := make([]byte, maxPayload)
	for {
		n, a, err := c.ReadFrom(b)
		if err != nil {
			return fmt.Errorf("lbtest: gateway %s: %w", g.Name, err)
		}
		from, err := netip.ParseAddrPort(a.String())
		if err != nil {
			return fmt.Errorf("lbtest: gateway %s: %w", g.Name, err)
		}
		if !g.note(from) {
			continue
		}
		answer := append([]byte(g.Name+separator), b[:n]...)
		if g.Answer != nil {
			answer = g.Answer(b[:n], from, to)
		}
		if answer == nil {
			continue
		}
		if _, err := c.WriteTo(answer, a); errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("lbtest: gateway %s: %w", g.Name, err)
		}
	}
}

// note counts a datagram, and reports whether it is answered.
func (g *Gateway) note(from netip.AddrPort) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.silent {
		return false
	}
	if g.seen == nil {
		g.seen = make(map[netip.AddrPort]int)
	}
	g.seen[from]++
	g.heard++
	return true
}

// Silence makes the gateway ignore everything, as a machine that has crashed, or
// ends that.
func (g *Gateway) Silence(silent bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.silent = silent
}

// Heard returns how many datagrams the gateway took, those it had no answer to
// included.
func (g *Gateway) Heard() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.heard
}

// Clients returns where datagrams came from, in order.
func (g *Gateway) Clients() []netip.AddrPort {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []netip.AddrPort
	for a := range g.seen {
		all = append(all, a)
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return all
}

// separator stands between the name of a Gateway and what it was sent.
const separator = "\x00"

// Said returns who gave an answer, and what to. It reports whether b is such an
// answer at all.
func Said(b []byte) (gateway string, payload []byte, ok bool) {
	name, payload, ok := bytes.Cut(b, []byte(separator))
	return string(name), payload, ok
}

// Ask sends b through c and returns the answer. It waits for no longer than
// patience; 0 means a second.
func Ask(c *Conn, to netip.AddrPort, b []byte, patience time.Duration) (Datagram, error) {
	if patience <= 0 {
		patience = time.Second
	}
	if _, err := c.WriteToUDPAddrPort(b, to); err != nil {
		return Datagram{}, err
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return Datagram{}, err
	}
	return c.Receive()
}
