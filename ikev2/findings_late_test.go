package ikev2

import (
	"net/netip"
	"testing"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/google/go-cmp/cmp"
)

// inside is a protected message of about n octets that begins with a payload.
func inside(ex ExchangeType, f Flags, id uint32, p PayloadType, n int) []byte {
	return AppendMessage(nil, Header{SPIi: 7, SPIr: 8, Exchange: ex, Flags: f, MessageID: id}, Payload{Type: PayloadSK, Inner: p, Body: make([]byte, n)})
}

// TestWatchLateInEAP: a handshake that ends with a step of EAP has failed, however
// long that step is; but not before its user has had time to answer.
func TestWatchLateInEAP(t *testing.T) {
	client, vip := netip.MustParseAddrPort("203.0.113.7:4500"), netip.MustParseAddrPort("198.51.100.100:4500")
	start := time.Unix(1e9, 0)
	type sent struct {
		after time.Duration
		b     []byte
	}
	ms := time.Millisecond
	begin := []sent{
		{0, saInit(7)},
		{ms, message(ExchangeSAInit, FlagResponse, 7, 8, testSA(), testKE(GroupMODP2048), testNonce())},
		{ms, inside(ExchangeAuth, FlagInitiator, 1, PayloadIDi, 300)},
		{ms, inside(ExchangeAuth, FlagResponse, 1, PayloadIDr, 1200)},
		{ms, inside(ExchangeAuth, FlagInitiator, 2, PayloadEAP, 40)},
		{ms, inside(ExchangeAuth, FlagResponse, 2, PayloadEAP, 1000)},
	}
	end := func(wait time.Duration) []sent {
		return []sent{
			{wait, inside(ExchangeAuth, FlagInitiator, 3, PayloadEAP, 500)},
			{ms, inside(ExchangeAuth, FlagResponse, 3, PayloadEAP, 36)},
			{ms, inside(ExchangeAuth, FlagInitiator, 4, PayloadAuth, 60)},
			{ms, inside(ExchangeAuth, FlagResponse, 4, PayloadAuth, 200)},
		}
	}
	for _, x := range []struct {
		name string
		more []sent
		at   time.Duration // when it is looked at
		want HandshakeCounts
	}{
		{"silent for ten seconds", nil, 10 * time.Second, HandshakeCounts{}},
		{"silent for two minutes", nil, 2 * time.Minute, HandshakeCounts{Failed: map[FindingID]uint64{FindingEAPStopped: 1}}},
		{"a user who takes 50 s", end(50 * time.Second), time.Minute, HandshakeCounts{Finished: 1}},
		{"refused after the first step", end(ms)[:2], 2 * time.Minute, HandshakeCounts{Failed: map[FindingID]uint64{FindingAuthRefused: 1}}},
		{"ends the SA within EAP", []sent{
			{ms, inside(ExchangeInformational, FlagInitiator, 3, PayloadNotify, 36)},
			{ms, inside(ExchangeInformational, FlagResponse, 3, PayloadNone, 28)},
		}, 2 * time.Minute, HandshakeCounts{Failed: map[FindingID]uint64{FindingEAPStopped: 1}}},
	} {
		var w Watch
		now := start
		for _, s := range append(begin[:len(begin):len(begin)], x.more...) {
			now = now.Add(s.after)
			e := Event{Time: now, From: client, To: vip, Gateway: "ras1", Data: s.b}
			if s.b[19]&byte(FlagResponse) != 0 {
				e.From, e.To = vip, client
			}
			w.Observe(&e)
		}
		x.want.Gateway, x.want.Begun, x.want.Unfragmented = "ras1", 1, x.want.Finished
		got := w.Handshakes(start.Add(x.at))
		if len(got) == 1 && len(got[0].Failed) == 0 {
			got[0].Failed = nil
		}
		if diff := cmp.Diff([]HandshakeCounts{x.want}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", x.name, diff)
		}
	}
}

// TestNeverUsedWithNews: a client that tells of its addresses before it gives up an
// unused tunnel has used it as little; one that only tells has not given it up.
func TestNeverUsedWithNews(t *testing.T) {
	client, vip := netip.MustParseAddrPort("203.0.113.7:4500"), netip.MustParseAddrPort("198.51.100.100:4500")
	start := time.Unix(1e9, 0)
	for _, x := range []struct {
		name string
		say  []PayloadType
		want FindingID // empty means that it finished
	}{
		{"gives it up", []PayloadType{PayloadDelete}, FindingNeverUsed},
		{"tells, and gives it up", []PayloadType{PayloadNotify, PayloadDelete}, FindingNeverUsed},
		{"tells twice", []PayloadType{PayloadNotify, PayloadNotify}, ""},
		{"tells twice, and gives it up", []PayloadType{PayloadNotify, PayloadNotify, PayloadDelete}, ""},
	} {
		w := Watch{Carried: func(SPI) (yes, known bool) { return false, true }}
		say := func(at time.Duration, b []byte) {
			e := Event{Time: start.Add(at), From: client, To: vip, Gateway: "ras1", Data: b}
			if b[19]&byte(FlagResponse) != 0 {
				e.From, e.To = vip, client
			}
			w.Observe(&e)
		}
		say(0, saInit(7))
		say(1e6, message(ExchangeSAInit, FlagResponse, 7, 8, testSA(), testKE(GroupMODP2048), testNonce()))
		say(2e6, inside(ExchangeAuth, FlagInitiator, 1, PayloadIDi, 1400))
		say(3e6, inside(ExchangeAuth, FlagResponse, 1, PayloadIDr, 1200))
		for i, p := range x.say {
			say(time.Duration(10+10*i)*time.Millisecond, inside(ExchangeInformational, FlagInitiator, uint32(2+i), p, 60))
			say(time.Duration(15+10*i)*time.Millisecond, inside(ExchangeInformational, FlagResponse, uint32(2+i), PayloadNone, 28))
		}
		got := w.Handshakes(start.Add(2 * time.Minute))
		if len(got) != 1 || x.want != "" && got[0].Failed[x.want] != 1 || x.want == "" && got[0].Finished != 1 {
			t.Errorf("%s: %+v, want %q", x.name, got, x.want)
		}
	}
}

// TestCarried: a Table knows of a client's ESP as soon as the client has sent some.
func TestCarried(t *testing.T) {
	pool := new(lb.Pool)
	if err := pool.Set(lb.Backend{Name: "ras1", Addr: netip.MustParseAddr("10.0.1.11")}); err != nil {
		t.Fatal(err)
	}
	b := &lb.Balancer{Pool: pool, Table: new(lb.Table)}
	asks := func(yes, known bool) {
		t.Helper()
		if y, k := Carried(b.Table, 7); y != yes || k != known {
			t.Errorf("carried %v, known %v; want %v, %v", y, k, yes, known)
		}
	}
	asks(false, false)
	v := Classifier{}.Classify(saInit(7), testFlow)
	r, err := b.Route(&v, testFlow)
	if err != nil {
		t.Fatal(err)
	}
	b.Answered(r.Member, testFlow, lb.StageEstablished, r.Why, SPIKey(7), lb.FlowKey(testFlow))
	asks(false, true)
	v = Classifier{}.Classify(espPacket(0x1000), testFlow)
	b.Learn(r.Member, v.Keys[:]...) // as engines do with what an established client sends
	asks(true, true)
}
