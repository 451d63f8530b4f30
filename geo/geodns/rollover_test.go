package geodns_test

import (
	"fmt"
	"testing"

	"github.com/aovlb/aovlb/geo/geodns"
	"github.com/miekg/dns"
)

// TestRollover changes a zone's key in the steps that docs/geo.md has. At each,
// what a resolver may still have from the step before must do for the answers of
// this one, and the other way round.
func TestRollover(t *testing.T) {
	var old, next *geodns.Key
	for _, k := range []**geodns.Key{&old, &next} {
		var err error
		if *k, err = geodns.GenerateKey("example.com"); err != nil {
			t.Fatal(err)
		}
	}
	type key struct {
		*geodns.Key
		active, announce bool
	}
	w := newWorld(t, nil)
	type step struct {
		keys    []*dns.DNSKEY
		keyset  *dns.Msg
		answers []*dns.Msg
	}
	var steps []step
	for i, keys := range [][]key{
		{{old, true, true}},
		{{old, true, true}, {next, false, false}},
		{{old, true, false}, {next, true, true}},
		{{old, false, false}, {next, true, true}},
		{{next, true, true}},
	} {
		set := new(geodns.Keys)
		for _, k := range keys {
			k.Active, k.Announce = k.active, k.announce
			set.Keys = append(set.Keys, k.Key)
		}
		z := parseZone(t, "example.com", zoneText)
		z.Keys = set
		if err := w.server.Set([]*geodns.Zone{z}, []*geodns.Name{w.name}); err != nil {
			t.Fatal(err)
		}
		w.update()
		var s step
		s.keyset = w.askBy("tcp", "example.com", "DNSKEY", withDO)
		for _, rr := range s.keyset.Answer {
			if k, ok := rr.(*dns.DNSKEY); ok {
				s.keys = append(s.keys, k)
			}
		}
		if len(s.keys) != len(keys) {
			t.Fatalf("step %d: %d keys are served", i, len(s.keys))
		}
		for _, q := range []string{"mail.example.com", "vpn.example.com", "nope.example.com"} {
			s.answers = append(s.answers, w.askBy("tcp", q, "A", withDO))
		}
		steps = append(steps, s)
		// What the parent points to: the old key until it has seen step 2's CDS.
		for _, trusted := range map[int][]*geodns.Key{0: {old}, 1: {old}, 2: {old, next}, 3: {next}, 4: {next}}[i] {
			if err := signedBy(s.keyset, s.keys, trusted.Tag()); err != nil {
				t.Errorf("step %d: the keys, with %v at the parent: %v", i, trusted, err)
			}
		}
		cds := w.askBy("tcp", "example.com", "CDS", withDO).Answer[0].(*dns.CDS)
		if want := []*geodns.Key{old, old, next, next, next}[i]; cds.KeyTag != want.Tag() {
			t.Errorf("step %d: the parent is told of key %d, not %v", i, cds.KeyTag, want)
		}
	}
	for i, s := range steps {
		for _, j := range []int{i - 1, i, i + 1} {
			if j < 0 || j >= len(steps) {
				continue
			}
			for _, m := range s.answers {
				if err := signedBy(m, steps[j].keys, 0); err != nil {
					t.Errorf("an answer of step %d with the keys of step %d: %v", i, j, err)
				}
			}
		}
	}
}

// signedBy wants each set of a response to have a signature that one of some keys
// verifies: the key of a tag, unless that is 0.
func signedBy(m *dns.Msg, keys []*dns.DNSKEY, tag uint16) error {
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		sets, sigs := make(map[uint16][]dns.RR), make(map[uint16][]*dns.RRSIG)
		for _, rr := range section {
			if s, ok := rr.(*dns.RRSIG); ok {
				sigs[s.TypeCovered] = append(sigs[s.TypeCovered], s)
			} else {
				sets[rr.Header().Rrtype] = append(sets[rr.Header().Rrtype], rr)
			}
		}
		for typ, set := range sets {
			good := false
			for _, s := range sigs[typ] {
				for _, k := range keys {
					good = good || k.KeyTag() == s.KeyTag && (tag == 0 || k.KeyTag() == tag) && s.Verify(k, set) == nil
				}
			}
			if !good {
				return fmt.Errorf("no good signature of %s", dns.TypeToString[typ])
			}
		}
	}
	return nil
}
