package geodns

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/aovlb/aovlb/geo"
	"github.com/miekg/dns"
)

// jumped returns a time as time.Now would return it had the wall clock been set
// by d: the monotonic clock goes on as it did.
func jumped(t testing.TB, now time.Time, d time.Duration) time.Time {
	t.Helper()
	// A time.Time with a monotonic reading begins with 33 bits of seconds and
	// 30 bits of nanoseconds of the wall clock.
	*(*uint64)(unsafe.Pointer(&now)) += uint64(d/time.Second) << 30
	return now
}

var jumps = []time.Duration{-10 * 365 * 24 * time.Hour, -25 * time.Hour, -time.Hour, -10 * time.Minute, 10 * time.Minute, time.Hour, 25 * time.Hour, 8 * 24 * time.Hour, 10 * 365 * 24 * time.Hour}

func TestJumped(t *testing.T) {
	now := time.Now()
	for _, d := range jumps {
		if j := jumped(t, now, d); j.Sub(now) != 0 || j.Unix()-now.Unix() != int64(d/time.Second) {
			t.Fatalf("%v: %v by the monotonic clock, %d s by the wall", d, j.Sub(now), j.Unix()-now.Unix())
		}
	}
}

// TestClockJumpsDoNotOpenTheRateLimit: who was limited still is.
func TestClockJumpsDoNotOpenTheRateLimit(t *testing.T) {
	r := newResponder(t, nil)
	r.s.RateLimit = RateLimit{PerSecond: 5, Slip: 1 << 30}
	q := request(t, "ns.example.com.", dns.TypeA, false)
	for range 100 {
		r.respond(nil, q, client, false)
	}
	now := r.now
	for _, d := range jumps {
		if r.now = jumped(t, now, d); len(r.respond(nil, q, client, false)) > 0 {
			t.Errorf("after a jump of %v there is an answer", d)
		}
	}
	r.now = now.Add(time.Minute)
	if len(r.respond(nil, q, client, false)) == 0 {
		t.Error("a minute later there is none")
	}
}

// TestClockJumpsAndCookies: a cookie that seems too old, or of the future, isn't
// good, but its query is answered, with a new one.
func TestClockJumpsAndCookies(t *testing.T) {
	r := newResponder(t, nil)
	ask := func(cookie string) (got string, good bool) {
		t.Helper()
		q := request(t, "ns.example.com.", dns.TypeA, false, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: cookie})
		var m dns.Msg
		if err := m.Unpack(r.respond(nil, q, client, false)); err != nil || len(m.Answer) != 1 {
			t.Fatalf("%v\n%v", err, &m)
		}
		return m.IsEdns0().Option[0].(*dns.EDNS0_COOKIE).Cookie, r.goodCookie
	}
	now := r.now
	first, _ := ask("0011223344556677")
	for _, d := range jumps {
		r.now = jumped(t, now, d)
		got, good := ask(first)
		if want := d >= -5*time.Minute && d <= time.Hour; good != want {
			t.Errorf("after %v the cookie is good: %v", d, good)
		}
		if _, good := ask(got); !good {
			t.Errorf("after %v the new cookie isn't good", d)
		}
	}
}

// TestCookieRollover: the cookies of a secret that is replaced are good for another
// hour, and are replaced at once; those of one that is to come are good already.
func TestCookieRollover(t *testing.T) {
	r := newResponder(t, nil)
	begun := time.Now()
	r.now = begun
	ask := func(cookie string) (got string, good bool) {
		t.Helper()
		q := request(t, "ns.example.com.", dns.TypeA, false, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: cookie})
		var m dns.Msg
		if err := m.Unpack(r.respond(nil, q, client, false)); err != nil || len(m.Answer) != 1 {
			t.Fatalf("%v\n%v", err, &m)
		}
		for _, o := range m.IsEdns0().Option {
			if c, ok := o.(*dns.EDNS0_COOKIE); ok {
				got = c.Cookie
			}
		}
		return got, r.goodCookie
	}
	const own = "0011223344556677"
	is := func(what, cookie string, want bool) string {
		t.Helper()
		got, good := ask(cookie)
		if good != want {
			t.Errorf("%s: good %v, want %v", what, good, want)
		}
		return got
	}
	first, _ := ask(own)
	second, third := CookieSecret{2}, CookieSecret{3}
	r.s.SetCookieSecret(second, third)
	made := is("the old one", first, true)
	if made == first {
		t.Error("the cookie of the old secret isn't replaced")
	}
	is("its successor", made, true)
	is("of a secret to come", cookieOf(third, own, r.now), true)
	is("of a stranger", cookieOf(CookieSecret{9}, own, r.now), false)
	if again := is("again", made, true); again != made {
		t.Error("a good and new cookie is replaced")
	}
	r.s.SetCookieSecret(third)
	is("two secrets ago", first, true)
	is("the secret before", made, true)
	r.now = begun.Add(59 * time.Minute)
	is("of 59 minutes ago", cookieOf(second, own, r.now), true)
	r.now = begun.Add(61 * time.Minute)
	is("new, by a secret that has retired", cookieOf(second, own, r.now), false)
	r.s.SetCookieSecret(CookieSecret{})
	if got, good := ask(own); got != "" || good {
		t.Errorf("without a secret the server says %q", got)
	}
}

