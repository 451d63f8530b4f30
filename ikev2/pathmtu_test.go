package ikev2

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// path is a way to a gateway that answers what gets there.
type path struct {
	mtu      int // of IP packets
	overhead int
	link     int  // what this machine's own link takes
	tells    bool // routers say what is too large
	lies     int  // what they say instead of mtu
	drop     int  // every so many packets
	dead     bool

	sent    int
	answers [][]byte
	reports []*MTUReport
}

func (p *path) close() {}

func (p *path) send(b []byte) error {
	size := len(b) + p.overhead
	p.sent++
	switch {
	case p.link > 0 && size > p.link:
		return errTooLong
	case p.dead || p.drop > 0 && p.sent%p.drop == 0:
	case size > p.mtu && p.tells:
		said := p.mtu
		if p.lies > 0 {
			said = p.lies
		}
		p.reports = append(p.reports, &MTUReport{From: netip.MustParseAddr("198.51.100.1"), MTU: said})
	case size <= p.mtu:
		_, msg := Identify(b)
		h, _ := ParseHeader(msg)
		h.Flags = FlagResponse
		p.answers = append(p.answers, AppendMessage(nil, h, NotifyPayload(NotifyNoProposalChosen, nil)))
	}
	return nil
}

func (p *path) receive(until time.Time, b []byte) (int, *MTUReport, error) {
	if len(p.reports) > 0 {
		r := p.reports[0]
		p.reports = p.reports[1:]
		return 0, r, nil
	}
	if len(p.answers) > 0 {
		n := copy(b, p.answers[0])
		p.answers = p.answers[1:]
		time.Sleep(time.Millisecond)
		return n, nil, nil
	}
	time.Sleep(time.Until(until))
	return 0, nil, errNothing
}

func measure(t *testing.T, p *path, c PathMTU, target string) (MTUResult, error) {
	t.Helper()
	m := &mtuMeasurement{p: c, s: p, target: netip.MustParseAddrPort(target), overhead: p.overhead, least: 576}
	if p.overhead == 48 {
		m.least = 1280
	}
	err := m.run(t.Context())
	return m.result, err
}

func TestPathMTU(t *testing.T) {
	for _, x := range []struct {
		name      string
		path      path
		target    string
		want      int
		lost      int
		blackhole bool
		most      int // packets
	}{
		{"ethernet", path{mtu: 1500, overhead: 28}, "203.0.113.1:500", 1500, 0, false, 2},
		{"told", path{mtu: 1400, overhead: 28, tells: true}, "203.0.113.1:500", 1400, 1401, false, 4},
		{"blackhole", path{mtu: 1400, overhead: 28}, "203.0.113.1:500", 1400, 1401, true, 40},
		{"own link", path{mtu: 1500, overhead: 28, link: 1420}, "203.0.113.1:500", 1420, 1421, false, 15},
		{"told too little", path{mtu: 1400, overhead: 28, tells: true, lies: 1200}, "203.0.113.1:500", 1400, 1401, false, 30},
		{"told nothing", path{mtu: 1400, overhead: 28, tells: true, lies: -1}, "203.0.113.1:500", 1400, 1401, false, 30},
		{"marker", path{mtu: 1400, overhead: 28, tells: true}, "203.0.113.1:4500", 1400, 1401, false, 4},
		{"IPv6", path{mtu: 1452, overhead: 48, tells: true}, "[2001:db8::1]:500", 1452, 1453, false, 4},
		{"loss", path{mtu: 1000, overhead: 28, drop: 4}, "203.0.113.1:500", 1000, 1001, true, 60},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, err := measure(t, &x.path, PathMTU{}, x.target)
				if err != nil || r.MTU != x.want || r.Lost != x.lost || r.Blackhole() != x.blackhole {
					t.Errorf("got %+v, %v", r, err)
				}
				if r.Sent > x.most || r.Sent != x.path.sent {
					t.Errorf("%d packets, want %d at most", r.Sent, x.most)
				}
				if r.RoundTrip != time.Millisecond {
					t.Errorf("round trip %v", r.RoundTrip)
				}
			})
		})
	}
	t.Run("dead", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, err := measure(t, &path{dead: true, overhead: 28}, PathMTU{Tries: 2}, "203.0.113.1:500")
			if !errors.Is(err, ErrNoAnswer) || r.Sent != 2 {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("enough")
		cancel(cause)
		m := &mtuMeasurement{s: &path{mtu: 1500, overhead: 28}, target: netip.MustParseAddrPort("203.0.113.1:500"), overhead: 28, least: 576}
		if err := m.run(ctx); !errors.Is(err, cause) {
			t.Errorf("got %v", err)
		}
	})
}
