package accounting

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/radius"
)

// request makes an Accounting-Request of attributes, each a type and a value.
func request(t testing.TB, id byte, attributes ...any) radius.Packet {
	t.Helper()
	b := append([]byte{byte(radius.AccountingRequest), id}, make([]byte, radius.HeaderLen-2)...)
	for i := 0; i < len(attributes); i += 2 {
		v := attributes[i+1].(string)
		b = append(b, byte(attributes[i].(radius.Type)), byte(2+len(v)))
		b = append(b, v...)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	p, err := radius.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var flow = lb.Flow{Client: netip.MustParseAddrPort("10.1.2.3:1646"), Service: 1813}

func TestRecord(t *testing.T) {
	p := request(t, 9,
		radius.ProxyState, "gone", radius.UserName, "alice", radius.AcctDelayTime, "\x00\x00\x00\x05",
		radius.UserPassword, "hidden-password!", chapPassword, "gone", tunnelPassword, "gone",
		radius.MessageAuthenticator, "0123456789abcdef",
		vendorSpecific, "\x00\x00\x01\x37\x10\x04kk", vendorSpecific, "\x00\x00\x01\x37\x0e\x04vv",
		radius.Class, "one", radius.Class, "two")
	b, err := encode(&radius.Record{Packet: p, Client: "ras1", Flow: flow})
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"gone", "hidden", "0123456789abcdef", "kk"} {
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("%q is stored", secret)
		}
	}
	client, got, f, err := decode(b, 37)
	if err != nil {
		t.Fatal(err)
	}
	want := request(t, 9, radius.UserName, "alice", radius.AcctDelayTime, "\x00\x00\x00\x2a",
		vendorSpecific, "\x00\x00\x01\x37\x0e\x04vv", radius.Class, "one", radius.Class, "two")
	if client != "ras1" || f != flow || !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%q %v\n% x, want\n% x", client, f, got.Bytes(), want.Bytes())
	}
	b, _ = encode(&radius.Record{Packet: request(t, 9, radius.UserName, "bob"), Flow: flow})
	_, got, _, err = decode(b, 3)
	if v, ok := got.Lookup(radius.AcctDelayTime); err != nil || !ok || !bytes.Equal(v, []byte{0, 0, 0, 3}) {
		t.Errorf("without Acct-Delay-Time: % x, %v", v, err)
	}
	if d, err := Describe(b); err != nil || d.User != "bob" {
		t.Errorf("%+v, %v", d, err)
	}
}

// A request that leaves no room for Acct-Delay-Time isn't taken, for it couldn't
// be marked.
func TestRoomForTheMark(t *testing.T) {
	var attributes []any
	for range 15 {
		attributes = append(attributes, radius.Class, strings.Repeat("x", 253))
	}
	for _, tt := range []struct {
		last int
		fits bool
	}{{243, true}, {244, false}} {
		p := request(t, 1, append(attributes, radius.Class, strings.Repeat("y", tt.last))...)
		b, err := encode(&radius.Record{Packet: p, Flow: flow})
		if (err == nil) != tt.fits {
			t.Errorf("%d bytes: %v", len(p.Bytes()), err)
		}
		if err != nil {
			continue
		}
		if _, p, _, err := decode(b, 1); err != nil || len(p.Bytes()) > radius.MaxLen {
			t.Errorf("%d bytes, %v", len(p.Bytes()), err)
		}
	}
}

func TestDelay(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	for _, tt := range []struct {
		name      string
		last, now time.Time
		want      uint32
	}{
		{"at once", time.Time{}, at(0), 0},
		{"later", time.Time{}, at(7.9), 7},
		{"again, later", at(3), at(9), 9},
		{"again, in the same second", at(3.1), at(3.9), 4},
		{"again, the clock put back", at(50), at(3), 51},
		{"clock before it came", time.Time{}, at(-5), 0},
	} {
		if got := delay(at(0), tt.last, tt.now); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestNames(t *testing.T) {
	const start, on = "\x00\x00\x00\x01", "\x00\x00\x00\x07"
	mk := func(id byte, status, session, delay string, more ...any) radius.Packet {
		return request(t, id, append([]any{radius.AcctStatusType, status, radius.AcctSessionID, session, radius.AcctDelayTime, delay, radius.NASIPAddress, "\x0a\x01\x02\x03"}, more...)...)
	}
	base := mk(1, start, "s1", "\x00\x00\x00\x00")
	for _, tt := range []struct {
		name              string
		p, q              radius.Packet
		sameKey, sameName bool
	}{
		{"repeated", base, mk(2, start, "s1", "\x00\x00\x00\x09"), true, true},
		{"with another proxy's state", base, mk(2, start, "s1", "\x00\x00\x00\x09", radius.ProxyState, "7"), true, true},
		{"another session", base, mk(1, start, "s2", "\x00\x00\x00\x00"), false, false},
		{"another kind", base, mk(1, "\x00\x00\x00\x02", "s1", "\x00\x00\x00\x00"), true, false},
		{"on, repeated", mk(1, on, "s", "\x00\x00\x00\x00"), mk(1, on, "s", "\x00\x00\x00\x00"), true, true},
		{"on, twice", mk(1, on, "s", "\x00\x00\x00\x00"), mk(2, on, "s", "\x00\x00\x00\x00"), true, false},
	} {
		k1, n1 := names(tt.p)
		k2, n2 := names(tt.q)
		if (k1 == k2) != tt.sameKey || (n1 == n2) != tt.sameName {
			t.Errorf("%s: same key %v, same name %v", tt.name, k1 == k2, n1 == n2)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, _ := encode(&radius.Record{Packet: request(f, 1, radius.UserName, "a", radius.AcctDelayTime, "\xff\xff\xff\xff"), Client: "c", Flow: flow})
	f.Add(b, uint32(1))
	f.Add(b[:30], uint32(0))
	f.Add([]byte{}, uint32(1))
	f.Fuzz(func(t *testing.T, b []byte, more uint32) {
		_, p, _, err := decode(b, more)
		if err != nil {
			return
		}
		if len(p.Bytes()) > radius.MaxLen || p.Count(radius.AcctDelayTime) == 0 {
			t.Errorf("% x", p.Bytes())
		}
	})
}

// A record is only taken if it can be sent with its mark, also where what stands as
// Acct-Delay-Time isn't one.
func TestRecordWithMalformedDelay(t *testing.T) {
	long := strings.Repeat("x", 253)
	for _, tt := range []struct {
		delay string
		last  int // how long the last attribute's value is
		fits  bool
	}{{"\x00\x00\x00\x01", 243, true}, {"\x00", 240, true}, {"\x00", 241, false}} {
		attrs := []any{radius.AcctDelayTime, tt.delay}
		for range 15 {
			attrs = append(attrs, radius.Class, long)
		}
		attrs = append(attrs, radius.Class, strings.Repeat("y", tt.last))
		b, err := encode(&radius.Record{Packet: request(t, 1, attrs...), Client: "nas", Flow: flow})
		if tt.fits != (err == nil) {
			t.Errorf("delay %q, %d: %v", tt.delay, tt.last, err)
		}
		if err != nil {
			continue
		}
		if _, _, _, err := decode(b, 7); err != nil {
			t.Errorf("delay %q, %d: what was taken can't be sent: %v", tt.delay, tt.last, err)
		}
	}
}
