package radius

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// directory is several servers that know the same account.
type directory struct {
	targets []netip.AddrPort
	asked   chan struct{} // has something for each login, but not for its repetitions
	answer  chan struct{} // closed once the servers answer
}

func newDirectory(t *testing.T, servers int, password string) *directory {
	t.Helper()
	d := &directory{asked: make(chan struct{}, 100), answer: make(chan struct{})}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	for range servers {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		d.targets = append(d.targets, c.LocalAddr().(*net.UDPAddr).AddrPort())
		wg.Go(func() { d.serve(c, password) })
	}
	return d
}

func (d *directory) serve(c *net.UDPConn, password string) {
	seen := make(map[[16]byte]bool)
	buf := make([]byte, MaxLen)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		p, err := Parse(buf[:n])
		if err != nil || seen[p.Authenticator()] {
			continue
		}
		seen[p.Authenticator()] = true
		d.asked <- struct{}{}
		<-d.answer
		code := AccessReject
		hidden, _ := p.Lookup(UserPassword)
		if string(hidden) == string(hidePassword(clientSecret, p.Authenticator(), []byte(password))) {
			code = AccessAccept
		}
		c.WriteToUDPAddrPort(seal(build(code, p.Identifier(), 0), clientSecret, p.Authenticator()), from)
	}
}

// ask asks all servers at once.
func (d *directory) ask(ctx context.Context, p *LoginProber) (errs []error) {
	errs = make([]error, len(d.targets))
	var wg sync.WaitGroup
	for i, at := range d.targets {
		wg.Go(func() { errs[i] = p.Probe(ctx, at) })
	}
	wg.Wait()
	return errs
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A password that is wrong on all servers is tried so seldom that it locks no
// account out, even if all are asked at once and answer late.
func TestLoginLocksNobodyOut(t *testing.T) {
	d := newDirectory(t, 8, "changed")
	p := &LoginProber{Prober: Prober{Secret: clientSecret, User: "probe"}, Password: NewSecret([]byte("old"))}
	go func() {
		for range atOnce { // as many as there will be
			<-d.asked
		}
		close(d.answer)
	}()
	rejected, refused := 0, 0
	for _, err := range d.ask(patient(t), p) {
		switch {
		case err == nil:
			t.Error("a wrong password was taken")
		case strings.Contains(err.Error(), "isn't tried"):
			refused++
		case strings.Contains(err.Error(), "rejected"):
			rejected++
		default:
			t.Error(err)
		}
	}
	if rejected != atOnce || refused != len(d.targets)-atOnce || len(d.asked) > 0 {
		t.Errorf("%d rejected, %d refused, and %d more tried", rejected, refused, len(d.asked))
	}
	if d.ask(patient(t), p); len(d.asked) > 0 {
		t.Errorf("%d tried again at once", len(d.asked))
	}
}

// The right password is tried at each server.
func TestLoginAsksAll(t *testing.T) {
	d := newDirectory(t, 8, "right")
	close(d.answer)
	p := &LoginProber{Prober: Prober{Secret: clientSecret, User: "probe"}, Password: NewSecret([]byte("right"))}
	for i, err := range d.ask(patient(t), p) {
		if err != nil {
			t.Errorf("server %d: %v", i, err)
		}
	}
	if len(d.asked) != len(d.targets) {
		t.Errorf("%d servers were asked, want %d", len(d.asked), len(d.targets))
	}
}
