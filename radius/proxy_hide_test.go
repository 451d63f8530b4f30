package radius

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"testing"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2868"
	"layeh.com/radius/vendors/microsoft"
)

// What is hidden with the secret is readable with the other side's: as another
// implementation hides and reads it.
func TestProxyHidesAnew(t *testing.T) {
	for _, same := range []bool{false, true} {
		from, to := clientSecret, serverSecret
		if same {
			to = from
		}
		s := newSigner()
		for _, password := range []string{"", "x", "sixteen letters.", "a password of more than sixteen letters", string(bytes.Repeat([]byte("long"), 32))} {
			p := layeh.New(layeh.CodeAccessRequest, from.bytes())
			if err := rfc2865.UserPassword_SetString(p, password); err != nil {
				t.Fatal(err)
			}
			rfc2865.CHAPPassword_Set(p, bytes.Repeat([]byte{7}, 17))
			b, err := p.Encode()
			if err != nil {
				t.Fatal(err)
			}
			q, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			out, auth := s.request(nil, q, 9, newKey(from), newKey(to), false)
			got, err := layeh.Parse(out, to.bytes())
			if err != nil {
				t.Fatal(err)
			}
			if rfc2865.UserPassword_GetString(got) != password || auth != q.Authenticator() || got.Identifier != 9 {
				t.Errorf("password %q came as %q", password, rfc2865.UserPassword_GetString(got))
			}
			if !bytes.Equal(rfc2865.CHAPPassword_Get(got), bytes.Repeat([]byte{7}, 17)) {
				t.Error("CHAP-Password was changed")
			}
			if err := (Packet{b: out}).CheckRequest(to); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestProxyHidesAnswersAnew(t *testing.T) {
	request := layeh.New(layeh.CodeAccessRequest, serverSecret.bytes())
	a := request.Response(layeh.CodeAccessAccept)
	send, recv := bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 32)
	if err := microsoft.MSMPPESendKey_Set(a, send); err != nil {
		t.Fatal(err)
	}
	if err := microsoft.MSMPPERecvKey_Set(a, recv); err != nil {
		t.Fatal(err)
	}
	if err := rfc2868.TunnelPassword_SetString(a, 3, "of the tunnel, and a long one"); err != nil {
		t.Fatal(err)
	}
	// MS-CHAP-MPPE-Keys: 8 and 16 bytes and 8 of padding, hidden like a password.
	keys := make([]byte, 32)
	rand.Read(keys[:24])
	auth := request.Authenticator
	var hidden []byte
	before := auth[:]
	for i := 0; i < 32; i += 16 {
		h := layeh.Attribute(hidePassword(serverSecret, [16]byte(before), keys[i:i+16]))
		hidden = append(hidden, h...)
		before = h
	}
	vsa := binary.BigEndian.AppendUint32(nil, vendorMicrosoft)
	a.Add(rfc2865.VendorSpecific_Type, append(append(vsa, msCHAPMPPEKeys, byte(2+len(hidden))), hidden...))
	b, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	out := newSigner().answer(nil, p, 5, newKey(serverSecret), newKey(clientSecret), auth, auth, true)
	if err := (Packet{b: out}).CheckAnswer(clientSecret, auth); err != nil {
		t.Fatal(err)
	}
	got, err := layeh.Parse(out, clientSecret.bytes())
	if err != nil {
		t.Fatal(err)
	}
	got.Authenticator = auth // these are read with that of the request
	if k := microsoft.MSMPPESendKey_Get(got, request); !bytes.Equal(k, send) {
		t.Errorf("MS-MPPE-Send-Key came as %x", k)
	}
	if k := microsoft.MSMPPERecvKey_Get(got, request); !bytes.Equal(k, recv) {
		t.Errorf("MS-MPPE-Recv-Key came as %x", k)
	}
	request.Secret = clientSecret.bytes()
	if tag, password, err := rfc2868.TunnelPassword_LookupString(got, request); err != nil || tag != 3 || password != "of the tunnel, and a long one" {
		t.Errorf("Tunnel-Password came as %d %q, %v", tag, password, err)
	}
	at := bytes.Index(out, append(binary.BigEndian.AppendUint32(nil, vendorMicrosoft), msCHAPMPPEKeys))
	var shown []byte
	before = auth[:]
	for i := 0; i < 32; i += 16 {
		block := out[at+6+i : at+22+i]
		shown = append(shown, hidePassword(clientSecret, [16]byte(before), block)...)
		before = block
	}
	if !bytes.Equal(shown, keys) {
		t.Errorf("MS-CHAP-MPPE-Keys came as %x, not %x", shown, keys)
	}
}

// FuzzProxyPackets rewrites whatever parses, both ways: it must stay a packet,
// correctly signed, and lose no attribute.
func FuzzProxyPackets(f *testing.F) {
	f.Add(build(AccessRequest, 1, 2, text(UserName, "ada"), attr{UserPassword, make([]byte, 32)}, msgAuth(), text(ProxyState, "x")))
	f.Add(build(AccountingRequest, 1, 2, text(UserName, "ada")))
	f.Add(build(AccessAccept, 1, 2, attr{tunnelPassword, make([]byte, 35)}, attr{vendorSpecific, append([]byte{0, 0, 1, 55, 16, 36}, make([]byte, 34)...)}))
	f.Add(build(AccessChallenge, 1, 2, text(State, "s"), attr{EAPMessage, []byte{1, 1, 0, 5, 25}}, msgAuth()))
	f.Add(build(AccessAccept, 1, 2, attr{vendorSpecific, []byte{0, 0, 1, 55, 12, 1}}))
	from, to := newKey(clientSecret), newKey(serverSecret)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			return
		}
		s := newSigner()
		var out []byte
		var auth [16]byte
		switch p.Code() {
		case AccessRequest, AccountingRequest:
			out, auth = s.request(nil, p, 7, from, to, false)
		case AccessAccept, AccessReject, AccessChallenge, AccountingResponse:
			out = s.answer(nil, p, 7, from, to, auth, [16]byte{1}, true)
			auth = [16]byte{1}
		default:
			return
		}
		q, err := Parse(out)
		if err != nil || len(q.Bytes()) != len(out) {
			t.Fatalf("%x became %x: %v", b, out, err)
		}
		if q.Code() == AccessRequest || q.Code() == AccountingRequest {
			err = q.CheckRequest(serverSecret)
		} else if err = q.CheckAnswer(serverSecret, auth); err != nil && q.find(EAPMessage) > 0 {
			err = nil // accounting with EAP and the like
		}
		if err != nil && !(q.find(EAPMessage) > 0 && q.find(MessageAuthenticator) == 0) {
			t.Errorf("%x became %x: %v", b, out, err)
		}
		lost := 0
		for at := HeaderLen; at < len(p.b); at += int(p.b[at+1]) {
			if Type(p.b[at]) != MessageAuthenticator {
				lost++
			}
		}
		for at := HeaderLen; at < len(q.b); at += int(q.b[at+1]) {
			if Type(q.b[at]) != MessageAuthenticator {
				lost--
			}
		}
		if lost != 0 {
			t.Errorf("%x became %x: %d attributes were lost", b, out, lost)
		}
		// Hidden twice is hidden as before.
		if q.Code() == AccessAccept {
			back := s.answer(nil, q, p.Identifier(), to, from, [16]byte{1}, [16]byte{}, false)
			plain := appendAttributes(nil, p, false)
			if !bytes.Equal(back[HeaderLen:], plain) {
				t.Errorf("%x came back as %x", plain, back[HeaderLen:])
			}
		}
	})
}
