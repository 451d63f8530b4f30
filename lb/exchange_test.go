package lb

import (
	"net/netip"
	"testing"
)

func exchangePool(t testing.TB) *Pool {
	p := new(Pool)
	err := p.Set(Backend{Name: "a", Addr: netip.MustParseAddr("10.0.0.1")}, Backend{Name: "b", Addr: netip.MustParseAddr("10.0.0.2")})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func request(number uint16, name uint64) *Verdict {
	return &Verdict{Exchange: number, Keys: [MaxKeys]Key{Uint64Key(100, name)}, Scope: Uint64Key(101, name)}
}

func TestExchangesKeepRequestsApart(t *testing.T) {
	p := exchangePool(t)
	a, b := p.View().ByName("a"), p.View().ByName("b")
	var x Exchanges
	for n := uint16(1); n <= MaxExchanges; n++ {
		m, why := a, WhyPicked
		if n%2 == 0 {
			m, why = b, WhyKnown
		}
		x.Sent(request(n, uint64(n)), m, why)
	}
	if n := x.Waiting(); n != MaxExchanges {
		t.Fatalf("%d requests wait, want %d", n, MaxExchanges)
	}
	state := Uint64Key(102, 7)
	for n := uint16(1); n <= MaxExchanges; n++ {
		m, other, why := a, b, WhyPicked
		if n%2 == 0 {
			m, other, why = b, a, WhyKnown
		}
		ans := &Verdict{Exchange: n, Keys: [MaxKeys]Key{state, state}}
		alone := [2 * MaxKeys]Key{MaxKeys: state.In(Uint64Key(101, uint64(n)))}
		if keys, _, ok := x.Answered(ans, other); !ok || keys != alone {
			t.Fatalf("request %d: of the other backend's answer more than its own name was taken: %v", n, keys)
		}
		if _, _, ok := x.Answered(&Verdict{Exchange: n}, other); ok {
			t.Fatalf("request %d: the other backend's answer was taken", n)
		}
		keys, got, ok := x.Answered(ans, m)
		want := [2 * MaxKeys]Key{Uint64Key(100, uint64(n)), MaxKeys: state.In(Uint64Key(101, uint64(n))), MaxKeys + 1: state}
		if !ok || keys != want || got != why {
			t.Fatalf("request %d: got %v, %v, %v", n, keys, got, ok)
		}
	}
	if n := x.Waiting(); n != 0 {
		t.Errorf("%d requests wait after all were answered", n)
	}
}

func TestExchangesRepeats(t *testing.T) {
	p := exchangePool(t)
	var x Exchanges
	v := request(9, 1)
	if m, _ := x.Repeats(v, p.View()); m != nil {
		t.Fatal("an empty Exchanges knows a request")
	}
	x.Sent(v, p.View().ByName("b"), WhyHint)
	if m, why := x.Repeats(v, p.View()); m == nil || m.Name != "b" || why != WhyHint {
		t.Fatalf("the repetition goes to %v, %v", m, why)
	}
	if m, _ := x.Repeats(request(9, 2), p.View()); m != nil {
		t.Error("a request of another client with the same number is taken for a repetition")
	}
	if m, _ := x.Repeats(request(10, 1), p.View()); m != nil {
		t.Error("a request with another number is taken for a repetition")
	}
	if err := p.Mark("b", Down, "test"); err != nil {
		t.Fatal(err)
	}
	if m, _ := x.Repeats(v, p.View()); m != nil {
		t.Error("a repetition goes to a backend that is down")
	}
}

func TestExchangesAreBounded(t *testing.T) {
	m := exchangePool(t).View().ByName("a")
	var x Exchanges
	for i := range 100 { // one at a time needs no room
		x.Sent(request(uint16(i+1), 1), m, WhyKnown)
		x.Answered(&Verdict{Exchange: uint16(i + 1)}, m)
	}
	if len(x.slots) != 1 {
		t.Errorf("%d slots for one request at a time", len(x.slots))
	}
	for i := range 5000 {
		x.Sent(request(uint16(i+1), 1), m, WhyKnown)
	}
	if len(x.slots) != MaxExchanges {
		t.Errorf("%d slots, want %d", len(x.slots), MaxExchanges)
	}
	x.Sent(&Verdict{}, m, WhyKnown)
	if _, _, ok := x.Answered(&Verdict{}, m); ok {
		t.Error("zero isn't the number of an exchange")
	}
}

func TestExchangesDoNotAllocate(t *testing.T) {
	p := exchangePool(t)
	m := p.View().ByName("a")
	var x Exchanges
	for i := range MaxExchanges {
		x.Sent(request(uint16(i+1), 1), m, WhyKnown)
	}
	v, a := request(3, 1), &Verdict{Exchange: 3}
	if n := testing.AllocsPerRun(100, func() {
		x.Repeats(v, p.View())
		x.Sent(v, m, WhyKnown)
		x.Answered(a, m)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestKeyIn(t *testing.T) {
	k, s1, s2 := Uint64Key(100, 5), Uint64Key(101, 1), Uint64Key(101, 2)
	if k.In(Key{}) != k || !(Key{}).In(s1).IsZero() {
		t.Error("zero keys don't stay out of it")
	}
	in1, again := k.In(s1), k.In(s1)
	if in1 == k.In(s2) || in1 == k || in1 != again || k.In(s1).Space() != k.Space() {
		t.Error("a scope doesn't tell names apart")
	}
	if k.In(s1) == Uint64Key(100, 6).In(s1) {
		t.Error("names in one scope are equal")
	}
}
