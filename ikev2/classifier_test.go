package ikev2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/aovlb/aovlb/lb"
	"github.com/google/go-cmp/cmp"
)

var testFlow = lb.Flow{Client: netip.MustParseAddrPort("192.0.2.1:4500"), Service: PortNATT}

func marker(b []byte) []byte { return append(AppendMarker(nil), b...) }

// message makes an IKE message that is protected, or not if ps are given.
func message(ex ExchangeType, f Flags, spii, spir SPI, ps ...Payload) []byte {
	if ps == nil {
		ps = []Payload{{Type: PayloadSK, Body: make([]byte, 40)}}
	}
	return AppendMessage(nil, Header{SPIi: spii, SPIr: spir, Exchange: ex, Flags: f}, ps...)
}

func saInit(spi SPI) []byte {
	return message(ExchangeSAInit, FlagInitiator, spi, 0, testSA(), testKE(GroupMODP2048), testNonce())
}

func keys(ks ...lb.Key) (out [lb.MaxKeys]lb.Key) {
	copy(out[:], ks)
	return out
}

func diffVerdict(want, got lb.Verdict) string {
	return cmp.Diff(want, got, cmp.Comparer(func(a, b lb.Key) bool { return a == b }))
}

// control returns v with Control set as it must be: for all IKE that isn't dropped,
// and for nothing else.
func control(v lb.Verdict, b []byte) lb.Verdict {
	k, _ := Identify(b)
	v.Control = k == KindIKE && !v.Drop
	return v
}

func TestClassify(t *testing.T) {
	spi, fl, addr := SPIKey(7), lb.FlowKey(testFlow), lb.AddrKey(testFlow.Client.Addr())
	start := lb.Verdict{Begin: true, Keys: keys(spi), Hints: [2]lb.Key{fl, addr}, Pick: spi}
	known := lb.Verdict{Miss: lb.MissDrop, Keys: keys(spi, fl)}
	asked := lb.Verdict{Miss: lb.MissAsk, Keys: keys(spi, fl)}
	drop := func(reason string) lb.Verdict { return lb.Verdict{Drop: true, Reason: reason} }
	notify := NotifyPayload(NotifyInvalidSPI, []byte("1234"))
	later := message(ExchangeInformational, FlagInitiator, 7, 8)
	edit := func(b []byte, at int, v byte) []byte {
		b = bytes.Clone(b)
		b[at] = v
		return b
	}
	for _, x := range []struct {
		name string
		b    []byte
		port uint16
		want lb.Verdict
	}{
		{"IKE_SA_INIT", saInit(7), Port, start},
		{"IKE_SA_INIT on 4500", marker(saInit(7)), PortNATT, start},
		{"IKE_SA_INIT with cookie", message(ExchangeSAInit, FlagInitiator, 7, 0, NotifyPayload(NotifyCookie, []byte("c")), testSA()), Port, start},
		{"resumption", message(ExchangeSessionResume, FlagInitiator, 7, 0, testNonce()), Port, start},
		{"high port", saInit(7), 10500, start},
		{"IKE_AUTH", marker(message(ExchangeAuth, FlagInitiator, 7, 8)), PortNATT, asked},
		{"fragment", marker(message(ExchangeAuth, FlagInitiator, 7, 8, Payload{Type: PayloadSKF, Body: make([]byte, 40)})), PortNATT, asked},
		{"IKE_INTERMEDIATE", marker(message(ExchangeIntermediate, FlagInitiator, 7, 8)), PortNATT, asked},
		{"after a rekey by the server", marker(message(ExchangeInformational, 0, 7, 8)), PortNATT, asked},
		{"without marker", message(ExchangeAuth, FlagInitiator, 7, 8), PortNATT, asked},
		{"newer exchange", marker(message(60, FlagInitiator, 7, 8)), PortNATT, asked},
		{"newer minor version", marker(edit(later, 17, 0x23)), PortNATT, asked},
		{"response", marker(message(ExchangeInformational, FlagInitiator|FlagResponse, 7, 8)), PortNATT, known},
		{"unprotected", marker(message(ExchangeInformational, FlagInitiator, 7, 8, notify)), PortNATT, known},
		{"outside of an SA", marker(message(ExchangeInformational, FlagInitiator, 7, 0, notify)), PortNATT, lb.Verdict{Miss: lb.MissDrop, Keys: keys(fl)}},
		{"answer to a server's IKE_SA_INIT", message(ExchangeSAInit, FlagResponse, 7, 8, testSA(), testNonce()), PortNATT, known},
		{"refusal of a server's IKE_SA_INIT", message(ExchangeSAInit, FlagResponse, 7, 0, NotifyPayload(NotifyNoProposalChosen, nil)), PortNATT, known},
		{"SPI that looks like a marker", saInit(7), PortNATT, start},
		{"ESP", espPacket(0x1000), PortNATT, lb.Verdict{Miss: lb.MissAsk, Keys: keys(fl, ESPKey(0x1000))}},
		{"keepalive", []byte{0xff}, PortNATT, lb.Verdict{Miss: lb.MissDrop, Keys: keys(fl)}},

		{"empty", nil, PortNATT, drop(reasonShort)},
		{"other octet", []byte{0xfe}, PortNATT, drop(reasonShort)},
		{"eleven octets", bytes.Repeat([]byte{9}, 11), PortNATT, drop(reasonShort)},
		{"reserved SPI", espPacket(255), PortNATT, drop(reasonReserved)},
		{"ESP on 500", espPacket(0x1000), Port, drop(reasonNotIKE)},
		{"IKEv1", edit(saInit(1<<60), 17, 0x10), PortNATT, drop(reasonVersion1)},
		{"IKEv1 on 500", edit(saInit(1<<60), 17, 0x10), Port, drop(reasonVersion1)},
		{"IKEv1 with marker", marker(edit(later, 17, 0x10)), PortNATT, drop(reasonMarker)},
		{"IKEv3", marker(edit(later, 17, 0x30)), PortNATT, drop(reasonMarker)},
		{"too long", marker(append(bytes.Clone(later), 0)), PortNATT, drop(reasonMarker)},
		{"cut off", marker(later[:60]), PortNATT, drop(reasonMarker)},
		{"marker alone", make([]byte, 12), PortNATT, drop(reasonMarker)},
		{"zero SPI", marker(message(ExchangeAuth, FlagInitiator, 0, 8)), PortNATT, drop(reasonNoSPI)},
		{"first message with SPIr", saInitWith(7, 8), Port, drop(reasonNotFirst)},
	} {
		t.Run(x.name, func(t *testing.T) {
			f := testFlow
			f.Service = x.port
			want := x.want
			for i, k := range want.Keys {
				if k == fl {
					want.Keys[i] = lb.FlowKey(f)
				}
			}
			if want.Begin {
				want.Hints[0] = lb.FlowKey(f)
			}
			if diff := diffVerdict(control(want, x.b), Classifier{}.Classify(x.b, f)); diff != "" {
				t.Errorf("by SPI (-want +got):\n%s", diff)
			}
			if !want.Drop {
				want = lb.Verdict{Begin: true, Keys: keys(addr)}
			}
			if diff := diffVerdict(control(want, x.b), Classifier{Affinity: AffinitySource}.Classify(x.b, f)); diff != "" {
				t.Errorf("by source (-want +got):\n%s", diff)
			}
		})
	}
}

