package sstp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// A call follows the control messages of a session while its bytes are carried,
// without delaying or changing one. Each direction has a follower, used by one
// goroutine; what they find meets in the Session, under the lock.
//
// Bytes come in any pieces: a message in many, or many at once. A follower keeps
// the first bytes of the packet that is under way, and only those: all of a
// control message that counts, and the head of a PPP frame. Once the call is
// connected it keeps nothing of data at all, and takes no lock for them.
type call struct {
	up, down follower // from the client, from the gateway

	mu     sync.Mutex // below
	s      Session
	nonce  [nonceLen]byte
	asked  bool // there is a nonce
	moved  [2]bool
	ppp    pppFrame    // the last one before the call was bound; no text is made of each
	report func(*call) // tells of CALL_CONNECTED; nil for nobody
}

// keep is how much of a packet is kept: a whole CALL_CONNECTED, and of PPP what
// an error of MS-CHAPv2 needs.
const keep = 128

// farewell takes note of who says farewell in TLS: TLS has ended, and the connection
// below it hasn't yet.
func (c *call) farewell(client bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.s.Farewell != PeerNone {
		return
	}
	c.s.Farewell = PeerGateway
	if client {
		c.s.Farewell = PeerClient
	}
}

// A follower follows one direction.
type follower struct {
	from   Peer
	phase  phase
	data   bool // the packet under way is data, once connected: nothing is kept
	have   int  // bytes of it that have come
	length int  // of it, once its header has come
	head   []byte
	buf    [keep]byte
}

type phase uint8

const (
	phaseHead    phase = iota // the gateway's answer
	phasePackets              // SSTP
	phaseOpaque               // anything else, or broken
)

// feed takes the next bytes of a direction.
func (c *call) feed(f *follower, b []byte) {
	for len(b) > 0 && f.phase != phaseOpaque {
		if f.phase == phaseHead {
			b = c.feedHead(f, b)
			continue
		}
		b = c.feedPacket(f, b)
	}
}

// feedHead takes bytes of the head of the gateway's answer.
func (c *call) feedHead(f *follower, b []byte) []byte {
	before := len(f.head)
	f.head = append(f.head, b[:min(len(b), MaxHead-before)]...)
	if couldBeHTTP(f.head) && len(f.head) < MaxHead && !headMayEnd(f.head, before) {
		return b[len(f.head)-before:]
	}
	r, n, err := ParseResponse(f.head)
	if err == ErrShort {
		return b[len(f.head)-before:]
	}
	f.head = nil
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		f.phase, c.s.Malformed = phaseOpaque, f.from
		return nil
	}
	c.s.Status = r.Status
	f.phase = phaseOpaque // what comes after a refusal is a page for people
	if r.Status == 200 {
		f.phase = phasePackets
		c.s.Stage = max(c.s.Stage, StageAccepted)
	}
	return b[n-before:]
}

// feedPacket takes bytes of one packet.
func (c *call) feedPacket(f *follower, b []byte) []byte {
	if f.have < HeaderLen {
		n := copy(f.buf[f.have:HeaderLen], b)
		f.have += n
		b = b[n:]
		h, err := ParseHeader(f.buf[:f.have])
		if err == ErrShort {
			return b
		}
		if err != nil {
			c.broken(f)
			return nil
		}
		f.length = h.Length
		f.data = !h.Control && f.phase == phasePackets && c.quietData(f)
	}
	n := min(f.length-f.have, len(b))
	if !f.data && f.have < keep {
		copy(f.buf[f.have:], b[:n])
	}
	f.have += n
	if f.have == f.length {
		if !f.data {
			c.packet(f)
		}
		f.have = 0
	}
	return b[n:]
}

