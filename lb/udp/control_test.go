package udp_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/udp"
	"github.com/google/go-cmp/cmp"
)

// signalling is toy, in which datagrams to new clients and what answers them are
// control datagrams.
type signalling struct{ toy }

func (s signalling) Classify(b []byte, f lb.Flow) lb.Verdict {
	v := s.toy.Classify(b, f)
	v.Control = b[0] == 'N'
	return v
}

func (s signalling) Answer(b []byte, f lb.Flow) lb.Verdict {
	v := s.toy.Answer(b, f)
	v.Control = b[0] == 'h'
	return v
}

// Control datagrams are told of with the backend they go to or come from, others
// are not.
func TestControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		var mu sync.Mutex
		var heard []string
		w.engine.Classifier = signalling{}
		w.engine.Trace = &udp.Trace{Control: func(f lb.Flow, m *lb.Member, b []byte, answer bool) {
			name := "nobody"
			if m != nil {
				name = m.Name
			}
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, fmt.Sprintf("%v %c %s %v", f.Client, b[0], name, answer))
		}}
		w.serve()
		c := w.client("198.51.100.1:1000")
		first := c.ask(datagram('N', 7))
		for range 3 {
			c.ask(datagram('E', 7))
		}
		if err := w.gateways[first].send([]byte("h pushed"), w.gateways[first].from(7)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := w.pool.Set(); err != nil {
			t.Fatal(err)
		}
		if err := c.send(datagram('N', 8), netip.MustParseAddrPort(service)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		mu.Lock()
		want := []string{"198.51.100.1:1000 N gw0 false", "198.51.100.1:1000 h gw0 true", "198.51.100.1:1000 N nobody false"}
		if diff := cmp.Diff(want, heard); diff != "" {
			t.Errorf("control datagrams (-want +got):\n%s", diff)
		}
		mu.Unlock()
		w.stop(c)
	})
}
