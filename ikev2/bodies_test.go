package ikev2

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// again parses the body of a payload and appends what was parsed. Only
// parts that are reserved, or can be said in two ways, may come back changed.
func again(kind PayloadType, body []byte) ([]byte, error) {
	switch kind {
	case PayloadSA:
		v, err := ParseSA(body)
		return AppendSA(nil, v...), err
	case PayloadKE:
		v, err := ParseKE(body)
		return AppendKE(nil, v), err
	case PayloadIDi, PayloadIDr:
		v, err := ParseID(body)
		return AppendID(nil, v), err
	case PayloadCert:
		v, err := ParseCert(body)
		return AppendCert(nil, v), err
	case PayloadCertReq:
		v, err := ParseCertRequest(body)
		return AppendCertRequest(nil, v), err
	case PayloadAuth:
		v, err := ParseAuth(body)
		return AppendAuth(nil, v), err
	case PayloadNonce:
		return ParseNonce(body)
	case PayloadNotify:
		v, err := ParseNotify(body)
		return AppendNotify(nil, v), err
	case PayloadDelete:
		v, err := ParseDelete(body)
		return AppendDelete(nil, v), err
	case PayloadTSi, PayloadTSr:
		v, err := ParseTS(body)
		return AppendTS(nil, v...), err
	case PayloadCP:
		v, err := ParseConfig(body)
		return AppendConfig(nil, v), err
	case PayloadEAP:
		v, err := ParseEAP(body)
		return AppendEAP(nil, v), err
	case PayloadSKF:
		v, err := ParseSKF(body)
		return AppendSKF(nil, v), err
	}
	return body, nil
}

// everyPayload returns one payload of each kind, and several of those that come
// in kinds.
func everyPayload() []Payload {
	notify := func(t NotifyType, data string) Payload { return NotifyPayload(t, []byte(data)) }
	ip := netip.MustParseAddr
	return []Payload{
		{Type: PayloadSA, Body: AppendSA(nil, Policies()[1].IKE...)},
		{Type: PayloadSA, Body: AppendSA(nil, Proposal{Protocol: ProtocolESP, SPI: []byte("spi!"), Transforms: highSecurityESP().Transforms()})},
		{Type: PayloadKE, Body: AppendKE(nil, KeyExchange{GroupECP256, bytes.Repeat([]byte{7}, 64)})},
		{Type: PayloadIDi, Body: AppendID(nil, Identity{IDFQDN, []byte("pc1.example.com")})},
		{Type: PayloadIDr, Body: AppendID(nil, Identity{IDIPv4, []byte{192, 0, 2, 1}})},
		{Type: PayloadIDr, Body: AppendID(nil, Identity{IDIPv6, ip("2001:db8::1").AsSlice()})},
		{Type: PayloadIDi, Body: AppendID(nil, Identity{IDKeyID, []byte("key")})},
		{Type: PayloadCert, Body: AppendCert(nil, Cert{CertHashURL, []byte("01234567890123456789http://example.com/c")})},
		{Type: PayloadCertReq, Body: AppendCertRequest(nil, CertRequest{CertX509, bytes.Repeat([]byte{3}, 60)})},
		{Type: PayloadAuth, Body: AppendAuth(nil, Auth{AuthSharedKey, bytes.Repeat([]byte{4}, 32)})},
		{Type: PayloadAuth, Body: AppendAuth(nil, Auth{AuthSignature, AppendSignature(nil, []byte{0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2}, []byte("signature"))})},
		{Type: PayloadNonce, Body: bytes.Repeat([]byte{5}, 48)},
		notify(NotifyInvalidKEPayload, "\x00\x14"),
		notify(NotifyCookie, "crumbs"),
		notify(NotifySignatureHashes, string(AppendHashes(nil, HashSHA256, HashSHA384))),
		notify(NotifyRedirect, string(AppendRedirect(nil, Redirect{RedirectIPv4, []byte{192, 0, 2, 9}, []byte("a nonce of 16 oc")}))),
		notify(NotifyRedirectedFrom, string(AppendRedirect(nil, Redirect{RedirectIPv6, ip("2001:db8::9").AsSlice(), nil}))),
		notify(NotifyAdditionalIPv4, "\xc0\x00\x02\x08"),
		notify(NotifyAuthLifetime, "\x00\x00\x0e\x10"),
		notify(NotifyPPKIdentity, string(AppendPPKIdentity(nil, PPKIdentity{2, []byte("ppk")}))),
		{Type: PayloadNotify, Body: AppendNotify(nil, Notify{ProtocolESP, []byte("spi!"), NotifyRekeySA, nil})},
		{Type: PayloadDelete, Body: AppendDelete(nil, Delete{ProtocolESP, 4, []byte("spi1spi2")})},
		{Type: PayloadDelete, Body: AppendDelete(nil, Delete{ProtocolIKE, 0, nil})},
		{Type: PayloadVendor, Body: WindowsVendorIDs()[0]},
		{Type: PayloadTSi, Body: AppendTS(nil, TrafficSelector{Type: TSIPv4, EndPort: 65535, Start: ip("0.0.0.0"), End: ip("255.255.255.255")},
			TrafficSelector{Type: TSIPv6, Protocol: 17, StartPort: 53, EndPort: 53, Start: ip("2001:db8::"), End: ip("2001:db8::ffff")})},
		{Type: PayloadTSr, Body: AppendTS(nil, TrafficSelector{Type: TSIPv4, EndPort: 65535, Start: ip("10.0.0.3"), End: ip("10.0.0.9")})},
		{Type: PayloadCP, Body: AppendConfig(nil, Config{ConfigRequest, []ConfigAttribute{{Type: ConfigIPv4Address}, {ConfigIPv4DNS, []byte{10, 0, 0, 1}}, {Type: ConfigMicrosoftIPv4Server}}})},
		{Type: PayloadEAP, Body: AppendEAP(nil, EAP{EAPRequest, 3, EAPIdentity, nil})},
		{Type: PayloadEAP, Body: AppendEAP(nil, EAP{Code: EAPSuccess, Identifier: 4})},
	}
}

