package radius

import (
	"crypto/hmac"
	"crypto/md5"
	"errors"
	"fmt"
	"hash"
)

var (
	// ErrAuthenticator says that an authenticator isn't right: who made the
	// packet has another secret, or the packet was changed.
	ErrAuthenticator = errors.New("radius: wrong authenticator")
	// ErrNoMessageAuthenticator says that a packet has no
	// Message-Authenticator where one is needed.
	ErrNoMessageAuthenticator = errors.New("radius: no Message-Authenticator")
)

// ResponseAuthenticator computes what the Authenticator of answer p must be (RFC
// 2865 §3), given that of its request.
func (p Packet) ResponseAuthenticator(s Secret, request [16]byte) [16]byte {
	h := md5.New()
	p.write(h, request)
	h.Write(s.bytes())
	return [16]byte(h.Sum(nil))
}

// AccountingAuthenticator computes what the Authenticator of Accounting-Request
// p must be (RFC 2866 §3).
func (p Packet) AccountingAuthenticator(s Secret) [16]byte {
	return p.ResponseAuthenticator(s, [16]byte{})
}

// MessageAuthenticator computes what the Message-Authenticator of p must be (RFC
// 3579 §3.2). The authenticator that goes into it is, for an Access-Request, its
// own; for an answer, that of its request; for an Accounting-Request zero. It
// reports false if p hasn't exactly one Message-Authenticator of the right
// length.
func (p Packet) MessageAuthenticator(s Secret, authenticator [16]byte) (mac [16]byte, ok bool) {
	at := p.find(MessageAuthenticator)
	if at == 0 || p.b[at+1] != 18 || p.Count(MessageAuthenticator) != 1 {
		return mac, false
	}
	h := hmac.New(md5.New, s.bytes())
	var zero [16]byte
	h.Write(p.b[:4])
	h.Write(authenticator[:])
	h.Write(p.b[HeaderLen : at+2])
	h.Write(zero[:])
	h.Write(p.b[at+18:])
	return [16]byte(h.Sum(nil)), true
}

// write writes p to h with another Authenticator.
func (p Packet) write(h hash.Hash, authenticator [16]byte) {
	h.Write(p.b[:4])
	h.Write(authenticator[:])
	h.Write(p.b[HeaderLen:])
}

// CheckAnswer reports whether p comes from who has the secret, as an answer to
// the request with that Authenticator: its Authenticator must be right, and its
// Message-Authenticator, if it has one or carries EAP (RFC 3579 §3.2). The error
// wraps [ErrAuthenticator] or [ErrNoMessageAuthenticator].
func (p Packet) CheckAnswer(s Secret, request [16]byte) error {
	if p.b == nil {
		return ErrShort
	}
	want, got := p.ResponseAuthenticator(s, request), p.Authenticator()
	if !hmac.Equal(want[:], got[:]) {
		return fmt.Errorf("%w: Response Authenticator of %v", ErrAuthenticator, p.Code())
	}
	return p.checkMessage(s, request)
}

// CheckRequest reports whether p comes from who has the secret. For an
// Access-Request or Status-Server only a Message-Authenticator can say so; p may
// lack it if it carries no EAP. The error wraps [ErrAuthenticator] or
// [ErrNoMessageAuthenticator].
func (p Packet) CheckRequest(s Secret) error {
	switch p.Code() {
	case AccessRequest, StatusServer:
		return p.checkMessage(s, p.Authenticator())
	case 0:
		return ErrShort
	}
	want, got := p.AccountingAuthenticator(s), p.Authenticator()
	if !hmac.Equal(want[:], got[:]) {
		return fmt.Errorf("%w: Request Authenticator of %v", ErrAuthenticator, p.Code())
	}
	return p.checkMessage(s, [16]byte{})
}

func (p Packet) checkMessage(s Secret, authenticator [16]byte) error {
	got, ok := p.Lookup(MessageAuthenticator)
	if !ok {
		if p.find(EAPMessage) > 0 {
			return fmt.Errorf("%w in %v with EAP", ErrNoMessageAuthenticator, p.Code())
		}
		return nil
	}
	want, ok := p.MessageAuthenticator(s, authenticator)
	if !ok || !hmac.Equal(want[:], got) {
		return fmt.Errorf("%w: Message-Authenticator of %v", ErrAuthenticator, p.Code())
	}
	return nil
}
