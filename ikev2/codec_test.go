package ikev2

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHeader(t *testing.T) {
	b := unhex(t, "5df1cffcd3e086e4 778d1cf631872077 21 20 22 28 00000000 0000001c")
	h, err := ParseHeader(b)
	want := Header{
		SPIi: 0x5df1cffcd3e086e4, SPIr: 0x778d1cf631872077, NextPayload: PayloadSA, Version: Version2,
		Exchange: ExchangeSAInit, Flags: FlagInitiator | FlagResponse, Length: 28,
	}
	if err != nil || h != want {
		t.Errorf("got %+v, %v", h, err)
	}
	if got := AppendHeader(nil, h); !bytes.Equal(got, b) {
		t.Errorf("appended %x", got)
	}
	if got := h.String(); got != "IKE_SA_INIT response 0, SPIs 5df1cffcd3e086e4 778d1cf631872077" {
		t.Errorf("String is %q", got)
	}
}

func TestStrings(t *testing.T) {
	for _, x := range []struct {
		got  interface{ String() string }
		want string
	}{
		{ExchangeIntermediate, "IKE_INTERMEDIATE"},
		{ExchangeType(99), "exchange 99"},
		{PayloadSKF, "SKF"},
		{PayloadEAP, "EAP"},
		{PayloadType(99), "payload 99"},
		{PayloadNone, "none"},
		{NotifyCookie, "COOKIE"},
		{NotifyNoProposalChosen, "NO_PROPOSAL_CHOSEN"},
		{NotifyType(3), "notify 3"},
		{NotifyType(40000), "notify 40000"},
		{ProtocolESP, "ESP"},
		{ProtocolID(9), "protocol 9"},
		{FlagInitiator | FlagResponse, "IR"},
		{Flags(0), "-"},
		{GroupECP256, "ECP_256"},
		{Group(99), "KE 99"},
		{TransformType(7), "ADDKE2"},
		{TransformType(99), "transform type 99"},
		{Transform{TransformEncr, EncrAESCBC, 256}, "AES_CBC_256"},
		{Transform{TransformPRF, 99, 0}, "PRF 99"},
		{KindESP, "ESP"},
		{Kind(9), "Kind(9)"},
		{AffinitySource, "source"},
		{Affinity(9), "Affinity(9)"},
		{AnswerCookie, "COOKIE"},
		{AnswerKind(99), "AnswerKind(99)"},
		{SPI(1), "0000000000000001"},
		{VendorID("\x00\xff"), "00ff"},
		{VendorID(vendors[4].id), "strongSwan"},
	} {
		if got := x.got.String(); got != x.want {
			t.Errorf("got %q, want %q", got, x.want)
		}
	}
}

func TestMessageRoundTrip(t *testing.T) {
	sa := []Proposal{
		{Number: 1, Protocol: ProtocolIKE, SPI: []byte("12345678"), Transforms: []Transform{{TransformEncr, EncrAESGCM16, 256}, {TransformKE, 14, 0}}},
		{Number: 2, Protocol: ProtocolESP, SPI: []byte("1234"), Transforms: []Transform{{TransformEncr, EncrNULL, 0}}},
	}
	n := Notify{Protocol: ProtocolESP, SPI: []byte("1234"), Type: NotifyRekeySA, Data: []byte("x")}
	k := KeyExchange{Group: GroupECP256, Data: bytes.Repeat([]byte{7}, 64)}
	b := AppendMessage([]byte("before"), Header{SPIi: 1, SPIr: 2, Exchange: ExchangeCreateChildSA, MessageID: 9},
		Payload{Type: PayloadSA, Critical: true, Body: AppendSA(nil, sa...)}, Payload{Type: PayloadNotify, Body: AppendNotify(nil, n)},
		Payload{Type: PayloadKE, Body: AppendKE(nil, k)}, Payload{Type: PayloadSK, Inner: PayloadIDi, Body: []byte("sealed")})
	b = b[len("before"):]
	m, err := ParseMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	if m.MessageID != 9 || m.NextPayload != PayloadSA || m.Version != Version2 || m.Protected() {
		t.Errorf("header is %+v", m.Header)
	}
	w := m.Payloads()
	for i, want := range []PayloadType{PayloadSA, PayloadNotify, PayloadKE, PayloadSK} {
		if !w.Next() || w.Payload.Type != want || w.Payload.Critical != (i == 0) {
			t.Fatalf("payload %d is %+v, %v", i, w.Payload, w.Err())
		}
		if !bytes.Equal(b[w.Payload.Offset:][:len(w.Payload.Body)], w.Payload.Body) {
			t.Errorf("payload %d isn't at its offset", i)
		}
		var got, wanted any
		var err error
		switch want {
		case PayloadSA:
			wanted = sa
			got, err = ParseSA(w.Payload.Body)
		case PayloadNotify:
			wanted = n
			got, err = ParseNotify(w.Payload.Body)
		case PayloadKE:
			wanted = k
			got, err = ParseKE(w.Payload.Body)
		default:
			wanted, got = PayloadIDi, w.Payload.Inner
		}
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Errorf("payload %d (-want +got):\n%s", i, diff)
		}
	}
	if w.Next() || w.Err() != nil {
		t.Errorf("after the last payload: %v", w.Err())
	}
	if got, ok := m.Notify(NotifyRekeySA); !ok || got.Protocol != ProtocolESP {
		t.Errorf("Notify is %+v, %v", got, ok)
	}
}

