package ikev2

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fakeGateway answers each datagram by what reply says, on loopback.
func fakeGateway(t *testing.T, reply func(n int, b []byte) [][]byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return serveFake(t, c, reply)
}

func serveFake(t *testing.T, c *net.UDPConn, reply func(n int, b []byte) [][]byte) netip.AddrPort {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for n := 1; ; n++ {
			k, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			for _, a := range reply(n, buf[:k]) {
				c.WriteToUDPAddrPort(a, from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// policy is a gateway that follows RFC 7296 §1.2 and §2.6 with one group.
type policy struct {
	group  Group
	cookie bool
	silent bool // after its cookie came back
}

func (p policy) reply(t *testing.T) func(int, []byte) [][]byte {
	t.Helper()
	return func(_ int, b []byte) [][]byte {
		m, err := ParseMessage(b)
		if err != nil {
			t.Errorf("the prober sent a malformed message: %v", err)
			return nil
		}
		h := Header{SPIi: m.SPIi, Exchange: m.Exchange, Flags: FlagResponse}
		_, back := m.Notify(NotifyCookie)
		if p.cookie && !back {
			return [][]byte{AppendMessage(nil, h, NotifyPayload(NotifyCookie, []byte("crumbs")))}
		}
		if p.silent {
			return nil
		}
		var ke KeyExchange
		var offered []Proposal
		w := m.Payloads()
		for w.Next() {
			switch w.Payload.Type {
			case PayloadSA:
				if offered, err = ParseSA(w.Payload.Body); err != nil {
					t.Errorf("the prober sent a malformed SA: %v", err)
				}
			case PayloadKE:
				ke, _ = ParseKE(w.Payload.Body)
			}
		}
		if err := w.Err(); err != nil {
			t.Errorf("the prober sent malformed payloads: %v", err)
		}
		for _, o := range offered {
			listed := map[Group]bool{}
			for _, x := range o.Transforms {
				if x.Type == TransformKE {
					listed[Group(x.ID)] = true
				}
			}
			if !listed[ke.Group] {
				t.Errorf("the key exchange is of group %v, which proposal %d hasn't", ke.Group, o.Number)
			}
			if !listed[p.group] {
				continue
			}
			if ke.Group != p.group {
				return [][]byte{AppendMessage(nil, h, NotifyPayload(NotifyInvalidKEPayload, []byte{0, byte(p.group)}))}
			}
			if len(ke.Data) != p.group.PublicLen() {
				t.Errorf("public value of %v has %d octets", p.group, len(ke.Data))
			}
			h.SPIr = 77
			sa := Payload{Type: PayloadSA, Body: AppendSA(nil, Proposal{Number: o.Number, Protocol: ProtocolIKE, Transforms: []Transform{
				{TransformEncr, EncrAESGCM16, 256}, {TransformPRF, PRFHMACSHA384, 0}, {TransformKE, uint16(p.group), 0},
			}})}
			return [][]byte{AppendMessage(nil, h, NotifyPayload(NotifyFragmentationSupported, nil), sa, testKE(p.group), testNonce(),
				Payload{Type: PayloadVendor, Body: []byte(vendors[0].id + "\x00\x00\x00\x09")})}
		}
		return [][]byte{AppendMessage(nil, h, NotifyPayload(NotifyNoProposalChosen, nil))}
	}
}

func TestProberAsk(t *testing.T) {
	exact := []Proposal{{Protocol: ProtocolIKE, Transforms: []Transform{
		{TransformEncr, EncrAESCBC, 256}, {TransformInteg, IntegHMACSHA256, 0}, {TransformPRF, PRFHMACSHA256, 0}, {TransformKE, uint16(GroupMODP2048), 0},
	}}}
	for _, x := range []struct {
		name   string
		prober Prober
		policy policy
		want   AnswerKind
		text   string // in the Result
		group  Group
		probe  string // in the error of Probe
		sent   int
	}{
		{"usual", Prober{}, policy{group: GroupECP256}, AnswerInvalidKE, "ECP_256", GroupECP256, "", 1},
		{"complete", Prober{Complete: true}, policy{group: GroupECP384}, AnswerSA, "AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384", GroupECP384, "", 2},
		{"complete MODP", Prober{Complete: true}, policy{group: GroupMODP2048}, AnswerSA, "MODP_2048", GroupMODP2048, "", 2},
		{"complete X25519", Prober{Complete: true}, policy{group: GroupX25519}, AnswerSA, "CURVE_25519", GroupX25519, "", 2},
		{"cookie", Prober{}, policy{group: GroupECP256, cookie: true}, AnswerInvalidKE, "ECP_256", GroupECP256, "", 2},
		{"cookie and complete", Prober{Complete: true}, policy{group: GroupECP521, cookie: true}, AnswerSA, "ECP_521", GroupECP521, "", 3},
		{"policy as expected", Prober{Proposals: exact, Strict: true}, policy{group: GroupMODP2048}, AnswerInvalidKE, "MODP_2048", GroupMODP2048, "", 1},
		{"policy drift", Prober{Proposals: exact}, policy{group: GroupECP256}, AnswerNoProposal, "none of the proposals", 0, "", 1},
		{"policy drift, strict", Prober{Proposals: exact, Strict: true}, policy{group: GroupECP256}, AnswerNoProposal, "none", 0, "NO_PROPOSAL_CHOSEN", 1},
	} {
		t.Run(x.name, func(t *testing.T) {
			target := fakeGateway(t, x.policy.reply(t))
			r, err := x.prober.Ask(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			if r.Answer != x.want || r.Group != x.group || r.Sent != x.sent || r.Cookie != x.policy.cookie {
				t.Errorf("got %+v", r)
			}
			if !strings.Contains(r.String(), x.text) {
				t.Errorf("Result is %q, want %q in it", r, x.text)
			}
			if r.Answer == AnswerSA && (!r.Fragments || len(r.Vendors) != 1 || r.Vendors[0].Name() != "Microsoft IKE") {
				t.Errorf("fragments %v, vendors %v", r.Fragments, r.Vendors)
			}
			err = x.prober.Probe(t.Context(), target)
			if (err == nil) != (x.probe == "") || err != nil && !strings.Contains(err.Error(), x.probe) {
				t.Errorf("Probe said %v, want %q", err, x.probe)
			}
			if len(exact[0].Transforms) != 4 {
				t.Fatal("the caller's proposals were changed")
			}
		})
	}
}

func TestProberCookiePressure(t *testing.T) {
	target := fakeGateway(t, policy{group: GroupECP256, cookie: true, silent: true}.reply(t))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r, err := Prober{Retransmit: 20 * time.Millisecond}.Ask(ctx, target)
	if err != nil || r.Answer != AnswerCookie {
		t.Errorf("got %v, %v: a cookie is proof enough", r, err)
	}
}

func TestProberRetransmits(t *testing.T) {
	answer := policy{group: GroupECP256}.reply(t)
	target := fakeGateway(t, func(n int, b []byte) [][]byte {
		if n < 3 {
			return nil
		}
		return answer(n, b)
	})
	r, err := Prober{Retransmit: 5 * time.Millisecond}.Ask(t.Context(), target)
	if err != nil || r.Sent < 3 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// TestProberStrangeAnswers checks that nothing but an answer counts as one, and
// that the error says what came.
func TestProberStrangeAnswers(t *testing.T) {
	answered := func(change func(h *Header)) func(int, []byte) [][]byte {
		return func(_ int, b []byte) [][]byte {
			h, _ := ParseHeader(b)
			h.Flags = FlagResponse
			change(&h)
			return [][]byte{AppendMessage(nil, h, NotifyPayload(NotifyNoProposalChosen, nil))}
		}
	}
	for _, x := range []struct {
		name, want string
		reply      func(n int, b []byte) [][]byte
	}{
		{"silence", "no answer to", func(int, []byte) [][]byte { return nil }},
		{"echo", "no answer (IKE_SA_INIT request", func(_ int, b []byte) [][]byte { return [][]byte{b} }},
		{"text", "19 octets that aren't IKEv2", func(int, []byte) [][]byte { return [][]byte{[]byte("-ERR unknown hello\n")} }},
		{"empty", "0 octets", func(int, []byte) [][]byte { return [][]byte{{}} }},
		{"other SPI", "other SPIs", answered(func(h *Header) { h.SPIi++ })},
		{"other exchange", "is no answer", answered(func(h *Header) { h.Exchange = ExchangeAuth })},
		{"cut off", "aren't IKEv2", func(n int, b []byte) [][]byte {
			return [][]byte{answered(func(*Header) {})(n, b)[0][:34]}
		}},
		{"no payloads", "without payloads", func(_ int, b []byte) [][]byte {
			h, _ := ParseHeader(b)
			h.Flags = FlagResponse
			return [][]byte{AppendMessage(nil, h)}
		}},
		{"bad chain", "offset 30", func(_ int, b []byte) [][]byte {
			h, _ := ParseHeader(b)
			h.Flags = FlagResponse
			m := AppendMessage(nil, h, NotifyPayload(NotifyNoProposalChosen, nil))
			m[HeaderLen+3] = 200
			return [][]byte{m}
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			target := fakeGateway(t, x.reply)
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
			defer cancel()
			err := Prober{Retransmit: 20 * time.Millisecond}.Probe(ctx, target)
			if err == nil || !strings.Contains(err.Error(), x.want) || !strings.Contains(err.Error(), target.String()) {
				t.Errorf("got %v, want %q", err, x.want)
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v isn't context.DeadlineExceeded", err)
			}
		})
	}
}

func TestProberRefused(t *testing.T) {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	target := c.LocalAddr().(*net.UDPAddr).AddrPort()
	c.Close()
	err = Prober{}.Probe(t.Context(), target)
	if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "nothing listens on UDP") {
		t.Errorf("got %v", err)
	}
}

func TestProberCancelled(t *testing.T) {
	target := fakeGateway(t, func(int, []byte) [][]byte { return nil })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (Prober{}).Probe(ctx, target); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestProberMarker(t *testing.T) {
	answer := policy{group: GroupECP256}.reply(t)
	target := fakeGateway(t, func(n int, b []byte) [][]byte {
		msg, marked := TrimMarker(b)
		if !marked {
			t.Error("the prober forgot the marker")
		}
		return [][]byte{append(AppendMarker(nil), answer(n, msg)[0]...)}
	})
	if err := (Prober{Marker: true}).Probe(t.Context(), target); err != nil {
		t.Error(err)
	}
}

func TestProberIPv6AndLocal(t *testing.T) {
	c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Skip(err)
	}
	target := serveFake(t, c, policy{group: GroupECP256}.reply(t))
	for _, local := range []netip.Addr{{}, netip.IPv6Loopback()} {
		if err := (Prober{Local: local}).Probe(t.Context(), target); err != nil {
			t.Errorf("from %v: %v", local, err)
		}
	}
	err = Prober{Local: netip.MustParseAddr("2001:db8::1")}.Probe(t.Context(), target)
	if !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("from an address of another machine: %v", err)
	}
}

func TestProberUnknownGroup(t *testing.T) {
	target := fakeGateway(t, func(_ int, b []byte) [][]byte {
		h, _ := ParseHeader(b)
		h.Flags = FlagResponse
		return [][]byte{AppendMessage(nil, h, NotifyPayload(NotifyInvalidKEPayload, []byte{0, 200}))}
	})
	if err := (Prober{}).Probe(t.Context(), target); err != nil {
		t.Errorf("a gateway that answers lives: %v", err)
	}
	r, err := Prober{Complete: true}.Ask(t.Context(), target)
	if err == nil || !strings.Contains(err.Error(), "group 200") || r.Answer != AnswerInvalidKE {
		t.Errorf("got %+v, %v", r, err)
	}
}
