package ikev2

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// A flood of handshakes from made-up addresses takes no more than its share of
// memory, and doesn't keep a Watch from judging others. Many goroutines feed it.
func TestWatchFlood(t *testing.T) {
	w := Watch{MaxConversations: 64}
	vip, start := netip.MustParseAddrPort("198.51.100.100:500"), time.Unix(1e9, 0)
	hello := func(spi uint64, b []byte, flags Flags, ps ...Payload) []byte {
		return AppendMessage(b[:0], Header{SPIi: SPI(spi), Exchange: ExchangeSAInit, Flags: flags}, ps...)
	}
	honest := netip.MustParseAddrPort("203.0.113.7:500")
	w.Observe(&Event{Time: start, From: honest, To: vip, Gateway: "ras1", Data: hello(1, nil, FlagInitiator)})
	w.Observe(&Event{Time: start.Add(time.Millisecond), From: vip, To: honest, Gateway: "ras1", Data: hello(1, nil, FlagResponse, NotifyPayload(NotifyNoProposalChosen, nil))})
	const workers, each = 4, 5000
	var wg sync.WaitGroup
	for g := range uint64(workers) {
		wg.Go(func() {
			var b []byte
			for i := range uint64(each) {
				n := 2 + g*each + i
				var a [4]byte
				binary.BigEndian.PutUint32(a[:], 0x0a000000+uint32(n))
				b = hello(n, b, FlagInitiator)
				w.Observe(&Event{Time: start.Add(time.Duration(i) * time.Millisecond), From: netip.AddrPortFrom(netip.AddrFrom4(a), 500), To: vip, Gateway: "ras1", Data: b})
			}
		})
	}
	wg.Wait()
	if n := w.tracker.begun.n + w.tracker.met.n; n > 64 || len(w.tracker.spis) > 64 || len(w.tracker.flows) > 64*2*maxFlowsKept || len(w.queue) > 64*8 {
		t.Errorf("%d conversations, %d SPIs, %d flows, %d to be judged", n, len(w.tracker.spis), len(w.tracker.flows), len(w.queue))
	}
	got := w.Handshakes(start.Add(10 * time.Minute))
	if len(got) != 1 || got[0].Begun != workers*each+1 || got[0].Failed[FindingNoProposal] != 1 {
		t.Errorf("got %+v", got)
	}
	if n := len(w.Problems(start.Add(10 * time.Minute))); n > keptProblems {
		t.Errorf("%d problems kept", n)
	}
}

func BenchmarkWatch(b *testing.B) {
	var w Watch
	vip, client := netip.MustParseAddrPort("198.51.100.100:500"), netip.MustParseAddrPort("203.0.113.7:500")
	now, n := time.Unix(1e9, 0), uint64(0)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		n++
		buf = AppendMessage(buf[:0], Header{SPIi: SPI(n), Exchange: ExchangeSAInit, Flags: FlagInitiator})
		w.Observe(&Event{Time: now.Add(time.Duration(n) * time.Millisecond), From: client, To: vip, Gateway: "ras1", Data: buf})
	}
}

// FuzzWatch feeds a Watch and a Tracker datagrams cut out of what the fuzzer makes
// up: each begins with an octet for its direction and port, one for the time until
// it came, and two for its length.
func FuzzWatch(f *testing.F) {
	add := func(ds ...[]byte) {
		var all []byte
		for i, d := range ds {
			all = append(all, byte(i), byte(i), byte(len(d)>>8), byte(len(d)))
			all = append(all, d...)
		}
		f.Add(all)
	}
	var all [][]byte
	seed(f, func(b []byte) {
		add(b, b)
		if len(all) < 40 {
			all = append(all, b)
		}
	})
	add(all...)
	add(windowsInit(), message(ExchangeSAInit, FlagResponse, 1, 0, NotifyPayload(NotifyNoProposalChosen, nil)))
	clients := []netip.AddrPort{netip.MustParseAddrPort("203.0.113.7:500"), netip.MustParseAddrPort("[2001:db8::7]:4500")}
	vips := []netip.AddrPort{netip.MustParseAddrPort("198.51.100.100:500"), netip.MustParseAddrPort("[2001:db8::100]:4500")}
	f.Fuzz(func(t *testing.T, b []byte) {
		w := Watch{MaxConversations: 8}
		tr := Tracker{MaxConversations: 8, MaxExchanges: 8}
		now := time.Unix(1e9, 0)
		for len(b) >= 4 {
			n := min(int(binary.BigEndian.Uint16(b[2:])), len(b)-4)
			e := Event{Time: now, From: clients[b[0]>>1&1], To: vips[b[0]>>1&1], Gateway: string('a' + b[0]>>2&3), Data: b[4:][:n]}
			if b[0]&1 == 1 {
				e.From, e.To = e.To, e.From
			}
			if b[0] >= 0xf0 {
				e.Kind = EventKind(b[0] & 3)
			}
			now = now.Add(time.Duration(b[1]) * 100 * time.Millisecond)
			b = b[4+n:]
			w.Observe(&e)
			tr.Observe(&e)
		}
		r := tr.Report()
		if len(r.Conversations) > 8 {
			t.Errorf("%d conversations", len(r.Conversations))
		}
		_ = w.Problems(now.Add(time.Hour))
		// A handshake that begins at one gateway may be over at another.
		var begun, over uint64
		for _, h := range w.Handshakes(now.Add(time.Hour)) {
			begun += h.Begun
			over += h.Finished
			for _, n := range h.Failed {
				over += n
			}
		}
		if over > begun {
			t.Errorf("%d handshakes begun, %d over", begun, over)
		}
	})
}