// TestParseErrors checks that every fault is found where it is.
func TestParseErrors(t *testing.T) {
	head := "0000000000000001 0000000000000000 %s 20 22 08 00000000"
	sa := func(s string) func() error {
		return func() error { _, err := ParseSA(unhex(t, s)); return err }
	}
	walk := func(next, length, rest string) func() error {
		return func() error {
			m, err := ParseMessage(unhex(t, strings.ReplaceAll(head, "%s", next)+length+rest))
			if err != nil {
				return err
			}
			w := m.Payloads()
			for w.Next() {
				continue
			}
			return w.Err()
		}
	}
	for _, x := range []struct {
		name   string
		parse  func() error
		offset int
		field  string
	}{
		{"short header", func() error { _, err := ParseHeader(make([]byte, 27)); return err }, 27, "header"},
		{"version", func() error {
			_, err := ParseMessage(unhex(t, "0000000000000001000000000000000000102208000000000000001c"))
			return err
		}, 17, "version"},
		{"length", walk("00", "0000001d", ""), 24, "length"},
		{"no SPI", func() error {
			_, err := ParseMessage(unhex(t, "0000000000000000000000000000000000202208000000000000001c"))
			return err
		}, 0, "initiator SPI"},
		{"rest", walk("00", "0000001d", "00"), 28, "payload"},
		{"no payload header", walk("29", "0000001e", "0000"), 28, "payload header"},
		{"short payload", walk("29", "00000020", "00000003"), 30, "payload length"},
		{"long payload", walk("29", "00000020", "00000005"), 30, "payload length"},
		{"missing payload", walk("29", "00000020", "29000004"), 32, "payload header"},
		{"short notify", func() error { _, err := ParseNotify(make([]byte, 3)); return err }, 3, "notify"},
		{"notify SPI", func() error { _, err := ParseNotify([]byte{1, 255, 0, 1, 0}); return err }, 1, "notify SPI size"},
		{"short KE", func() error { _, err := ParseKE(make([]byte, 3)); return err }, 3, "key exchange"},
		{"empty SA", sa(""), 0, "proposal"},
		{"SA start", sa("01000008 01010000"), 0, "proposal"},
		{"SA long", sa("00000009 01010000"), 2, "proposal length"},
		{"SA SPI", sa("00000008 0101ff00"), 2, "proposal length"},
		{"SA count", sa("00000010 01010002 0000000801000002"), 2, "proposal length"},
		{"SA more", sa("02000008 01010000"), 8, "proposal"},
		{"SA rest", sa("00000008 01010000 00"), 8, "proposal"},
		{"SA extra transform", sa("00000018 01010001 0000000801000002 0000000801000002"), 16, "transform"},
		{"transform length", sa("00000010 01010001 0000000701000002"), 10, "transform length"},
		{"attribute", sa("00000012 01010001 0000000a01000002 800e"), 16, "attribute"},
		{"attribute length", sa("00000014 01010001 0000000c01000002 00010001"), 18, "attribute length"},
	} {
		t.Run(x.name, func(t *testing.T) {
			err := x.parse()
			var pe *ParseError
			if !errors.As(err, &pe) {
				t.Fatalf("got %v", err)
			}
			if pe.Offset != x.offset || pe.Field != x.field {
				t.Errorf("got %v, want offset %d, %s", err, x.offset, x.field)
			}
		})
	}
}

func TestMaxPayloads(t *testing.T) {
	ps := make([]Payload, MaxPayloads+1)
	for i := range ps {
		ps[i].Type = PayloadVendor
	}
	m, err := ParseMessage(AppendMessage(nil, Header{SPIi: 1}, ps...))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	w := m.Payloads()
	for w.Next() {
		n++
	}
	if n != MaxPayloads || w.Err() == nil {
		t.Errorf("%d payloads, %v", n, w.Err())
	}
}

// TestUnknownAttribute checks that attributes of no known kind are skipped.
func TestUnknownAttribute(t *testing.T) {
	ps, err := ParseSA(unhex(t, "0000001e 01010001 00000016 0100000c 0001 0002 aabb 8003 0001 800e 0100"))
	if err != nil || len(ps) != 1 || ps[0].String() != "AES_CBC_256" {
		t.Errorf("got %v, %v", ps, err)
	}
}