func cookieOf(s CookieSecret, own string, at time.Time) string {
	b, _ := hex.DecodeString(own)
	c := s.make(b, client.Addr(), uint32(at.Unix()))
	return own + hex.EncodeToString(c[:])
}

// TestCookieVectors are those of RFC 9018 appendix A.
func TestCookieVectors(t *testing.T) {
	for _, v := range []struct{ secret, client, addr, server string }{
		{"e5e973e5a6b2a43f48e7dc849e37bfcf", "2464c4abcf10c957", "198.51.100.100", "010000005cf79f111f8130c3eee29480"},
		{"e5e973e5a6b2a43f48e7dc849e37bfcf", "2464c4abcf10c957", "198.51.100.100", "010000005cf7a871d4a564a1442aca77"},
		{"e5e973e5a6b2a43f48e7dc849e37bfcf", "fc93fc62807ddb86", "203.0.113.203", "010000005cf7a9acf73a7810aca2381e"},
		{"dd3bdf9344b678b185a6f5cb60fca715", "22681ab97d52c298", "2001:db8:220:1:59de:d0f4:8769:82b8", "010000005cf7c57926556bd0934c72f8"},
		{"445536bcd2513298075a5d379663c962", "22681ab97d52c298", "2001:db8:220:1:59de:d0f4:8769:82b8", "010000005cf7c609a6bb79d16625507a"},
	} {
		var s CookieSecret
		_, _ = hex.Decode(s[:], []byte(v.secret))
		own, _ := hex.DecodeString(v.client)
		want, _ := hex.DecodeString(v.server)
		at := uint32(want[4])<<24 | uint32(want[5])<<16 | uint32(want[6])<<8 | uint32(want[7])
		if got := s.make(own, netip.MustParseAddr(v.addr), at); string(got[:]) != string(want) {
			t.Errorf("%s: got %x, want %x", v.client, got, want)
		}
	}
}

// TestClockJumpsAndSignatures: the answer after a jump has a signature that is
// valid by the new time.
func TestClockJumpsAndSignatures(t *testing.T) {
	keys := fuzzKeys(t)
	r := newResponder(t, keys)
	now := r.now
	for _, d := range append([]time.Duration{0}, jumps...) {
		r.now = jumped(t, now, d)
		for _, q := range []string{"ns.example.com.", "vpn.example.com.", "nope.example.com."} {
			var m dns.Msg
			if err := m.Unpack(r.respond(nil, request(t, q, dns.TypeA, true), client, true)); err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, section := range [][]dns.RR{m.Answer, m.Ns} {
				for _, rr := range section {
					if s, ok := rr.(*dns.RRSIG); ok {
						n++
						if !s.ValidityPeriod(r.now) || !s.ValidityPeriod(r.now.Add(24*time.Hour)) {
							t.Errorf("after %v: %s: %v", d, q, s)
						}
					}
				}
			}
			if n == 0 {
				t.Errorf("after %v: %s isn't signed", d, q)
			}
		}
	}
}

