package eaptls

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/aovlb/aovlb/radius"
)

// An exchange sends Access-Requests over one socket and takes their answers.
type exchange struct {
	c       *Client
	conn    *net.UDPConn
	id      byte
	state   []byte
	largest int // of the answers, in bytes
	rounds  int
	buf     [radius.MaxLen]byte
}

// maxRounds bounds a conversation: with fragments of 100 bytes it takes about a
// hundred.
const maxRounds = 200

func (c *Client) open(target netip.AddrPort) (*exchange, error) {
	var local *net.UDPAddr
	if c.LocalAddr.IsValid() {
		local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.LocalAddr, 0))
	}
	conn, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(target))
	if err != nil {
		return nil, fmt.Errorf("eaptls: open a socket: %w", err)
	}
	e := &exchange{c: c, conn: conn}
	rand.Read(e.buf[:1])
	e.id = e.buf[0]
	return e, nil
}

// send asks with an EAP packet, and returns the answer.
func (e *exchange) send(ctx context.Context, eap []byte) (radius.Packet, error) {
	if e.rounds++; e.rounds > maxRounds {
		return radius.Packet{}, fmt.Errorf("eaptls: the server comes to no end within %d rounds", maxRounds)
	}
	e.id++
	request, err := e.request(eap)
	if err != nil {
		return radius.Packet{}, err
	}
	p, err := e.ask(ctx, request)
	if err != nil {
		return p, err
	}
	if state, ok := p.Lookup(radius.State); ok {
		e.state = append([]byte(nil), state...)
	} else {
		e.state = nil
	}
	e.largest = max(e.largest, len(p.Bytes()))
	return p, nil
}

// Attributes that package radius has no names for (RFC 2865 §5).
const (
	serviceType  radius.Type = 6
	framedMTU    radius.Type = 12
	nasPortVPN               = 5 // Virtual
	serviceFrame             = 2 // Framed
)

// request makes an Access-Request.
func (e *exchange) request(eap []byte) ([]byte, error) {
	b := append(make([]byte, 0, 512), byte(radius.AccessRequest), e.id, 0, 0)
	b = b[:radius.HeaderLen]
	rand.Read(b[4:20])
	add := func(t radius.Type, v []byte) { b = append(append(b, byte(t), byte(2+len(v))), v...) }
	number := func(t radius.Type, n int) { add(t, binary.BigEndian.AppendUint32(nil, uint32(n))) }
	add(radius.MessageAuthenticator, make([]byte, 16)) // first: an attacker's prefix can't stand before it
	add(radius.UserName, []byte(e.c.user()))
	nas := e.c.NASAddr
	if !nas.IsValid() {
		nas = e.conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	}
	if nas = nas.Unmap().WithZone(""); nas.Is4() {
		add(radius.NASIPAddress, nas.AsSlice())
	} else {
		add(radius.NASIPv6Address, nas.AsSlice())
	}
	number(radius.NASPortType, nasPortVPN)
	number(serviceType, serviceFrame)
	number(framedMTU, cmp.Or(e.c.FramedMTU, DefaultFramedMTU))
	for _, a := range e.c.Attributes {
		if len(a.Value) > 253 {
			return nil, fmt.Errorf("eaptls: attribute %d is longer than 253 bytes", a.Type)
		}
		add(a.Type, a.Value)
	}
	if len(e.state) > 0 {
		add(radius.State, e.state)
	}
	for len(eap) > 0 {
		n := min(len(eap), 253)
		add(radius.EAPMessage, eap[:n])
		eap = eap[n:]
	}
	if len(b) > radius.MaxLen {
		return nil, errors.New("eaptls: the request is longer than RADIUS allows: use a smaller FramedMTU")
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	p, err := radius.Parse(b)
	if err != nil {
		return nil, err
	}
	mac, _ := p.MessageAuthenticator(e.c.Secret, p.Authenticator())
	copy(b[radius.HeaderLen+2:], mac[:])
	return b, nil
}

// ask sends a request until it is answered or ctx is done.
func (e *exchange) ask(ctx context.Context, request []byte) (radius.Packet, error) {
	var bad error
	for {
		if _, err := e.conn.Write(request); err != nil {
			return radius.Packet{}, e.failed(ctx, err, bad)
		}
		until := time.Now().Add(cmp.Or(e.c.Resend, DefaultResend))
		if end, ok := ctx.Deadline(); ok && end.Before(until) {
			until = end
		}
		if err := e.conn.SetReadDeadline(until); err != nil {
			return radius.Packet{}, e.failed(ctx, err, bad)
		}
		for {
			if ctx.Err() != nil {
				return radius.Packet{}, e.failed(ctx, ctx.Err(), bad)
			}
			n, err := e.conn.Read(e.buf[:])
			if isTimeout(err) && ctx.Err() == nil && !passed(ctx) {
				break // and send again
			}
			if err != nil {
				return radius.Packet{}, e.failed(ctx, err, bad)
			}
			p, err := e.take(e.buf[:n], request)
			if err == nil {
				return p, nil
			}
			bad = err // a forged answer must not end the wait
		}
	}
}

// passed reports whether the deadline of ctx is over: its timer may be late.
func passed(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ok && !time.Now().Before(end)
}

// take checks an answer.
func (e *exchange) take(b, request []byte) (radius.Packet, error) {
	p, err := radius.Parse(b)
	if err != nil {
		return p, err
	}
	switch c := p.Code(); {
	case p.Identifier() != request[1]:
		return p, errors.New("radius: an answer to another request")
	case c != radius.AccessAccept && c != radius.AccessReject && c != radius.AccessChallenge:
		return p, fmt.Errorf("radius: %v isn't an answer to Access-Request", c)
	}
	return p, p.CheckAnswer(e.c.Secret, [16]byte(request[4:20]))
}

func (e *exchange) failed(ctx context.Context, err, bad error) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("eaptls: %w", context.Canceled)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("eaptls: refused, nothing listens on this port: %w", err)
	case errors.Is(bad, radius.ErrAuthenticator):
		return fmt.Errorf("eaptls: the answer doesn't bear the secret, so the server's differs: %w", bad)
	case bad != nil:
		return fmt.Errorf("eaptls: no answer but one that can't be taken: %w", bad)
	case isTimeout(err) || ctx.Err() != nil:
		return fmt.Errorf("eaptls: round %d: %w", e.rounds, radius.ErrNoAnswer)
	}
	return fmt.Errorf("eaptls: %w", err)
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}
