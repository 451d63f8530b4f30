package lbtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"github.com/aovlb/aovlb/lb"
)

// TestClassifier holds c against what [lb.Classifier] promises. The corpus has
// real datagrams of the protocol, from clients and from servers; the more kinds,
// the more is tried: each is also cut off at every length, has its bits turned
// over, and is changed at random, the same way each time. The test needs no
// network and no more than seconds.
//
// It can't be run in parallel with other tests, for it counts allocations.
func TestClassifier(t *testing.T, c lb.Classifier, corpus [][]byte) {
	t.Helper()
	if len(corpus) == 0 {
		t.Fatal("lbtest: a corpus without a datagram tests nothing")
	}
	hold(t, classifierPromises(c, corpus))
}

func classifierPromises(c lb.Classifier, corpus [][]byte) []promise {
	k := classified{c, corpus}
	return []promise{
		{"never panics", "anybody can send anything to a balancer, and a panic ends every client's session at once", k.panics},
		{"leaves the datagram alone", "the same bytes are forwarded afterwards", k.changes},
		{"stays within the datagram", "what stands behind it in the buffer belongs to somebody else's datagram", k.strays},
		{"retains nothing", "the buffer holds another datagram a moment later", k.retains},
		{"is deterministic", "two packets of one client must get the same names, whatever came between", k.wavers},
		{"is safe for many goroutines", "an engine has a worker for each processor, and one Classifier", k.races},
		{"allocates nothing", "it is called for every datagram; garbage would cost more than forwarding does", k.allocates},
		{"makes sound verdicts", "the balancer believes what it is told", k.unsound},
	}
}

type classified struct {
	lb.Classifier
	corpus [][]byte
}

// flows are who the datagrams come from: the usual, IPv6, an IPv4 address in
// IPv6 clothes, and nobody.
var flows = []lb.Flow{
	{Client: netip.MustParseAddrPort("203.0.113.7:500"), Service: 500},
	{Client: netip.MustParseAddrPort("203.0.113.7:61001"), Service: 4500},
	{Client: netip.MustParseAddrPort("[2001:db8::7]:61002"), Service: 4500},
	{Client: netip.MustParseAddrPort("[::ffff:203.0.113.8]:61003"), Service: 1812},
	{},
}

// ways are the two questions a Classifier is asked.
var ways = []struct {
	name string
	ask  func(lb.Classifier, []byte, lb.Flow) lb.Verdict
}{
	{"Classify", lb.Classifier.Classify},
	{"Answer", lb.Classifier.Answer},
}

// each asks about b in both ways for every flow, until f has an error.
func (k classified) each(b []byte, f func(v lb.Verdict, flow lb.Flow) error) error {
	for _, w := range ways {
		for _, flow := range flows {
			var err error
			if p := caught(func() { err = f(w.ask(k.Classifier, b, flow), flow) }); p != nil {
				err = p
			}
			if err != nil {
				return fmt.Errorf("%s of %s from %v to %d: %w", w.name, short(b), flow.Client, flow.Service, err)
			}
		}
	}
	return nil
}

// short shows a datagram, or its beginning.
func short(b []byte) string {
	const most = 48
	if len(b) > most {
		return fmt.Sprintf("%x… (%d bytes)", b[:most], len(b))
	}
	return fmt.Sprintf("%x (%d bytes)", b, len(b))
}

func fine(lb.Verdict, lb.Flow) error { return nil }

func (k classified) panics() error {
	for b := range mutations(k.corpus) {
		if err := k.each(b, fine); err != nil {
			return err
		}
	}
	return nil
}

// mutations yields what could become of the corpus. The bytes are the caller's
// until the next.
func mutations(corpus [][]byte) func(yield func([]byte) bool) {
	const (
		cutBytes   = 2048 // longer ones are cut in steps
		turnBytes  = 160  // where headers are
		changes    = 200  // at random, of each
		mostChange = 8    // bytes at once
	)
	return func(yield func([]byte) bool) {
		r := rand.New(rand.NewPCG(1, 2)) // the same each time
		for _, whole := range append([][]byte{nil, make([]byte, 1), bytes.Repeat([]byte{255}, 64), make([]byte, maxPayload)}, corpus...) {
			for n := 0; n <= len(whole); n += 1 + n/cutBytes*64 {
				if !yield(bytes.Clone(whole[:n])) {
					return
				}
			}
			for i := range min(len(whole), turnBytes) * 8 {
				b := bytes.Clone(whole)
				b[i/8] ^= 1 << (i % 8)
				if !yield(b) {
					return
				}
			}
			for range changes {
				b := bytes.Clone(whole)
				for range 1 + r.IntN(mostChange) {
					if len(b) > 0 {
						b[r.IntN(len(b))] = byte(r.Uint32())
					}
				}
				if r.IntN(4) == 0 {
					b = append(b, b...)
				}
				if !yield(b) {
					return
				}
			}
		}
	}
}