func saInitWith(spii, spir SPI) []byte {
	b := saInit(spii)
	binary.BigEndian.PutUint64(b[8:], uint64(spir))
	return b
}

func TestAnswer(t *testing.T) {
	const r = FlagResponse
	spi, fl := SPIKey(7), lb.FlowKey(testFlow)
	refusal := func(n NotifyType, spir SPI) []byte {
		return message(ExchangeSAInit, r, 7, spir, NotifyPayload(n, []byte("xx")))
	}
	both := keys(spi, fl)
	for _, x := range []struct {
		name  string
		b     []byte
		stage lb.Stage
		keys  [lb.MaxKeys]lb.Key
		drop  string
	}{
		{"IKE_SA_INIT", message(ExchangeSAInit, r, 7, 8, testSA(), testKE(14), testNonce()), lb.StageHalfOpen, both, ""},
		{"nonce first", message(ExchangeSAInit, r, 7, 8, testNonce(), testKE(14), testSA()), lb.StageHalfOpen, both, ""},
		{"resumption", message(ExchangeSessionResume, r, 7, 8, testNonce()), lb.StageHalfOpen, both, ""},
		{"COOKIE", refusal(NotifyCookie, 0), lb.StageNone, keys(), ""},
		{"COOKIE with SPIr", refusal(NotifyCookie, 8), lb.StageNone, keys(), ""},
		{"INVALID_KE_PAYLOAD", refusal(NotifyInvalidKEPayload, 0), lb.StageNone, keys(), ""},
		{"NO_PROPOSAL_CHOSEN", refusal(NotifyNoProposalChosen, 0), lb.StageNone, keys(), ""},
		{"NO_PROPOSAL_CHOSEN with SPIr", refusal(NotifyNoProposalChosen, 8), lb.StageNone, keys(), ""},
		{"malformed", edited(refusal(NotifyCookie, 8), HeaderLen+3, 99), lb.StageNone, keys(), ""},
		{"a server's IKE_SA_INIT", message(ExchangeSAInit, FlagInitiator, 7, 0, testSA(), testNonce()), lb.StageNone, keys(), ""},
		{"IKE_INTERMEDIATE", marker(message(ExchangeIntermediate, r, 7, 8)), lb.StageHalfOpen, both, ""},
		{"IKE_AUTH", marker(message(ExchangeAuth, r, 7, 8)), lb.StageEstablished, both, ""},
		{"IKE_AUTH fragment", marker(message(ExchangeAuth, r, 7, 8, Payload{Type: PayloadSKF, Body: make([]byte, 9)})), lb.StageEstablished, both, ""},
		{"CREATE_CHILD_SA", marker(message(ExchangeCreateChildSA, r, 7, 8)), lb.StageEstablished, both, ""},
		{"a server's request", marker(message(ExchangeInformational, 0, 7, 8)), lb.StageEstablished, both, ""},
		{"a server's request after its rekey", marker(message(ExchangeInformational, FlagInitiator, 7, 8)), lb.StageEstablished, both, ""},
		{"ESP", espPacket(0x1000), lb.StageEstablished, keys(fl), ""},
		{"keepalive", []byte{0xff}, lb.StageNone, keys(), ""},
		{"INVALID_IKE_SPI", marker(message(ExchangeInformational, r, 7, 8, NotifyPayload(NotifyInvalidIKESPI, nil))), 0, keys(), reasonUnsafe},
		{"INVALID_IKE_SPI to IKE_AUTH", marker(message(ExchangeAuth, r, 7, 8, NotifyPayload(NotifyInvalidIKESPI, nil))), 0, keys(), reasonUnsafe},
		{"INVALID_SPI", marker(message(ExchangeInformational, FlagInitiator, 7, 0, NotifyPayload(NotifyInvalidSPI, nil))), 0, keys(), reasonUnsafe},
		{"garbage", []byte("hello"), 0, keys(), reasonShort},
	} {
		t.Run(x.name, func(t *testing.T) {
			want := lb.Verdict{Stage: x.stage, Keys: x.keys, Drop: x.drop != "", Reason: x.drop}
			if diff := diffVerdict(control(want, x.b), Classifier{}.Answer(x.b, testFlow)); diff != "" {
				t.Errorf("by SPI (-want +got):\n%s", diff)
			}
			if x.drop == reasonUnsafe {
				want = lb.Verdict{} // nobody was asked, so the client may hear it
			}
			if want.Stage != lb.StageNone {
				want.Keys = keys(lb.AddrKey(testFlow.Client.Addr()))
			}
			if diff := diffVerdict(control(want, x.b), Classifier{Affinity: AffinitySource}.Answer(x.b, testFlow)); diff != "" {
				t.Errorf("by source (-want +got):\n%s", diff)
			}
		})
	}
}

