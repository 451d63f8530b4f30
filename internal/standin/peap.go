package standin

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2869"
)

// A CertServer is a RADIUS server that does PEAP or EAP-TLS up to the end of the
// TLS handshake, and then refuses. It is there to show a certificate.
type CertServer struct {
	// Secret is what it shares with its clients.
	Secret []byte
	// TLS is its side of TLS.
	TLS *tls.Config
	// Method is what it begins with, and Also what it does if asked for: 25 is
	// PEAP and 13 EAP-TLS; 0 means PEAP.
	Method, Also byte
	// Fragment is how much of TLS it sends at once; 0 means 1,000 bytes.
	Fragment int
	// Users, if not nil, are the only ones it speaks to.
	Users map[string]bool

	mu    sync.Mutex
	convs map[string]*certTalk // by State
}

// certTalk is one conversation.
type certTalk struct {
	method byte
	id     uint8
	tls    *tlsEnd
	in     []byte   // of the client, not yet whole
	out    [][]byte // fragments to send
}

// tlsEnd is the server's end of TLS, which runs in a goroutine of its own, and the
// connection that it has there. So it is known when TLS has said all that it has to
// say: when it wants to read, and there is nothing.
type tlsEnd struct {
	net.Conn // none: it is asked for nothing else

	changed *sync.Cond // with a lock for what follows
	in, out []byte
	wants   bool // to read
	closed  bool // by us
	over    bool // TLS has ended
}

// Serve answers until ctx is done, and closes the socket.
func (s *CertServer) Serve(ctx context.Context, conn Conn) error {
	s.mu.Lock()
	s.convs = make(map[string]*certTalk)
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer s.end()
	b := make([]byte, layeh.MaxPacketLength)
	seen := make(map[replyKey][]byte)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		p, err := layeh.Parse(b[:n], s.Secret)
		if err != nil || p.Code != layeh.CodeAccessRequest {
			continue
		}
		key := replyKey{from, p.Identifier, p.Authenticator}
		if _, ok := seen[key]; !ok {
			seen[key] = s.answer(p)
		}
		if a := seen[key]; a != nil {
			conn.WriteToUDPAddrPort(a, from)
		}
	}
}

func (s *CertServer) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.convs {
		t.close()
	}
}

func (t *certTalk) close() {
	if t.tls != nil {
		t.tls.end()
		t.tls = nil
	}
}

// answer answers a request, or returns nil.
func (s *CertServer) answer(p *layeh.Packet) []byte {
	if right, present := signed(p, p.Authenticator); !right || !present {
		return nil
	}
	eap, err := rfc2869.EAPMessage_Lookup(p)
	if err != nil {
		return nil
	}
	code, id, data, err := parseEAP(eap)
	if err != nil || code != eapResponse || len(data) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	state := string(rfc2865.State_Get(p))
	t := s.convs[state]
	delete(s.convs, state)
	var next []byte
	switch {
	case t == nil && data[0] == eapIdentity:
		if s.Users != nil && !s.Users[string(data[1:])] {
			break
		}
		t = &certTalk{method: orDefault(s.Method, 25), id: id}
		next = []byte{t.method, 0x20}
	case t == nil || id != t.id:
		return nil
	case data[0] == 3 && len(data) == 2 && data[1] == s.Also:
		t.method = s.Also
		next = []byte{t.method, 0x20}
	case data[0] == t.method:
		next = t.take(s, data[1:])
	}
	if next == nil {
		if t != nil {
			t.close()
		}
		a := p.Response(layeh.CodeAccessReject)
		rfc2869.EAPMessage_Set(a, eapPacket(eapFailure, id, nil))
		rfc2865.ReplyMessage_SetString(a, "not today")
		b, _ := encodeSigned(a)
		return b
	}
	t.id = id + 1
	a := p.Response(layeh.CodeAccessChallenge)
	key := randomBytes(16)
	s.convs[string(key)] = t
	rfc2865.State_Set(a, key)
	rfc2869.EAPMessage_Set(a, eapPacket(eapRequest, t.id, next))
	b, err := encodeSigned(a)
	if err != nil {
		return nil
	}
	return b
}

// take takes what a client has sent, and returns what it is answered.
func (t *certTalk) take(s *CertServer, data []byte) []byte {
	if len(data) == 0 {
		return nil
	}
	flags, rest := data[0], data[1:]
	if flags&0x80 != 0 {
		rest = rest[min(4, len(rest)):]
	}
	t.in = append(t.in, rest...)
	switch {
	case flags&0x40 != 0:
		return []byte{t.method, 0}
	case len(t.in) > 0:
		if t.tls == nil {
			t.tls = newTLSEnd(s.TLS)
		}
		flight := t.tls.exchange(t.in)
		t.in = nil
		t.cut(flight, orDefault(s.Fragment, 1000))
	}
	if len(t.out) == 0 {
		return nil
	}
	next := t.out[0]
	t.out = t.out[1:]
	return next
}

// cut makes fragments of a flight.
func (t *certTalk) cut(flight []byte, size int) {
	for whole := flight; len(flight) > 0; {
		n := min(size, len(flight))
		b := []byte{t.method, 0}
		if len(flight) == len(whole) {
			b[1] |= 0x80
			b = binary.BigEndian.AppendUint32(b, uint32(len(whole)))
		}
		if n < len(flight) {
			b[1] |= 0x40
		}
		t.out = append(t.out, append(b, flight[:n]...))
		flight = flight[n:]
	}
}

func newTLSEnd(c *tls.Config) *tlsEnd {
	e := &tlsEnd{changed: sync.NewCond(new(sync.Mutex))}
	go func() {
		conn := tls.Server(e, c)
		if err := conn.Handshake(); err == nil {
			io.Copy(io.Discard, conn)
		}
		e.set(&e.over)
	}()
	return e
}

func (e *tlsEnd) set(what *bool) {
	e.changed.L.Lock()
	defer e.changed.L.Unlock()
	*what = true
	e.changed.Broadcast()
}

// exchange gives TLS what came, and returns all that it says to it.
func (e *tlsEnd) exchange(b []byte) []byte {
	e.changed.L.Lock()
	defer e.changed.L.Unlock()
	e.in, e.wants = append(e.in, b...), false
	e.changed.Broadcast()
	for !e.over && !e.wants {
		e.changed.Wait()
	}
	out := e.out
	e.out = nil
	return out
}

// end has TLS end, and waits for it.
func (e *tlsEnd) end() {
	e.set(&e.closed)
	e.changed.L.Lock()
	defer e.changed.L.Unlock()
	for !e.over {
		e.changed.Wait()
	}
}

// Read is for TLS.
func (e *tlsEnd) Read(b []byte) (int, error) {
	e.changed.L.Lock()
	defer e.changed.L.Unlock()
	for len(e.in) == 0 {
		if e.closed {
			return 0, io.EOF
		}
		e.wants = true
		e.changed.Broadcast()
		e.changed.Wait()
	}
	n := copy(b, e.in)
	e.in = e.in[n:]
	return n, nil
}

// Write is for TLS.
func (e *tlsEnd) Write(b []byte) (int, error) {
	e.changed.L.Lock()
	defer e.changed.L.Unlock()
	e.out = append(e.out, b...)
	return len(b), nil
}

// Listen opens a UDP socket on loopback for a server of this kind, and says where
// it is.
func Listen() (*net.UDPConn, netip.AddrPort, error) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("standin: %w", err)
	}
	a, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return nil, netip.AddrPort{}, errors.New("standin: no UDP address")
	}
	return c, a.AddrPort(), nil
}