func (k classified) changes() error {
	for _, whole := range k.corpus {
		b := bytes.Clone(whole)
		if err := k.each(b, func(lb.Verdict, lb.Flow) error {
			if !bytes.Equal(b, whole) {
				return fmt.Errorf("the datagram is %s afterwards", short(b))
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func (k classified) strays() error {
	for _, whole := range k.corpus {
		for _, n := range []int{len(whole), len(whole) / 2, min(len(whole), 28), 1} {
			exact := bytes.Clone(whole[:n])
			want := k.ask(exact[:n:n])
			for _, fill := range []byte{0, 0xa5, 0xff} {
				roomy := append(bytes.Clone(exact), bytes.Repeat([]byte{fill}, 64)...)
				if got := k.ask(roomy[:n]); got != want {
					return fmt.Errorf("%s: the verdict depends on what stands behind the datagram", short(exact))
				}
				if !bytes.Equal(roomy[n:], bytes.Repeat([]byte{fill}, 64)) {
					return fmt.Errorf("%s: what stood behind the datagram has been changed", short(exact))
				}
			}
		}
	}
	return nil
}

// verdicts are the answers to all questions about one datagram.
type verdicts [2 * 5]lb.Verdict

// ask asks everything about b.
func (k classified) ask(b []byte) verdicts {
	var all verdicts
	i := 0
	for _, w := range ways {
		for _, flow := range flows {
			all[i] = w.ask(k.Classifier, b, flow)
			i++
		}
	}
	return all
}

func (k classified) retains() error {
	for _, whole := range k.corpus {
		b := bytes.Clone(whole)
		first := k.ask(b)
		reasons := make([]string, len(first))
		for i, v := range first {
			reasons[i] = string([]byte(v.Reason))
		}
		for i := range b {
			b[i] = ^b[i]
		}
		for i, v := range first {
			if v.Reason != reasons[i] {
				return fmt.Errorf("%s: the reason %q is %q when the buffer is used again", short(whole), reasons[i], v.Reason)
			}
		}
		if again := k.ask(bytes.Clone(whole)); again != first {
			return fmt.Errorf("%s: the verdict is another one when the buffer of an earlier call is used again", short(whole))
		}
	}
	return nil
}

func (k classified) wavers() error {
	want := make([]verdicts, len(k.corpus))
	for i, b := range k.corpus {
		want[i] = k.ask(b)
	}
	for i := len(k.corpus) - 1; i >= 0; i-- {
		if k.ask(k.corpus[i]) != want[i] {
			return fmt.Errorf("%s: asked again, after others, the verdict is another one", short(k.corpus[i]))
		}
	}
	return nil
}

func (k classified) races() error {
	const workers, rounds = 4, 20
	want := make([]verdicts, len(k.corpus))
	for i, b := range k.corpus {
		want[i] = k.ask(b)
	}
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := range rounds * len(k.corpus) {
				i := (n + w) % len(k.corpus)
				if k.ask(k.corpus[i]) != want[i] {
					errs[w] = fmt.Errorf("%s: the verdict is another one while other goroutines ask", short(k.corpus[i]))
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (k classified) allocates() error {
	for _, b := range k.corpus {
		for _, w := range ways {
			for _, flow := range flows {
				var v lb.Verdict
				if n := testing.AllocsPerRun(20, func() { v = w.ask(k.Classifier, b, flow) }); n > 0 {
					return fmt.Errorf("%s of %s: %v allocations (verdict: drop %t)", w.name, short(b), n, v.Drop)
				}
			}
		}
	}
	return nil
}

func (k classified) unsound() error {
	for b := range mutations(k.corpus) {
		if err := k.each(b, sound); err != nil {
			return err
		}
	}
	return nil
}

// sound returns what is wrong with a verdict by itself.
func sound(v lb.Verdict, f lb.Flow) error {
	switch {
	case v.Drop && v.Reason == "":
		return errors.New("dropped without a Reason; administrators are shown it")
	case v.Drop && v.Stage != lb.StageNone:
		return fmt.Errorf("dropped, and yet it proves the client %v", v.Stage)
	case v.Miss > lb.MissDrop:
		return fmt.Errorf("there is no Miss %d", v.Miss)
	case v.Stage > lb.StageEstablished:
		return fmt.Errorf("there is no Stage %d", v.Stage)
	}
	seen := map[lb.Key]bool{}
	for _, name := range v.Keys {
		switch {
		case name.IsZero():
			continue
		case seen[name]:
			return fmt.Errorf("the name %v is there twice", name)
		case name.Space() == lb.SpaceFlow && name != lb.FlowKey(f):
			return fmt.Errorf("the name %v is the flow of somebody else than %v", name, f.Client)
		case name.Space() < lb.SpaceProtocol && name.Space() != lb.SpaceAddr && name.Space() != lb.SpaceFlow:
			return fmt.Errorf("the name %v is in a space that belongs to package lb", name)
		}
		seen[name] = true
	}
	return nil
}
