package geodns_test

import (
	"testing"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/geo/geodns"
	"github.com/miekg/dns"
)

// TestGatewaysBehindOneAddress: an answer has no record twice (RFC 2181 section 5),
// though two gateways, or two sites, have the same address for clients.
func TestGatewaysBehindOneAddress(t *testing.T) {
	key, err := geodns.GenerateKey("example.com")
	if err != nil {
		t.Fatal(err)
	}
	key.Active = true
	w := newWorld(t, func(w *world, p *geo.Policy) { w.zone.Keys = &geodns.Keys{Keys: []*geodns.Key{key}} })
	list := sites()
	for i := range list {
		for j := range list[i].Gateways {
			list[i].Gateways[j].Addrs = append(list[i].Gateways[j].Addrs[:0:0], addr("198.51.100.1"), addr("198.51.100.1"), addr("2001:db8::1"))
		}
	}
	for _, method := range []geo.Method{geo.First, geo.All} {
		if w.plan, err = (&geo.Policy{Method: method}).Compile(list, nil, nil); err != nil {
			t.Fatal(err)
		}
		w.update()
		for typ, want := range map[string]string{"A": "198.51.100.1", "AAAA": "2001:db8::1"} {
			m := w.ask("vpn.example.com", typ, withDO)
			n := 0
			for _, rr := range m.Answer {
				if rr.Header().Rrtype != dns.TypeRRSIG {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%v: %d times %s:\n%v", method, n, want, m)
			}
		}
	}
}
