package sstp

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func newCall() *call {
	c := new(call)
	c.up.from, c.down.from = PeerClient, PeerGateway
	c.up.phase, c.down.phase = phasePackets, phaseHead
	return c
}

// exchange is both directions of a session, up and down by turns.
func exchange(t testing.TB) [][]byte {
	t.Helper()
	ask := BindingRequest{Hashes: HashSHA256, Nonce: [32]byte{1}}
	bind, err := NewBinding(&ask, []byte("the DER of a certificate"), Key{})
	if err != nil {
		t.Fatal(err)
	}
	data := func(size int, frame ...byte) []byte {
		b, err := AppendData(nil, append(frame, make([]byte, size)...))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	head := (&Response{Status: 200, Length: ContentLength, Server: "Microsoft-HTTPAPI/2.0"}).Append(nil)
	return [][]byte{
		AppendConnectRequest(nil), append(head, AppendConnectAck(nil, &ask)...),
		data(0, 0xff, 3, 0xc2, 0x23, 2, 1, 0, 4), data(0, 0xff, 3, 0xc2, 0x23, 3, 1, 0, 4),
		AppendConnected(nil, &bind), data(1400, 0xff, 3, 0, 0x21),
		data(1400, 0xff, 3, 0, 0x21), AppendControl(nil, EchoRequest),
		AppendControl(nil, EchoResponse), AppendStatus(nil, CallDisconnect, StatusInfo{}),
	}
}

// TestFollowInAnyPieces: what is found doesn't depend on how the bytes come.
func TestFollowInAnyPieces(t *testing.T) {
	parts := exchange(t)
	whole := newCall()
	for i, p := range parts {
		whole.feed([]*follower{&whole.up, &whole.down}[i%2], p)
	}
	want := whole.snapshot()
	if want.Stage != StageConnected || want.Disconnected == nil || want.Auth.Result != AuthSucceeded || want.Reported.IsZero() || want.Unanswered != PeerNone {
		t.Fatalf("session %+v", want)
	}
	for range 200 {
		c := newCall()
		for i, p := range parts {
			f := []*follower{&c.up, &c.down}[i%2]
			for len(p) > 0 {
				n := min(1+rand.IntN(1+rand.IntN(200)), len(p))
				c.feed(f, p[:n])
				p = p[n:]
			}
		}
		if diff := cmp.Diff(want, c.snapshot(), cmpopts.IgnoreFields(Session{}, "Up", "Client")); diff != "" {
			t.Fatal(diff)
		}
	}
}

// FuzzFollow: whatever comes, in one piece or in single bytes, is understood
// alike, and nothing breaks.
func FuzzFollow(f *testing.F) {
	var up, down []byte
	for i, p := range exchange(f) {
		if i%2 == 0 {
			up = append(up, p...)
		} else {
			down = append(down, p...)
		}
	}
	f.Add(up, down)
	f.Add([]byte("\x10\x01\x00\x08\x00\x05\x00\x00"), []byte("HTTP/1.1 503 \r\n\r\npage"))
	f.Add([]byte{0x10, 0, 0, 4}, []byte("HTTP/1.1 200\r\n\r\n\x10\x01\x0f\xff\x00\x02\x00\x01"))
	f.Fuzz(func(t *testing.T, up, down []byte) {
		up, down = up[:min(len(up), 1<<14)], down[:min(len(down), 1<<14)]
		a, b := newCall(), newCall()
		a.feed(&a.up, up)
		a.feed(&a.down, down)
		for i := range up {
			b.feed(&b.up, up[i:i+1])
		}
		for i := range down {
			b.feed(&b.down, down[i:i+1])
		}
		x, y := a.snapshot(), b.snapshot()
		if diff := cmp.Diff(x, y, cmpopts.IgnoreFields(Session{}, "Up", "Client")); diff != "" {
			t.Error(diff)
		}
		x.Backend = "ras1"
		x.Finding = x.judge()
		x.Explain()
	})
}

// TestFollowAllocatesNothing once a session is up, however its bytes come.
func TestFollowAllocatesNothing(t *testing.T) {
	c := newCall()
	for i, p := range exchange(t)[:8] {
		c.feed([]*follower{&c.up, &c.down}[i%2], p)
	}
	packet, err := AppendData(nil, make([]byte, 1400))
	if err != nil {
		t.Fatal(err)
	}
	stream := bytes.Repeat(packet, 20)
	at := 0
	if n := testing.AllocsPerRun(1000, func() {
		for _, f := range []*follower{&c.up, &c.down} {
			c.feed(f, stream[:100+at])
			c.feed(f, stream[100+at:])
		}
		at = (at + 13) % 2000
	}); n != 0 {
		t.Errorf("%v allocations a chunk", n)
	}
}

func BenchmarkFollow(b *testing.B) {
	c := newCall()
	for i, p := range exchange(b)[:8] {
		c.feed([]*follower{&c.up, &c.down}[i%2], p)
	}
	packet, err := AppendData(nil, make([]byte, 1400))
	if err != nil {
		b.Fatal(err)
	}
	stream := bytes.Repeat(packet, 11) // about a record of TLS
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		c.feed(&c.up, stream)
	}
}
