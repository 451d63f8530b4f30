package standin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/aovlb/aovlb/sstp"
)

// PPP (RFC 1661), as much of it as a tunnel needs to come up: LCP, MS-CHAPv2 and
// IPCP. A frame is ff 03, the protocol, and for the protocols here a packet of
// code, identifier, length (2), data. The link below is reliable, so nothing is
// sent again unless somebody asks for it.

const (
	protoLCP  = 0xc021
	protoCHAP = 0xc223
	protoIPCP = 0x8021
	protoIP   = 0x0021

	confRequest  = 1
	confAck      = 2
	confNak      = 3
	confReject   = 4
	termRequest  = 5
	termAck      = 6
	protocolNack = 8

	lcpEchoRequest    = 9
	lcpEchoReply      = 10
	lcpIdentification = 12

	chapChallenge = 1
	chapResponse  = 2
	chapSuccess   = 3
	chapFailure   = 4

	optMRU   = 1
	optAuth  = 3
	optMagic = 5

	optAddress = 3 // of IPCP
)

// A PPP is one end of a PPP link. Frames go in by Take and out by Send. It is for
// one goroutine.
type PPP struct {
	// Server says which end it is: the one that wants to know who the other is.
	Server bool
	// Name is the server's own name.
	Name string
	// User and Password are those of a client.
	User, Password string
	// Passwords returns a user's password, and whether there is such a user: a
	// server's.
	Passwords func(user string) (string, bool)
	// Silent has a server never say whether a password is right, as one does
	// whose RADIUS server is gone.
	Silent bool
	// Address is what a server gives its clients.
	Address [4]byte
	// Send sends a frame. It must not be nil.
	Send func(frame []byte) error

	magic     [4]byte
	id        byte
	challenge [16]byte
	peer      [16]byte
	sentResp  []byte
	lcpOurs   bool // the other end has agreed to our options
	lcpTheirs bool
	begun     bool

	// Authenticated says that the user is known, and Who it is; Key is what
	// SSTP is bound by.
	Authenticated bool
	Failed        bool
	Who           string
	Key           sstp.Key
	// Up says that IPCP has agreed on the addresses.
	Up       bool
	ipOurs   bool
	ipTheirs bool
	// Assigned is the address that a client was given.
	Assigned [4]byte
	// Data, if not nil, takes IP packets.
	Data func(packet []byte) error
}

var errPPP = errors.New("standin: malformed PPP")

// Begin sends the first request, or that for an address once the user is known. It
// may be called again while there is no answer: what is sent of IPCP before a call
// is connected is dropped.
func (p *PPP) Begin() error {
	if p.Authenticated {
		return p.askAddress()
	}
	if !p.begun {
		copy(p.magic[:], randomBytes(4))
		p.begun = true
	}
	opts := append([]byte{optMRU, 4, 0x05, 0x78, optMagic, 6}, p.magic[:]...)
	if p.Server {
		opts = append(opts, optAuth, 5, 0xc2, 0x23, 0x81)
	}
	return p.send(protoLCP, confRequest, p.next(), opts)
}

func (p *PPP) next() byte { p.id++; return p.id }

func (p *PPP) send(proto uint16, code, id byte, data []byte) error {
	b := []byte{0xff, 0x03, byte(proto >> 8), byte(proto), code, id}
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(data)))
	return p.Send(append(b, data...))
}

// Take takes a frame.
func (p *PPP) Take(frame []byte) error {
	frame = bytes.TrimPrefix(frame, []byte{0xff, 0x03})
	if len(frame) > 0 && frame[0]&1 != 0 {
		frame = append([]byte{0}, frame...)
	}
	if len(frame) < 2 {
		return errPPP
	}
	proto, body := binary.BigEndian.Uint16(frame), frame[2:]
	if proto == protoIP {
		if p.Up && p.Data != nil {
			return p.Data(body)
		}
		return nil
	}
	if len(body) < 4 {
		return errPPP
	}
	n := int(binary.BigEndian.Uint16(body[2:]))
	if n < 4 || n > len(body) {
		return errPPP
	}
	code, id, data := body[0], body[1], body[4:n]
	switch proto {
	case protoLCP:
		return p.lcp(code, id, data)
	case protoCHAP:
		return p.chap(code, id, data)
	case protoIPCP:
		return p.ipcp(code, id, data)
	}
	return p.send(protoLCP, protocolNack, p.next(), append([]byte{byte(proto >> 8), byte(proto)}, body[:n]...))
}

// options calls f for each option, and returns those that f refuses.
func options(data []byte, f func(kind byte, value []byte) bool) (refused []byte, err error) {
	for len(data) > 0 {
		if len(data) < 2 || data[1] < 2 || int(data[1]) > len(data) {
			return nil, errPPP
		}
		n := int(data[1])
		if !f(data[0], data[2:n]) {
			refused = append(refused, data[:n]...)
		}
		data = data[n:]
	}
	return refused, nil
}

