package ikev2

import (
	"bytes"
	"net/netip"
	"os"
	"testing"

	"github.com/aovlb/aovlb/lb"
)

// seed gives a fuzzer messages of every kind, and the public captures if they
// are there.
func seed(f *testing.F, add func(b []byte)) {
	f.Helper()
	for _, b := range hotDatagrams() {
		add(b)
	}
	add(message(ExchangeSAInit, FlagResponse, 7, 0, NotifyPayload(NotifyCookie, []byte("crumbs"))))
	add(marker(message(ExchangeInformational, FlagResponse, 7, 8, NotifyPayload(NotifyInvalidIKESPI, nil))))
	add(message(ExchangeSAInit, FlagInitiator, 7, 0, Payload{Type: PayloadSA, Body: AppendSA(nil, DefaultProposals()...)}))
	if os.Getenv("AOVLB_TESTDATA") != "" {
		captures(f, func(_ string, ds []datagram) {
			for _, d := range ds {
				add(d.data)
			}
		})
	}
}

func FuzzHeader(f *testing.F) {
	seed(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if (err == nil) != (len(b) >= HeaderLen) {
			t.Fatalf("%d octets: %v", len(b), err)
		}
		if err == nil && !bytes.Equal(AppendHeader(nil, h), b[:HeaderLen]) {
			t.Fatal("another header comes back")
		}
	})
}

// FuzzMessage checks that walking is bounded and stays within the message, and
// that what was parsed is parsed again the same way after appending.
func FuzzMessage(f *testing.F) {
	seed(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		b, _ = TrimMarker(b)
		m, err := ParseMessage(b)
		if err != nil {
			return
		}
		var ps []Payload
		size := HeaderLen
		w := m.Payloads()
		for w.Next() {
			p := w.Payload
			if p.Offset+len(p.Body) > len(b) || !bytes.Equal(b[p.Offset:][:len(p.Body)], p.Body) {
				t.Fatalf("payload %v isn't within the message", p.Type)
			}
			fuzzBody(t, p)
			ps = append(ps, p)
			size += payloadHeaderLen + len(p.Body)
		}
		if len(ps) > MaxPayloads || size > len(b) {
			t.Fatalf("%d payloads of %d octets in %d", len(ps), size, len(b))
		}
		if w.Err() != nil {
			return
		}
		again, err := ParseMessage(AppendMessage(nil, m.Header, ps...))
		if err != nil || size != len(b) {
			t.Fatalf("%d of %d octets: %v", size, len(b), err)
		}
		w = again.Payloads()
		for i := range ps {
			if !w.Next() || w.Payload.Type != ps[i].Type || !bytes.Equal(w.Payload.Body, ps[i].Body) {
				t.Fatalf("payload %d comes back as %+v, %v", i, w.Payload, w.Err())
			}
		}
	})
}

func fuzzBody(t *testing.T, p Payload) {
	t.Helper()
	switch p.Type {
	case PayloadSA:
		checkSA(t, p.Body)
	case PayloadKE:
		_, _ = ParseKE(p.Body)
	case PayloadNotify:
		if n, err := ParseNotify(p.Body); err == nil && !bytes.Equal(AppendNotify(nil, n), p.Body) {
			t.Fatal("another Notify comes back")
		}
	}
}

func checkSA(t *testing.T, b []byte) {
	t.Helper()
	ps, err := ParseSA(b)
	if err != nil {
		return
	}
	n := 0
	for _, p := range ps {
		n += proposalHeaderLen + len(p.SPI) + len(p.Transforms)*transformHeaderLen
	}
	if n > len(b) {
		t.Fatalf("%d octets out of %d", n, len(b))
	}
	again, err := ParseSA(AppendSA(nil, ps...))
	if err != nil || len(again) != len(ps) {
		t.Fatalf("%d proposals come back as %d, %v", len(ps), len(again), err)
	}
	for i := range ps {
		if ps[i].String() != again[i].String() {
			t.Fatalf("proposal %v comes back as %v", ps[i], again[i])
		}
	}
}

func FuzzSA(f *testing.F) {
	f.Add(AppendSA(nil, DefaultProposals()...))
	f.Add(testSA().Body)
	f.Fuzz(func(t *testing.T, b []byte) { checkSA(t, b) })
}

// FuzzClassify checks what every Verdict promises, whatever the datagram.
func FuzzClassify(f *testing.F) {
	seed(f, func(b []byte) { f.Add(b, uint16(Port)); f.Add(b, uint16(PortNATT)) })
	f.Fuzz(func(t *testing.T, b []byte, port uint16) {
		fl := lb.Flow{Client: netip.MustParseAddrPort("192.0.2.1:1024"), Service: port}
		was := bytes.Clone(b)
		for _, a := range []Affinity{AffinitySPI, AffinitySource} {
			c := Classifier{Affinity: a}
			v := c.Classify(b, fl)
			if v != c.Classify(b, fl) || !bytes.Equal(was, b) {
				t.Fatal("it isn't pure")
			}
			if v.Drop != (v.Reason != "") || v.Drop == !v.Keys[0].IsZero() {
				t.Fatalf("drop without reason, or no name: %+v", v)
			}
			if kind, _ := Identify(b); kind == KindNone && !v.Drop {
				t.Fatalf("garbage passes: %+v", v)
			}
			if v.Begin && a == AffinitySPI && (v.Pick != v.Keys[0] || !v.Keys[1].IsZero() || v.Pick.Space() != SpaceSPI) {
				t.Fatalf("a new SA is known by more than its SPI: %+v", v)
			}
		}
	})
}

// FuzzAnswer does the same for gateways, and checks that nothing unprotected
// proves a client established.
func FuzzAnswer(f *testing.F) {
	seed(f, func(b []byte) { f.Add(b, uint16(Port)); f.Add(b, uint16(PortNATT)) })
	f.Fuzz(func(t *testing.T, b []byte, port uint16) {
		fl := lb.Flow{Client: netip.MustParseAddrPort("192.0.2.1:1024"), Service: port}
		for _, a := range []Affinity{AffinitySPI, AffinitySource} {
			v := (Classifier{Affinity: a}).Answer(b, fl)
			if v.Drop != (v.Reason != "") || v.Drop && v.Stage != lb.StageNone {
				t.Fatalf("drop without reason: %+v", v)
			}
			if (v.Stage == lb.StageNone) != v.Keys[0].IsZero() {
				t.Fatalf("proof without name, or name without proof: %+v", v)
			}
			if kind, msg := Identify(b); v.Stage == lb.StageEstablished && kind == KindIKE && !protected(msg) {
				t.Fatalf("unprotected proof: %+v", v)
			}
		}
	})
}

// FuzzProberAnswer feeds the Prober's judgement.
func FuzzProberAnswer(f *testing.F) {
	seed(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		q := &question{spi: 7, group: DefaultDecoy}
		m, err := q.answer(b)
		if err != nil {
			return
		}
		done := q.judge(m)
		if q.result.Answer == AnswerNone || !done && q.result.Answer != AnswerCookie {
			t.Fatalf("done %v: %+v", done, q.result)
		}
		_ = q.result.String()
	})
}
