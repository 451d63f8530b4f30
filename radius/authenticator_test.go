package radius

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"testing"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
)

var testSecret = NewSecret([]byte("xyzzy5461"))

// TestRFC2865 checks the example of RFC 2865 §7.1: its authenticators were
// computed by the RFC's authors.
func TestRFC2865(t *testing.T) {
	request := unhex(t, "01000038 0f403f9473978057bd83d5cb98f4227a"+
		"01066e656d6f 02120dbe708d93d413ce3196e43f782a0aee 0406c0a80110 050600000003")
	accept := unhex(t, "02000026 86fe220e7624ba2a1005f6bf9b55e0b2"+
		"060600000001 0f0600000000 0e06c0a80103")
	r, err := Parse(request)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Parse(accept)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.CheckAnswer(testSecret, r.Authenticator()); err != nil {
		t.Error(err)
	}
	if err := a.CheckAnswer(NewSecret([]byte("other")), r.Authenticator()); !errors.Is(err, ErrAuthenticator) {
		t.Errorf("another secret: %v", err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(s), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sign gives the packet its Message-Authenticator and its Authenticator, by a
// way of its own: over the bytes, not by a Packet.
func sign(b []byte, authenticator [16]byte, answer bool) []byte {
	b = bytes.Clone(b)
	copy(b[4:20], authenticator[:])
	if i := bytes.Index(b, append([]byte{80, 18}, make([]byte, 16)...)); i >= 0 {
		h := hmac.New(md5.New, testSecret.bytes())
		h.Write(b)
		copy(b[i+2:], h.Sum(nil))
	}
	if answer {
		sum := md5.Sum(append(bytes.Clone(b), testSecret.bytes()...))
		copy(b[4:20], sum[:])
	}
	return b
}

func TestCheckAnswer(t *testing.T) {
	auth := [16]byte{1, 2, 3}
	eap := attr{EAPMessage, []byte{1, 1, 0, 5, 1}}
	good := sign(build(AccessChallenge, 4, 0, text(UserName, "ada"), msgAuth(), eap), auth, true)
	changed := bytes.Clone(good)
	changed[len(changed)-1] ^= 1
	resigned := bytes.Clone(changed) // MD5 right, HMAC wrong: a forger without the secret can't, but BlastRADIUS can
	copy(resigned[4:20], auth[:])
	sum := md5.Sum(append(bytes.Clone(resigned), testSecret.bytes()...))
	copy(resigned[4:20], sum[:])
	tests := []struct {
		name string
		b    []byte
		want error
	}{
		{"good", good, nil},
		{"padding", append(bytes.Clone(good), 0, 0, 0), nil},
		{"no Message-Authenticator", sign(build(AccessReject, 4, 0), auth, true), nil},
		{"changed", changed, ErrAuthenticator},
		{"wrong Message-Authenticator", resigned, ErrAuthenticator},
		{"EAP without Message-Authenticator", sign(build(AccessChallenge, 4, 0, eap), auth, true), ErrNoMessageAuthenticator},
		{"two Message-Authenticators", sign(build(AccessReject, 4, 0, msgAuth(), msgAuth()), auth, true), ErrAuthenticator},
		{"short Message-Authenticator", sign(build(AccessReject, 4, 0, attr{MessageAuthenticator, nil}), auth, true), ErrAuthenticator},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Parse(tt.b)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.CheckAnswer(testSecret, auth); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err := p.CheckAnswer(testSecret, [16]byte{9}); !errors.Is(err, ErrAuthenticator) {
				t.Errorf("answer to another request: %v", err)
			}
		})
	}
}

// TestAgainstLayeh lets layeh.com/radius make packets, and checks them.
func TestAgainstLayeh(t *testing.T) {
	req := layeh.New(layeh.CodeAccessRequest, testSecret.bytes())
	rfc2865.UserName_SetString(req, "ada")
	if err := rfc2865.UserPassword_SetString(req, "lovelace"); err != nil {
		t.Fatal(err)
	}
	ans := req.Response(layeh.CodeAccessAccept)
	rfc2865.Class_Set(ans, []byte("c"))
	b, err := ans.Encode()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CheckAnswer(testSecret, req.Authenticator); err != nil {
		t.Error(err)
	}

	acct := layeh.New(layeh.CodeAccountingRequest, testSecret.bytes())
	rfc2866.AcctSessionID_SetString(acct, "1")
	if b, err = acct.Encode(); err != nil {
		t.Fatal(err)
	}
	if p, err = Parse(b); err != nil {
		t.Fatal(err)
	}
	if err := p.CheckRequest(testSecret); err != nil {
		t.Error(err)
	}
	if err := p.CheckRequest(NewSecret([]byte("other"))); !errors.Is(err, ErrAuthenticator) {
		t.Errorf("another secret: %v", err)
	}
}

func TestCheckRequest(t *testing.T) {
	auth := [16]byte{5}
	for name, tt := range map[string]struct {
		b    []byte
		want error
	}{
		"good":    {sign(build(AccessRequest, 1, 0, msgAuth(), text(UserName, "ada")), auth, false), nil},
		"without": {build(AccessRequest, 1, 1, text(UserName, "ada")), nil},
		"wrong":   {build(AccessRequest, 1, 1, msgAuth()), ErrAuthenticator},
		"EAP":     {build(AccessRequest, 1, 1, attr{EAPMessage, nil}), ErrNoMessageAuthenticator},
	} {
		p, err := Parse(tt.b)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.CheckRequest(testSecret); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	if (Packet{}).CheckRequest(testSecret) == nil || (Packet{}).CheckAnswer(testSecret, auth) == nil {
		t.Error("the zero Packet bears the secret")
	}
}

// FuzzCheck gives any packet the right authenticators, which must be taken, and
// then changes one bit, which must not.
func FuzzCheck(f *testing.F) {
	f.Add(build(AccessChallenge, 1, 0, text(State, "s"), msgAuth()), uint16(30))
	f.Add(build(AccessAccept, 1, 0), uint16(7))
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		p, err := Parse(b)
		if err != nil {
			return
		}
		auth := [16]byte{3}
		if p.CheckAnswer(testSecret, auth) == nil {
			t.Fatal("an unsigned packet is taken")
		}
		signed := bytes.Clone(p.Bytes())
		copy(signed[4:20], auth[:])
		mac, ok := Packet{b: signed}.MessageAuthenticator(testSecret, auth)
		if _, has := p.Lookup(MessageAuthenticator); has || p.Count(EAPMessage) > 0 {
			if !ok {
				return
			}
			copy(signed[p.find(MessageAuthenticator)+2:], mac[:])
		}
		sum := Packet{b: signed}.ResponseAuthenticator(testSecret, auth)
		copy(signed[4:20], sum[:])
		if err := (Packet{b: signed}).CheckAnswer(testSecret, auth); err != nil {
			t.Fatal(err)
		}
		signed[int(at)%len(signed)] ^= 1
		if p, err := Parse(signed); err == nil && p.CheckAnswer(testSecret, auth) == nil {
			t.Fatal("a changed packet is taken")
		}
	})
}
