package sstp

import (
	"net/netip"
	"testing"

	"github.com/aovlb/aovlb/lb"
)

func flow(addr string) lb.Flow {
	return lb.Flow{Client: netip.MustParseAddrPort(addr), Service: 443}
}

func newBalancer(t *testing.T) *lb.Balancer {
	t.Helper()
	b := &lb.Balancer{Pool: new(lb.Pool), Table: new(lb.Table)}
	if err := b.Pool.Set(
		lb.Backend{Name: "ras1", Addr: netip.MustParseAddr("10.0.1.11")},
		lb.Backend{Name: "ras2", Addr: netip.MustParseAddr("10.0.1.12")},
	); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSnifferNeedsNoBytes(t *testing.T) {
	for _, a := range []Affinity{AffinityConnection, AffinitySource} {
		v, more := Sniffer{Affinity: a}.Sniff(nil, flow("192.0.2.7:50000"))
		if v.Drop || !v.Begin || more != 0 {
			t.Errorf("%v: %+v, %d more", a, v, more)
		}
	}
}

// TestSnifferFollowsTunnel opens SSTP where an IKEv2 tunnel of the same computer
// is, whichever gateway that is.
func TestSnifferFollowsTunnel(t *testing.T) {
	b := newBalancer(t)
	for i, m := range b.Pool.View().Members {
		f := flow("192.0.2.7:50000")
		ike := lb.Uint64Key(16, uint64(i+1))
		b.Table.Forget(lb.Uint64Key(16, 1))
		b.Answered(m, f, lb.StageEstablished, lb.WhyPicked, ike)
		v, _ := Sniffer{}.Sniff(nil, f)
		r, err := b.Route(&v, f)
		if err != nil || r.Member.Name != m.Name || r.Why != lb.WhyHint {
			t.Errorf("the tunnel is at %s, SSTP goes to %+v, %v", m.Name, r, err)
		}
	}
}

func TestSnifferSpreadsOneAddress(t *testing.T) {
	b := newBalancer(t)
	got := map[string]int{}
	for port := range 200 {
		f := lb.Flow{Client: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), uint16(40000+port)), Service: 443}
		v, _ := Sniffer{}.Sniff(nil, f)
		r, err := b.Route(&v, f)
		if err != nil {
			t.Fatal(err)
		}
		s := b.Attach(r.Member, &v, f, r.Why)
		defer s.Close()
		got[r.Member.Name]++
	}
	if got["ras1"] < 60 || got["ras2"] < 60 {
		t.Errorf("connections of one address: %v", got)
	}
}

func TestSnifferKeepsSource(t *testing.T) {
	b := newBalancer(t)
	var first string
	for port := range 50 {
		f := lb.Flow{Client: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), uint16(40000+port)), Service: 443}
		v, _ := Sniffer{Affinity: AffinitySource}.Sniff(nil, f)
		r, err := b.Route(&v, f)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Attach(r.Member, &v, f, r.Why).Close()
		if first == "" {
			first = r.Member.Name
		}
		if r.Member.Name != first {
			t.Fatalf("port %d went to %s, others to %s", port, r.Member.Name, first)
		}
	}
}

func TestSnifferDoesNotAllocate(t *testing.T) {
	f := flow("[2001:db8::7]:50000")
	var s lb.Sniffer = Sniffer{}
	if n := testing.AllocsPerRun(100, func() { s.Sniff(nil, f) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