func (p *PPP) lcp(code, id byte, data []byte) error {
	switch code {
	case confRequest:
		wrongAuth := false
		refused, err := options(data, func(kind byte, value []byte) bool {
			if kind == optAuth {
				wrongAuth = !bytes.Equal(value, []byte{0xc2, 0x23, 0x81})
				return !p.Server
			}
			return kind <= 8 // up to compressed fields, which are understood
		})
		switch {
		case err != nil:
			return err
		case refused != nil:
			return p.send(protoLCP, confReject, id, refused)
		case wrongAuth:
			return p.send(protoLCP, confNak, id, []byte{optAuth, 5, 0xc2, 0x23, 0x81})
		}
		p.lcpTheirs = true
		if err := p.send(protoLCP, confAck, id, data); err != nil {
			return err
		}
		return p.linkUp()
	case confAck:
		p.lcpOurs = true
		return p.linkUp()
	case lcpEchoRequest:
		return p.send(protoLCP, lcpEchoReply, id, append(p.magic[:], data[min(4, len(data)):]...))
	case termRequest:
		return errors.Join(p.send(protoLCP, termAck, id, nil), errDeleted)
	}
	return nil
}

// linkUp begins the authentication once both have agreed.
func (p *PPP) linkUp() error {
	if !p.lcpOurs || !p.lcpTheirs || !p.Server || p.Authenticated {
		return nil
	}
	copy(p.challenge[:], randomBytes(16))
	return p.send(protoCHAP, chapChallenge, p.next(), append(append([]byte{16}, p.challenge[:]...), p.Name...))
}

func (p *PPP) chap(code, id byte, data []byte) error {
	switch {
	case code == chapChallenge && !p.Server:
		if len(data) < 17 || data[0] != 16 {
			return errPPP
		}
		copy(p.challenge[:], data[1:])
		copy(p.peer[:], randomBytes(16))
		p.sentResp = ntResponse(p.challenge[:], p.peer[:], p.User, p.Password)
		value := append(append([]byte{49}, p.peer[:]...), make([]byte, 8)...)
		value = append(append(value, p.sentResp...), 0)
		return p.send(protoCHAP, chapResponse, id, append(value, p.User...))
	case code == chapResponse && p.Server && !p.Authenticated:
		return p.judge(id, data)
	case code == chapSuccess && !p.Server && p.sentResp != nil:
		proof := authenticatorResponse(p.challenge[:], p.peer[:], p.sentResp, p.User, p.Password)
		if !strings.HasPrefix(string(data), proof) {
			return errors.New("standin: the server doesn't know the password")
		}
		p.known(p.User, p.sentResp, p.Password)
		return p.askAddress()
	case code == chapFailure && !p.Server:
		p.Failed = true
		return fmt.Errorf("standin: the server refused %s: %.40q", p.User, data)
	}
	return nil
}

// judge says whether a client's response is right.
func (p *PPP) judge(id byte, data []byte) error {
	if len(data) < 50 || data[0] != 49 {
		return errPPP
	}
	peer, response, user := data[1:17], data[25:49], string(data[50:])
	if p.Silent {
		return nil
	}
	password, ok := p.Passwords(user)
	if !ok || !bytes.Equal(response, ntResponse(p.challenge[:], peer, user, password)) {
		p.Failed = true
		return p.send(protoCHAP, chapFailure, id, fmt.Appendf(nil, "E=691 R=0 C=%X V=3 M=denied", p.challenge))
	}
	p.known(user, response, password)
	proof := authenticatorResponse(p.challenge[:], peer, response, user, password)
	return p.send(protoCHAP, chapSuccess, id, []byte(proof+" M=welcome"))
}

func (p *PPP) known(user string, response []byte, password string) {
	p.Authenticated, p.Who, p.Key = true, user, chapKey(response, password)
}

// askAddress begins IPCP.
func (p *PPP) askAddress() error {
	mine := p.Assigned
	if p.Server {
		mine = [4]byte{p.Address[0], p.Address[1], p.Address[2], 1}
	}
	return p.send(protoIPCP, confRequest, p.next(), append([]byte{optAddress, 6}, mine[:]...))
}

func (p *PPP) ipcp(code, id byte, data []byte) error {
	if !p.Authenticated {
		return nil // too early: RFC 1661 §3.4 has it dropped
	}
	switch code {
	case confRequest:
		return p.ipcpRequest(id, data)
	case confNak:
		_, err := options(data, func(kind byte, value []byte) bool {
			if kind == optAddress && len(value) == 4 {
				copy(p.Assigned[:], value)
			}
			return true
		})
		if err != nil {
			return err
		}
		return p.askAddress()
	case confAck:
		p.ipOurs = true
		p.Up = p.ipTheirs
	}
	return nil
}

func (p *PPP) ipcpRequest(id byte, data []byte) error {
	nak := false
	refused, err := options(data, func(kind byte, value []byte) bool {
		nak = nak || p.Server && kind == optAddress && !bytes.Equal(value, p.Address[:])
		return kind == optAddress
	})
	switch {
	case err != nil:
		return err
	case refused != nil:
		return p.send(protoIPCP, confReject, id, refused)
	case nak:
		return p.send(protoIPCP, confNak, id, append([]byte{optAddress, 6}, p.Address[:]...))
	}
	if err := p.send(protoIPCP, confAck, id, data); err != nil {
		return err
	}
	first := !p.ipTheirs
	p.ipTheirs = true
	p.Up = p.ipOurs
	if p.Server && first {
		return p.askAddress()
	}
	return nil
}