// highSecurityESP is the suite for ESP of the policy.
func highSecurityESP() Suite {
	_, esp, _ := HighSecurityPolicy().Suites()
	return esp
}

func TestBodiesRoundTrip(t *testing.T) {
	ps := append(everyPayload(), Payload{Type: PayloadSKF, Inner: PayloadIDi, Body: AppendSKF(nil, SKF{1, 3, []byte("sealed")})})
	for i, p := range ps {
		got, err := again(p.Type, p.Body)
		if err != nil || !bytes.Equal(got, p.Body) {
			t.Errorf("%d, %v: %x comes back as %x, %v", i, p.Type, p.Body, got, err)
		}
	}
	m, err := ParseMessage(AppendMessage(nil, Header{SPIi: 1, SPIr: 2, Exchange: ExchangeAuth}, ps...))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	w := m.Payloads()
	for ; w.Next(); n++ {
		if w.Payload.Type != ps[n].Type || !bytes.Equal(w.Payload.Body, ps[n].Body) || w.Payload.Inner != ps[n].Inner {
			t.Errorf("payload %d is %+v", n, w.Payload)
		}
	}
	if w.Err() != nil || n != len(ps) {
		t.Errorf("%d of %d payloads, %v", n, len(ps), w.Err())
	}
}

func TestBodyErrors(t *testing.T) {
	for _, x := range []struct {
		name   string
		kind   PayloadType
		body   string
		offset int
		field  string
	}{
		{"short ID", PayloadIDi, "020000", 3, "identification"},
		{"ID of 3 octets", PayloadIDi, "01000000 c00002", 4, "identification data"},
		{"empty CERT", PayloadCert, "", 0, "certificate encoding"},
		{"empty CERTREQ", PayloadCertReq, "", 0, "certificate encoding"},
		{"odd CERTREQ", PayloadCertReq, "04 0102", 1, "certification authority"},
		{"short AUTH", PayloadAuth, "0200", 2, "authentication"},
		{"signature without length", PayloadAuth, "0e000000", 4, "algorithm length"},
		{"signature cut off", PayloadAuth, "0e000000 09 00", 4, "algorithm length"},
		{"short nonce", PayloadNonce, "00", 0, "nonce"},
		{"short delete", PayloadDelete, "0304", 2, "delete"},
		{"delete count", PayloadDelete, "03040002 01020304", 2, "number of SPIs"},
		{"delete nothing twice", PayloadDelete, "01000002", 2, "number of SPIs"},
		{"short TS", PayloadTSi, "01", 1, "traffic selectors"},
		{"TS missing", PayloadTSi, "01000000", 4, "traffic selector"},
		{"TS rest", PayloadTSi, "00000000 00", 4, "traffic selector"},
		{"TS size", PayloadTSi, "01000000 0700 0003", 6, "traffic selector length"},
		{"TS of an IPv4 address and a half", PayloadTSi, "01000000 0700000c 0000ffff 0a000001", 6, "traffic selector length"},
		{"short CP", PayloadCP, "0100", 2, "configuration"},
		{"CP header", PayloadCP, "01000000 0001", 4, "configuration attribute"},
		{"CP length", PayloadCP, "01000000 00010001", 6, "configuration attribute length"},
		{"short EAP", PayloadEAP, "0101", 2, "EAP"},
		{"EAP length", PayloadEAP, "01010005", 2, "EAP length"},
		{"EAP without type", PayloadEAP, "01010004", 4, "EAP type"},
		{"short SKF", PayloadSKF, "0001", 2, "fragment"},
		{"fragment 0", PayloadSKF, "00000001", 0, "fragment number"},
		{"of 0 fragments", PayloadSKF, "00010000", 2, "total fragments"},
		{"fragment 3 of 2", PayloadSKF, "00030002", 0, "fragment number"},
		{"transform marked", PayloadSA, "00000010 01010001 0100000801000002", 8, "transform"},
		{"transform not last", PayloadSA, "00000010 01010001 0300000801000002", 8, "transform"},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, err := again(x.kind, unhex(t, x.body))
			var pe *ParseError
			if !errors.As(err, &pe) || pe.Offset != x.offset || pe.Field != x.field {
				t.Errorf("got %v, want offset %d, %s", err, x.offset, x.field)
			}
		})
	}
}