func edited(b []byte, at int, v byte) []byte {
	b[at] = v
	return b
}

func TestAffinityText(t *testing.T) {
	for _, a := range []Affinity{AffinitySPI, AffinitySource} {
		b, err := a.MarshalText()
		var back Affinity
		if err != nil || back.UnmarshalText(b) != nil || back != a {
			t.Errorf("%v becomes %q becomes %v", a, b, back)
		}
	}
	if err := new(Affinity).UnmarshalText([]byte("port")); err == nil || !strings.Contains(err.Error(), `"spi"`) {
		t.Errorf("got %v", err)
	}
}

// hotDatagrams are what a Classifier meets in numbers, and the worst.
func hotDatagrams() map[string][]byte {
	return map[string][]byte{
		"ESP":       append(espPacket(0x1000), make([]byte, 1300)...),
		"IKE_AUTH":  marker(message(ExchangeAuth, FlagInitiator, 7, 8)),
		"SA_INIT":   saInit(7),
		"response":  message(ExchangeSAInit, FlagResponse, 7, 8, testSA(), testKE(GroupMODP2048), testNonce()),
		"malformed": edited(message(ExchangeSAInit, FlagResponse, 7, 8, testSA()), HeaderLen+3, 255),
		"keepalive": {0xff},
		"garbage":   []byte("garbage"),
	}
}

func TestNoAllocs(t *testing.T) {
	for _, a := range []Affinity{AffinitySPI, AffinitySource} {
		var c lb.Classifier = Classifier{Affinity: a}
		for name, b := range hotDatagrams() {
			if n := testing.AllocsPerRun(100, func() { c.Classify(b, testFlow) }); n != 0 {
				t.Errorf("Classify of %s by %v allocates %v times", name, a, n)
			}
			if n := testing.AllocsPerRun(100, func() { c.Answer(b, testFlow) }); n != 0 {
				t.Errorf("Answer of %s by %v allocates %v times", name, a, n)
			}
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	for name, d := range hotDatagrams() {
		for _, a := range []Affinity{AffinitySPI, AffinitySource} {
			b.Run(fmt.Sprintf("%s/%v", name, a), func(b *testing.B) {
				c := Classifier{Affinity: a}
				b.ReportAllocs()
				for b.Loop() {
					c.Classify(d, testFlow)
				}
			})
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	for name, d := range hotDatagrams() {
		b.Run(name, func(b *testing.B) {
			c := Classifier{}
			b.ReportAllocs()
			for b.Loop() {
				c.Answer(d, testFlow)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	d := message(ExchangeSAInit, FlagInitiator, 7, 0, Payload{Type: PayloadSA, Body: AppendSA(nil, DefaultProposals()...)}, testKE(GroupMODP2048), testNonce())
	b.Run("payloads", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m, _ := ParseMessage(d)
			w := m.Payloads()
			for w.Next() {
				continue
			}
		}
	})
	b.Run("SA", func(b *testing.B) {
		m, _ := ParseMessage(d)
		w := m.Payloads()
		w.Next()
		b.ReportAllocs()
		for b.Loop() {
			ParseSA(w.Payload.Body)
		}
	})
}
