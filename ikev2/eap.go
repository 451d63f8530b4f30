package ikev2

import (
	"encoding/binary"
	"fmt"
)

// An EAPCode says what an EAP message is (RFC 3748 §4).
type EAPCode uint8

// EAP codes.
const (
	EAPRequest  EAPCode = 1
	EAPResponse EAPCode = 2
	EAPSuccess  EAPCode = 3
	EAPFailure  EAPCode = 4
)

var eapCodes = [...]string{"Request", "Response", "Success", "Failure"}

func (c EAPCode) String() string {
	if s := nameFrom(eapCodes[:], int(c), 1); s != "" {
		return s
	}
	return fmt.Sprintf("EAP code %d", uint8(c))
}

// An EAPType says which method an EAP request or response belongs to.
type EAPType uint8

// EAP types that clients of Always On VPN use, and those of RFC 3748 §5.
const (
	EAPIdentity     EAPType = 1
	EAPNotification EAPType = 2
	EAPNak          EAPType = 3
	EAPMD5          EAPType = 4
	EAPTLS          EAPType = 13
	EAPTTLS         EAPType = 21
	EAPPEAP         EAPType = 25
	EAPMSCHAPv2     EAPType = 26
	EAPExpanded     EAPType = 254
)

func (t EAPType) String() string {
	switch t {
	case EAPIdentity:
		return "Identity"
	case EAPNotification:
		return "Notification"
	case EAPNak:
		return "Nak"
	case EAPMD5:
		return "MD5-Challenge"
	case EAPTLS:
		return "EAP-TLS"
	case EAPTTLS:
		return "EAP-TTLS"
	case EAPPEAP:
		return "PEAP"
	case EAPMSCHAPv2:
		return "EAP-MSCHAPv2"
	case EAPExpanded:
		return "Expanded"
	}
	return fmt.Sprintf("EAP type %d", uint8(t))
}

// An EAP is the body of an EAP payload (RFC 7296 §3.16, RFC 3748 §4):
//
//	0  code (1)  1  identifier (1)  2  length (2)  4  type (1), in requests and responses
//	5  data
type EAP struct {
	// Code says what it is.
	Code EAPCode
	// Identifier pairs requests and responses.
	Identifier uint8
	// Type is the method; 0 with EAPSuccess and EAPFailure.
	Type EAPType
	// Data is of the method; part of what was parsed. It may be somebody's
	// name, or what a password was hashed to.
	Data []byte
}

// ParseEAP reads the body of an EAP payload, copying nothing.
func ParseEAP(body []byte) (EAP, error) {
	if len(body) < 4 {
		return EAP{}, parseError(len(body), "EAP", "payload ends here, 4 octets are needed")
	}
	e := EAP{Code: EAPCode(body[0]), Identifier: body[1]}
	n := int(binary.BigEndian.Uint16(body[2:]))
	short := 4
	if e.typed() {
		short = 5
	}
	switch {
	case n != len(body):
		return EAP{}, parseError(2, "EAP length", "%d isn't the %d octets of the payload", n, len(body))
	case n < short:
		return EAP{}, parseError(4, "EAP type", "payload ends here")
	case e.typed():
		e.Type = EAPType(body[4])
	}
	e.Data = body[short:]
	return e, nil
}

func (e EAP) typed() bool { return e.Code == EAPRequest || e.Code == EAPResponse }

// AppendEAP appends the body of an EAP payload.
func AppendEAP(b []byte, e EAP) []byte {
	start := len(b)
	b = append(b, byte(e.Code), e.Identifier, 0, 0)
	if e.typed() {
		b = append(b, byte(e.Type))
	}
	b = append(b, e.Data...)
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}

// String shows what it is, never the data.
func (e EAP) String() string {
	if e.typed() {
		return fmt.Sprintf("EAP %v %d, %v", e.Code, e.Identifier, e.Type)
	}
	return fmt.Sprintf("EAP %v %d", e.Code, e.Identifier)
}