// quietData reports whether data needn't be looked at any more, because data have
// moved both ways since the call was bound. f keeps the answer for itself.
func (c *call) quietData(f *follower) bool {
	if f.data {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s.Stage >= StageConnected
}

func (c *call) broken(f *follower) {
	f.phase = phaseOpaque
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.s.Malformed == PeerNone {
		c.s.Malformed = f.from
	}
}

// packet takes a whole packet, of which the first bytes were kept.
func (c *call) packet(f *follower) {
	b := f.buf[:min(f.have, keep)]
	c.mu.Lock()
	bound := false
	if b[1]&1 == 0 {
		c.frame(f.from, b[HeaderLen:])
	} else {
		bound = c.message(f, b)
	}
	c.mu.Unlock()
	if bound && c.report != nil {
		c.report(c)
	}
}

// message takes a control message, and reports whether it is the CALL_CONNECTED.
// b is its beginning, which with a longer message can't be parsed whole; none that
// counts is longer than b.
func (c *call) message(f *follower, b []byte) bool {
	s := &c.s
	kind := MessageType(binary.BigEndian.Uint16(b[4:]))
	m, _, err := ParseMessage(b)
	if err != nil && err != ErrShort {
		m = Message{Type: kind}
		if kind != CallAbort && kind != CallDisconnect {
			if s.Malformed == PeerNone {
				s.Malformed = f.from
			}
			return false
		}
	}
	client := f.from == PeerClient
	if s.Unanswered != PeerNone && s.Unanswered != f.from {
		s.Unanswered = PeerNone // whoever was asked says something
	}
	switch {
	case kind == CallConnectRequest && client:
		s.Stage = max(s.Stage, StageRequested)
	case kind == CallConnectAck && !client:
		s.Stage = max(s.Stage, StageAcknowledged)
		value, _ := m.Value(AttrBindingRequest)
		if r, err := ParseBindingRequest(value); err == nil {
			s.Offered, c.nonce, c.asked = r.Hashes, r.Nonce, true
		}
	case kind == CallConnected && client && s.Stage < StageBound:
		s.Stage, s.Up = StageBound, time.Now()
		value, _ := m.Value(AttrBinding)
		if r, err := ParseBinding(value); err == nil {
			s.Reported = CertHash{r.Hash, r.CertHash}
			s.BadNonce = c.asked && r.Nonce != c.nonce
		}
		return true
	case kind == CallAbort && s.Aborted == nil:
		s.Aborted = abortOf(f.from, &m)
	case kind == CallDisconnect && s.Disconnected == nil:
		s.Disconnected = abortOf(f.from, &m)
	case kind == EchoRequest:
		s.Unanswered = f.from
	}
	return false
}

// abortOf reads what a peer says of its abort. It may say nothing, or, as some
// servers do, the status alone.
func abortOf(by Peer, m *Message) *Abort {
	a := &Abort{By: by}
	if value, ok := m.Value(AttrStatus); ok {
		if info, err := ParseStatusInfo(value); err == nil {
			a.Attribute, a.Status = info.Attribute, info.Status
		}
	}
	return a
}

// The protocols of PPP that are looked at before a call is connected.
const (
	pppLCP  = 0xc021
	pppPAP  = 0xc023
	pppCHAP = 0xc223
	pppEAP  = 0xc227
)

// frame takes the beginning of a PPP frame.
func (c *call) frame(from Peer, b []byte) {
	s := &c.s
	if s.Unanswered != PeerNone && s.Unanswered != from {
		s.Unanswered = PeerNone
	}
	proto, b, ok := pppProtocol(b)
	if !ok {
		return
	}
	if s.Stage >= StageBound {
		c.moved[from&1] = true
		if c.moved[0] && c.moved[1] {
			s.Stage = StageConnected
		}
		// A failure can come as late as this, and the end of LCP.
		if proto != pppLCP {
			return
		}
	}
	if len(b) < 4 {
		return
	}
	switch code := b[0]; proto {
	case pppCHAP:
		c.auth("CHAP", code, b)
	case pppPAP:
		c.auth("PAP", code, b)
	case pppEAP:
		name := "EAP"
		if len(b) > 4 && (code == 1 || code == 2) {
			if method := eapMethod(b[4]); method != "" {
				name += " " + method
			}
		}
		c.auth(name, code, b)
	}
	c.ppp = pppFrame{from, proto, b[0]}
}

// A pppFrame is what is kept of a frame of PPP.
type pppFrame struct {
	from  Peer
	proto uint16
	code  byte
}

func (f pppFrame) String() string {
	if f.from == PeerNone {
		return ""
	}
	return pppName(f.proto, f.code) + " from " + f.from.String()
}

// session returns what is known by now, under the lock.
func (c *call) session() Session {
	s := c.s
	s.LastPPP = c.ppp.String()
	return s
}

// pppProtocol returns the protocol of a frame, with its fields compressed or not
// (RFC 1661 §6.5, §6.6), and what follows.
func pppProtocol(b []byte) (proto uint16, rest []byte, ok bool) {
	b = bytes.TrimPrefix(b, []byte{0xff, 0x03})
	if len(b) > 0 && b[0]&1 != 0 {
		return uint16(b[0]), b[1:], true
	}
	if len(b) < 2 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint16(b), b[2:], true
}

// auth takes a packet of an authentication protocol. In CHAP and EAP, 3 is success
// and 4 failure; in PAP they are 2 and 3.
func (c *call) auth(name string, code byte, b []byte) {
	a := &c.s.Auth
	if len(name) > len(a.Protocol) || a.Protocol == "" || a.Protocol[:3] != name[:3] {
		a.Protocol = name
	}
	won, lost := byte(3), byte(4)
	if name == "PAP" {
		won, lost = 2, 3
	}
	switch code {
	case won:
		a.Result = AuthSucceeded
	case lost:
		a.Result = AuthFailed
		if name == "CHAP" {
			a.Error = chapError(b)
		}
	default:
		if a.Result != AuthSucceeded {
			a.Result = AuthBegun
		}
	}
}

// chapError reads the number in "E=691 R=1 C=... V=3 M=..." (RFC 2759 §6).
func chapError(b []byte) int {
	_, rest, ok := bytes.Cut(b, []byte("E="))
	if !ok {
		return 0
	}
	n := 0
	for n < len(rest) && n < 6 && rest[n] >= '0' && rest[n] <= '9' {
		n++
	}
	e, _ := strconv.Atoi(string(rest[:n])) // 0 for no digits
	return e
}

func eapMethod(t byte) string {
	switch t {
	case 13:
		return "TLS"
	case 21:
		return "TTLS"
	case 25:
		return "PEAP"
	case 26:
		return "MSCHAPv2"
	}
	return ""
}

// pppName names a packet of PPP's control protocols.
func pppName(proto uint16, code byte) string {
	names := map[uint16]string{
		pppLCP: "LCP", pppPAP: "PAP", pppCHAP: "CHAP", pppEAP: "EAP", 0x8021: "IPCP", 0x8057: "IPV6CP", 0x80fd: "CCP", 0xc029: "CBCP",
	}
	codes := []string{
		"", "Configure-Request", "Configure-Ack", "Configure-Nak", "Configure-Reject", "Terminate-Request",
		"Terminate-Ack", "Code-Reject", "Protocol-Reject", "Echo-Request", "Echo-Reply", "Discard-Request", "Identification",
	}
	switch proto {
	case pppCHAP:
		codes = []string{"", "Challenge", "Response", "Success", "Failure"}
	case pppEAP:
		codes = []string{"", "Request", "Response", "Success", "Failure"}
	case pppPAP:
		codes = []string{"", "Authenticate-Request", "Authenticate-Ack", "Authenticate-Nak"}
	}
	name, ok := names[proto]
	if !ok {
		return fmt.Sprintf("protocol %04x", proto)
	}
	if int(code) < len(codes) && code > 0 {
		return name + " " + codes[code]
	}
	return fmt.Sprintf("%s code %d", name, code)
}