func TestNotifyData(t *testing.T) {
	n := func(kind NotifyType, data string) Notify { return Notify{Type: kind, Data: []byte(data)} }
	if g, err := n(NotifyInvalidKEPayload, "\x00\x14").Group(); err != nil || g != GroupECP384 {
		t.Errorf("%v, %v", g, err)
	}
	if v, err := n(NotifySetWindowSize, "\x00\x00\x00\x05").Uint32(); err != nil || v != 5 {
		t.Errorf("%v, %v", v, err)
	}
	if a, err := n(NotifyAdditionalIPv6, string(netip.MustParseAddr("2001:db8::1").AsSlice())).Addr(); err != nil || a.String() != "2001:db8::1" {
		t.Errorf("%v, %v", a, err)
	}
	if h, err := n(NotifySignatureHashes, "\x00\x02\x00\x05").Hashes(); err != nil || cmp.Diff([]HashAlgorithm{HashSHA256, HashIdentity}, h) != "" {
		t.Errorf("%v, %v", h, err)
	}
	if r, err := n(NotifyRedirect, "\x03\x0bvpn.examplenonce").Redirect(); err != nil || r.String() != `"vpn.example"` || string(r.Nonce) != "nonce" {
		t.Errorf("%v, %v", r, err)
	}
	if p, err := n(NotifyPPKIdentity, "\x01id").PPKIdentity(); err != nil || p.Type != 1 || string(p.ID) != "id" {
		t.Errorf("%v, %v", p, err)
	}
	for i, err := range []error{
		func() error { _, err := n(NotifyInvalidKEPayload, "\x00").Group(); return err }(),
		func() error { _, err := n(NotifyAuthLifetime, "").Uint32(); return err }(),
		func() error { _, err := n(NotifyAdditionalIPv4, "\x00").Addr(); return err }(),
		func() error { _, err := n(NotifySignatureHashes, "\x00").Hashes(); return err }(),
		func() error { _, err := n(NotifyRedirect, "\x01").Redirect(); return err }(),
		func() error { _, err := n(NotifyRedirect, "\x03\x05vpn").Redirect(); return err }(),
		func() error { _, err := n(NotifyRedirect, "\x01\x03abc").Redirect(); return err }(),
		func() error { _, err := n(NotifyPPKIdentity, "").PPKIdentity(); return err }(),
	} {
		var pe *ParseError
		if !errors.As(err, &pe) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// What may be secret or somebody's name isn't shown, and what a peer says can't
// give orders to a terminal.
func TestBodyStrings(t *testing.T) {
	for _, x := range []struct {
		got  interface{ String() string }
		want string
	}{
		{Identity{IDFQDN, []byte("a\x1b[2J")}, `"a\x1b[2J"`},
		{Identity{IDIPv4, []byte{192, 0, 2, 1}}, "192.0.2.1"},
		{Identity{IDKeyID, bytes.Repeat([]byte{1}, 99)}, "ID_KEY_ID " + strings.Repeat("01", 32)},
		{Auth{AuthRSA, []byte("secret")}, "RSA signature"},
		{EAP{EAPResponse, 1, EAPMSCHAPv2, []byte("hash")}, "EAP Response 1, EAP-MSCHAPv2"},
		{EAP{Code: EAPFailure, Identifier: 2}, "EAP Failure 2"},
		{TrafficSelector{Type: TSIPv4, EndPort: 65535, Start: netip.MustParseAddr("10.0.0.0"), End: netip.MustParseAddr("10.255.255.255")}, "10.0.0.0/8"},
		{TrafficSelector{Type: TSIPv4, Protocol: 6, StartPort: 80, EndPort: 81, Start: netip.MustParseAddr("10.0.0.1"), End: netip.MustParseAddr("10.0.0.3")}, "10.0.0.1-10.0.0.3 protocol 6 ports 80-81"},
		{TrafficSelector{Type: TSSecLabel, Data: []byte("x")}, "TS_SECLABEL of 1 octets"},
		{Redirect{Type: RedirectFQDN, Gateway: []byte("a\x00")}, `"a\x00"`},
		{NATThere, "at the gateway"},
		{ConfigMicrosoftIPv6Server, "INTERNAL_IP6_SERVER"},
	} {
		if got := x.got.String(); got != x.want {
			t.Errorf("got %q, want %q", got, x.want)
		}
	}
}

func FuzzBody(f *testing.F) {
	for _, p := range append(everyPayload(), Payload{Type: PayloadSKF, Body: AppendSKF(nil, SKF{1, 3, []byte("sealed")})}) {
		f.Add(uint8(p.Type), p.Body)
	}
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		was := bytes.Clone(body)
		one, err := again(PayloadType(kind), body)
		if !bytes.Equal(was, body) {
			t.Fatal("parsing changes what is parsed")
		}
		if err != nil {
			var pe *ParseError
			if !errors.As(err, &pe) || pe.Offset < 0 || pe.Offset > len(body) {
				t.Fatalf("%v of %d octets: %v", PayloadType(kind), len(body), err)
			}
			return
		}
		if len(one) > len(body) {
			t.Fatalf("%v: %d octets become %d", PayloadType(kind), len(body), len(one))
		}
		two, err := again(PayloadType(kind), one)
		if err != nil || !bytes.Equal(one, two) {
			t.Fatalf("%v: %x comes back as %x, %v", PayloadType(kind), one, two, err)
		}
	})
}