// TestFlapping has a site go up and down every second: its clients are sent
// elsewhere once, and come back once it stays up.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResponder(t, nil)
		var h geo.Health
		defer h.Close()
		h.Failback, h.FailbackDelay, h.HoldDown = geo.FailbackDelayed, 30*time.Second, 10*time.Second
		var list []geo.Site
		for i, c := range []string{"DE", "US"} {
			list = append(list, geo.Site{Name: c, Place: geo.Place{Country: c}, Priority: i, Gateways: []geo.Gateway{{Name: "a", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})}}}})
		}
		plan, err := (&geo.Policy{Order: []geo.Criterion{geo.ByPriority}}).Compile(list, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Set(list...); err != nil {
			t.Fatal(err)
		}
		var name *Name
		for _, n := range r.s.table.Load().names {
			name = n
		}
		q := request(t, "vpn.example.com.", dns.TypeA, false)
		var seen []string
		look := func() (addr string, ttl uint32) {
			name.Update(plan.Select(h.View(), name.Name))
			r.now = time.Now()
			var m dns.Msg
			if err := m.Unpack(r.respond(nil, q, client, false)); err != nil || len(m.Answer) != 1 {
				t.Fatal(err, &m)
			}
			a := m.Answer[0].(*dns.A)
			if len(seen) == 0 || seen[len(seen)-1] != a.A.String() {
				seen = append(seen, a.A.String())
			}
			return a.A.String(), a.Hdr.Ttl
		}
		mark := func(site string, s geo.State) {
			if err := h.Mark(site, "a", s, "timeout"); err != nil {
				t.Fatal(err)
			}
		}
		mark("DE", geo.Up)
		mark("US", geo.Up)
		if _, ttl := look(); ttl != 30 {
			t.Errorf("at first an answer lives %d s", ttl)
		}
		for range 60 {
			mark("DE", geo.Down)
			look()
			time.Sleep(time.Second)
			mark("DE", geo.Up)
			if _, ttl := look(); ttl >= 30 {
				t.Errorf("while it flaps an answer lives %d s", ttl)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(31 * time.Second)
		look()
		if got := strings.Join(seen, " "); got != "198.51.100.0 198.51.100.1 198.51.100.0" {
			t.Errorf("clients were sent to %s", got)
		}
		time.Sleep(6 * time.Minute)
		if _, ttl := look(); ttl != 30 {
			t.Errorf("after a while an answer lives %d s", ttl)
		}
	})
}

// TestSignaturesHaveABudget: a flood of random names is told to use TCP once it
// has cost enough, and what is known is still answered.
func TestSignaturesHaveABudget(t *testing.T) {
	r := newResponder(t, fuzzKeys(t))
	ask := func(name string, stream bool) *dns.Msg {
		t.Helper()
		var m dns.Msg
		if err := m.Unpack(r.respond(nil, request(t, name, dns.TypeA, true), client, stream)); err != nil {
			t.Fatal(err)
		}
		return &m
	}
	ask("vpn.example.com.", false)
	truncated := 0
	for i := range signRate + 500 {
		if ask(fmt.Sprintf("r%d.example.com.", i), false).Truncated {
			truncated++
		}
	}
	if truncated < 490 || truncated > 510 {
		t.Errorf("%d were told to use TCP, not about 500", truncated)
	}
	for _, name := range []string{"ns.example.com.", "vpn.example.com.", "r1.example.com."} {
		if m := ask(name, false); m.Truncated || len(m.Answer)+len(m.Ns) < 2 {
			t.Errorf("%s meanwhile:\n%v", name, m)
		}
	}
	if m := ask("new.example.com.", true); m.Truncated || len(m.Ns) != 4 {
		t.Errorf("over TCP:\n%v", m)
	}
	r.now = r.now.Add(2 * time.Second)
	if ask("new2.example.com.", false).Truncated {
		t.Error("two seconds later it still costs too much")
	}
}

// TestSignaturesSurviveAFlood: a name that is asked for now and then keeps its
// signature while others are flooded with.
func TestSignaturesSurviveAFlood(t *testing.T) {
	r := newResponder(t, fuzzKeys(t))
	q := request(t, "vpn.example.com.", dns.TypeA, true)
	ask := func(req []byte, stream bool) *dns.Msg {
		var m dns.Msg
		if err := m.Unpack(r.respond(nil, req, client, stream)); err != nil {
			t.Fatal(err)
		}
		return &m
	}
	ask(q, false)
	sg := r.s.table.Load().zones[0].signer
	one := new(sigData)
	for i := range uint64(3 * maxCached) {
		sg.mu.Lock()
		sg.keep(i<<8, one) // signing as many would take long
		sg.mu.Unlock()
		if i%1000 == 0 {
			sg.budget, sg.made = 0, r.now // they have used it up
			if m := ask(q, false); m.Truncated || len(m.Answer) < 2 {
				t.Fatalf("after %d others:\n%v", i, m)
			}
		}
	}
	if n := len(sg.now) + len(sg.old); n > maxCached {
		t.Errorf("%d signatures are kept", n)
	}
}
