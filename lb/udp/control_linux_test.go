package udp_test

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/udp"
)

// ESP is never told of, and costs no allocation, with somebody who listens for
// control datagrams.
func TestControlNoAllocs(t *testing.T) {
	if testing.CoverMode() != "" {
		t.Skip("coverage counts as allocation")
	}
	var heard atomic.Int64
	e := &udp.Engine{Classifier: ikev2.Classifier{}, Trace: &udp.Trace{
		Control: func(lb.Flow, *lb.Member, []byte, bool) { heard.Add(1) },
	}}
	backend := newEcho(t, "127.0.0.2:0")
	at := serveLoop(t, e, "0.0.0.0:0", udp.ListenConfig{}, backend.addr())
	cl := dial(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port()))
	got := make([]byte, 2000)
	exchange := func(b []byte) {
		t.Helper()
		if _, err := cl.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := cl.Read(got); err != nil {
			t.Fatal(err)
		}
	}
	// The echo of an IKE message is one from the gateway. It makes the flow
	// known.
	ike := ikev2.AppendMessage(nil, ikev2.Header{
		SPIi: 1, SPIr: 2, Exchange: ikev2.ExchangeInformational, Flags: ikev2.FlagInitiator,
	}, ikev2.Payload{Type: ikev2.PayloadSK, Body: make([]byte, 40)})
	exchange(ike)
	if n := heard.Load(); n != 2 {
		t.Errorf("heard of %d datagrams, want the message and its echo", n)
	}
	esp := pattern(200, 9)
	binary.BigEndian.PutUint32(esp, 0x01020304)
	for range 100 {
		exchange(esp)
	}
	const packets = 2000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range packets {
		exchange(esp)
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > packets/10 {
		t.Errorf("%d allocations for %d packets there and back", n, packets)
	}
	if n := heard.Load(); n != 2 {
		t.Errorf("heard of %d datagrams, though only the first two weren't ESP", n)
	}
}