func FuzzNotifyData(f *testing.F) {
	for _, p := range everyPayload() {
		if n, err := ParseNotify(p.Body); p.Type == PayloadNotify && err == nil {
			f.Add(uint16(n.Type), n.Data)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint16, data []byte) {
		n := Notify{Type: NotifyType(kind), Data: data}
		if r, err := n.Redirect(); err == nil && !bytes.Equal(AppendRedirect(nil, r), data) {
			t.Fatal("another Redirect comes back")
		} else if err == nil && strings.ContainsAny(r.String(), "\x1b\n\x00") {
			t.Fatalf("prints %q", r.String())
		}
		if h, err := n.Hashes(); err == nil && !bytes.Equal(AppendHashes(nil, h...), data) {
			t.Fatal("other hashes come back")
		}
		if p, err := n.PPKIdentity(); err == nil && !bytes.Equal(AppendPPKIdentity(nil, p), data) {
			t.Fatal("another PPKIdentity comes back")
		}
		_, _ = n.Group()
		_, _ = n.Uint32()
		_, _ = n.Addr()
		_ = n.Type.String()
	})
}

func FuzzParseProposals(f *testing.F) {
	for _, s := range append(matrixWords(), "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_ecp256", "null-sha1-esn") {
		f.Add(uint8(ProtocolIKE), s)
		f.Add(uint8(ProtocolESP), s)
	}
	f.Fuzz(func(t *testing.T, protocol uint8, s string) {
		if len(s) > 4096 {
			return
		}
		ps, err := ParseProposals(ProtocolID(protocol), s)
		if err != nil {
			return
		}
		for _, p := range ps {
			words, err := p.Keywords()
			if err != nil {
				t.Fatal(err)
			}
			back, err := ParseProposals(ProtocolID(protocol), words)
			if err != nil || len(back) != 1 {
				t.Fatalf("%q: %v", words, err)
			}
		}
		if n := Negotiate(ps, Policy{IKE: ps}); protocol == uint8(ProtocolIKE) && !n.OK && !strings.Contains(s, "_") {
			t.Fatalf("%q doesn't meet itself: %v", s, n)
		}
		p := Policy{IKE: ps}
		_ = p.Assess()
	})
}

func matrixWords() []string {
	return []string{"aes256-sha256-modp2048", "aes128gcm16-prfsha256-modp2048,aes256-sha256-modp2048", "3des-sha1-modp1024"}
}

func FuzzQuotePowerShell(f *testing.F) {
	for _, s := range []string{"VPN", "it's", "’; whoami; ‘", "a\nb", "$(x)`"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := QuotePowerShell(s)
		if err != nil {
			return
		}
		// As PowerShell reads it: the string ends at the first quote of any kind
		// that isn't doubled.
		in, quotes := []rune(q[1:len(q)-1]), "'‘’‚‛"
		var out []rune
		for i := 0; i < len(in); i++ {
			if strings.ContainsRune(quotes, in[i]) {
				if i++; i == len(in) || in[i] != in[i-1] {
					t.Fatalf("%q ends within %q", q, s)
				}
			}
			out = append(out, in[i])
		}
		if string(out) != s || strings.ContainsAny(q, "\n\r\x00") {
			t.Fatalf("%q is read as %q", s, string(out))
		}
	})
}
