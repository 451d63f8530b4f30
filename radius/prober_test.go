package radius

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
)

// serve answers datagrams with what handle returns, in order.
func serve(t *testing.T, handle func(b []byte) [][]byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { c.Close(); wg.Wait() })
	wg.Go(func() {
		buf := make([]byte, 8192)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			for _, a := range handle(bytes.Clone(buf[:n])) {
				c.WriteToUDPAddrPort(a, from)
			}
		}
	})
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// reply makes the right answer to request b.
func reply(c Code, b []byte, attrs ...attr) []byte {
	return sign(build(c, b[1], 0, attrs...), [16]byte(b[4:20]), true)
}

func answer(c Code, attrs ...attr) func([]byte) [][]byte {
	return func(b []byte) [][]byte { return [][]byte{reply(c, b, attrs...)} }
}

func TestProber(t *testing.T) {
	t.Parallel()
	forged := func(b []byte) []byte { return build(AccessReject, b[1], 7) }
	var once sync.Once
	tests := []struct {
		name   string
		p      Prober
		handle func([]byte) [][]byte
		want   string // part of the error; none if empty
		code   Code
	}{
		{"reject", Prober{}, answer(AccessReject), "", AccessReject},
		{"reject with Message-Authenticator", Prober{RequireMessageAuthenticator: true}, answer(AccessReject, msgAuth()), "", AccessReject},
		{"accept", Prober{}, answer(AccessAccept), "", AccessAccept},
		{"challenge", Prober{}, answer(AccessChallenge, text(State, "s")), "", AccessChallenge},
		{"accounting", Prober{Accounting: true}, answer(AccountingResponse), "", AccountingResponse},
		{"silence", Prober{}, func([]byte) [][]byte { return nil }, "discards silently", 0},
		{"second time", Prober{Resend: 10 * time.Millisecond}, func(b []byte) (out [][]byte) {
			lost := false
			once.Do(func() { lost = true })
			if lost {
				return nil
			}
			return [][]byte{reply(AccessReject, b)}
		}, "", AccessReject},
		{"forged, then right", Prober{}, func(b []byte) [][]byte { return [][]byte{forged(b), []byte("garbage"), reply(AccessReject, b)} }, "", AccessReject},
		{"other secret", Prober{}, func(b []byte) [][]byte { return [][]byte{forged(b)} }, "the server's differs", 0},
		{"no Message-Authenticator", Prober{RequireMessageAuthenticator: true}, answer(AccessReject), "no Message-Authenticator in Access-Reject", 0},
		{"wrong Identifier", Prober{}, func(b []byte) [][]byte { b[1]++; return [][]byte{reply(AccessReject, b)} }, "isn't an answer to the probe", 0},
		{"wrong code", Prober{}, answer(AccountingResponse), "Accounting-Response isn't an answer", 0},
		{"garbage", Prober{}, func([]byte) [][]byte { return [][]byte{[]byte("hello")} }, "cut off", 0},
		{"echo", Prober{}, func(b []byte) [][]byte { return [][]byte{b} }, "Access-Request isn't an answer", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			addr := serve(t, tt.handle)
			p := tt.p
			p.Secret = testSecret
			wait := 5 * time.Second
			if tt.want != "" {
				wait = 100 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			res, err := p.Ask(ctx, addr)
			if (tt.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("error is %v, want %q in it", err, tt.want)
			}
			if res.Code != tt.code || res.Sent == 0 || (err == nil && res.Took <= 0) {
				t.Errorf("result is %+v", res)
			}
			if err != nil && strings.Contains(err.Error(), string(testSecret.bytes())) {
				t.Error("the error tells the secret")
			}
		})
	}
}

func TestProberWithoutServer(t *testing.T) {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr := c.LocalAddr().(*net.UDPAddr).AddrPort()
	c.Close()
	p := Prober{Secret: testSecret, Timeout: 5 * time.Second}
	if err := p.Probe(t.Context(), addr); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v", err)
	}
	p.Secret = Secret{}
	if err := p.Probe(t.Context(), addr); err == nil || !strings.Contains(err.Error(), "no secret") {
		t.Errorf("got %v", err)
	}
}

func TestProberEnds(t *testing.T) {
	addr := serve(t, func([]byte) [][]byte { return nil })
	p := Prober{Secret: testSecret, Timeout: 30 * time.Millisecond, Resend: -1}
	res, err := p.Ask(context.Background(), addr)
	if !errors.Is(err, ErrNoAnswer) || res.Sent != 1 {
		t.Errorf("got %v after %d requests", err, res.Sent)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Probe(ctx, addr); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestProberRequests has layeh.com/radius read what is sent.
func TestProberRequests(t *testing.T) {
	p := Prober{Secret: testSecret, User: "ping-user"}
	local := netip.MustParseAddr("192.0.2.1")
	b := p.request(local)
	got, err := layeh.Parse(b, testSecret.bytes())
	if err != nil {
		t.Fatal(err)
	}
	if rfc2865.UserName_GetString(got) != "ping-user" || !rfc2865.NASIPAddress_Get(got).Equal(net.IP(local.AsSlice())) {
		t.Errorf("got %v", got.Attributes)
	}
	password := rfc2865.UserPassword_GetString(got)
	if len(password) != 16 || strings.Trim(password, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		t.Errorf("the password is %q", password)
	}
	v, err := Parse(b)
	if err != nil || v.CheckRequest(testSecret) != nil || b[HeaderLen] != byte(MessageAuthenticator) {
		t.Error("the Message-Authenticator isn't right, or not first")
	}
	if bytes.Equal(p.request(local), b) {
		t.Error("requests repeat themselves")
	}
	p.Accounting, p.NASAddr = true, netip.MustParseAddr("2001:db8::1")
	if got, err = layeh.Parse(p.request(local), testSecret.bytes()); err != nil {
		t.Fatal(err)
	}
	raw, err := got.MarshalBinary()
	if err != nil || !layeh.IsAuthenticRequest(raw, testSecret.bytes()) {
		t.Errorf("accounting isn't authentic: %v", err)
	}
	if rfc2866.AcctStatusType_Get(got) != rfc2866.AcctStatusType_Value_Stop || len(got.Get(95)) != 16 {
		t.Errorf("got %v", got.Attributes)
	}
}

// FuzzAnswer has a probe read any answer: only the secret makes one right.
func FuzzAnswer(f *testing.F) {
	p := &Prober{Secret: testSecret}
	request := p.request(netip.MustParseAddr("192.0.2.1"))
	f.Add(reply(AccessReject, request)[:19])
	f.Add(build(AccessReject, request[1], 0, text(ReplyMessage, "no")))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := asking{p: p, request: request}
		if a.take(b) {
			t.Fatalf("%x is taken", b)
		}
		if a.bad == nil {
			t.Fatal("no word why")
		}
	})
}
