package standin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"
)

// A NAS asks RADIUS servers about users, as RRAS does: all its requests leave
// from one socket. Run reads the answers.
type NAS struct {
	// Conn is its socket; Run closes it.
	Conn Conn
	// Auth and Acct are the service.
	Auth, Acct netip.AddrPort
	// Addr is its NAS-IP-Address.
	Addr netip.Addr
	// Secret is what it shares with the servers.
	Secret []byte
	// Repeat is the time after which a request is repeated; 0 means 5 s, as RRAS
	// has it.
	Repeat time.Duration
	// Tries is how often a request is sent; 0 means 3.
	Tries int
	// Think is how long a user takes for each round of a conversation.
	Think time.Duration

	forged atomic.Uint64

	mu      sync.Mutex
	nextID  byte
	waiting map[waitKey]chan []byte
}

// A waitKey is where an answer comes from, and its Identifier.
type waitKey struct {
	from netip.AddrPort
	id   byte
}

// A User is someone who logs in.
type User struct {
	// Name and Password are checked by the server.
	Name, Password string
	// Station is the Calling-Station-Id.
	Station string
	// PAP sends the password instead of talking EAP.
	PAP bool
	// Session is the Acct-Session-Id.
	Session string
}

// A Login is what came of one.
type Login struct {
	// Accepted says that the server let the user in.
	Accepted bool
	// Class is what the server wants to see in accounting.
	Class []byte
	// Rounds is how many challenges there were, Repeats how many requests had
	// to be sent again.
	Rounds, Repeats int
}

// Forged counts answers that were not signed as they must be.
func (n *NAS) Forged() uint64 { return n.forged.Load() }

// Run reads answers until ctx is done.
func (n *NAS) Run(ctx context.Context) error {
	c := n.Conn
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	defer c.Close()
	b := make([]byte, layeh.MaxPacketLength)
	for {
		k, from, err := c.ReadFromUDPAddrPort(b)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errRefused):
			continue
		case err != nil:
			return fmt.Errorf("standin: NAS: %w", err)
		case k < 20:
			continue
		}
		n.mu.Lock()
		w := n.waiting[waitKey{netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), b[1]}]
		n.mu.Unlock()
		select {
		case w <- append([]byte(nil), b[:k]...):
		default: // nobody waits: w may be nil
		}
	}
}

// Login authenticates u. It fails if the servers stay silent.
func (n *NAS) Login(ctx context.Context, u User) (Login, error) {
	var l Login
	eap := eapPacket(eapResponse, 0, append([]byte{eapIdentity}, u.Name...))
	var state []byte
	for {
		p := n.request(layeh.CodeAccessRequest, u)
		if u.PAP {
			if err := rfc2865.UserPassword_SetString(p, u.Password); err != nil {
				return l, err
			}
		} else {
			rfc2869.EAPMessage_Set(p, eap)
			if state != nil {
				rfc2865.State_Set(p, state)
			}
		}
		a, repeats, err := n.exchange(ctx, n.Auth, p)
		l.Repeats += repeats
		if err != nil {
			return l, err
		}
		switch a.Code {
		case layeh.CodeAccessAccept:
			l.Accepted, l.Class = true, rfc2865.Class_Get(a)
			return l, nil
		case layeh.CodeAccessReject:
			return l, nil
		}
		l.Rounds++
		state = rfc2865.State_Get(a)
		if eap, err = answerEAP(rfc2869.EAPMessage_Get(a), u.Password); err != nil {
			return l, err
		}
		if err := pause(ctx, n.Think); err != nil {
			return l, err
		}
	}
}

// answerEAP makes a user's answer to a challenge.
func answerEAP(challenge []byte, password string) ([]byte, error) {
	code, id, data, err := parseEAP(challenge)
	if err != nil || code != eapRequest || len(data) != 18 || data[0] != eapMethod {
		return nil, errRADIUS
	}
	proof := eapProof(password, data[1], data[2:])
	return eapPacket(eapResponse, id, append([]byte{eapMethod, data[1]}, proof...)), nil
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Account sends accounting about u, whom l let in.
func (n *NAS) Account(ctx context.Context, u User, l Login, status rfc2866.AcctStatusType) error {
	p := n.request(layeh.CodeAccountingRequest, u)
	rfc2866.AcctStatusType_Set(p, status)
	rfc2865.Class_Set(p, l.Class)
	a, _, err := n.exchange(ctx, n.Acct, p)
	if err == nil && a.Code != layeh.CodeAccountingResponse {
		err = errRADIUS
	}
	return err
}

// request begins a packet with what is said of every user.
func (n *NAS) request(code layeh.Code, u User) *layeh.Packet {
	p := layeh.New(code, n.Secret)
	rfc2865.UserName_SetString(p, u.Name)
	rfc2865.CallingStationID_SetString(p, u.Station)
	rfc2865.NASIPAddress_Set(p, net.IP(n.Addr.AsSlice()))
	rfc2866.AcctSessionID_SetString(p, u.Session)
	return p
}

// exchange sends a request, repeats it unchanged, and returns the answer that is
// signed as it must be.
func (n *NAS) exchange(ctx context.Context, to netip.AddrPort, p *layeh.Packet) (*layeh.Packet, int, error) {
	key, answers, err := n.await(to)
	if err != nil {
		return nil, 0, err
	}
	defer n.forget(key)
	p.Identifier = key.id
	var b []byte
	if p.Code == layeh.CodeAccessRequest {
		b, err = encodeSigned(p)
	} else {
		b, err = p.Encode()
	}
	if err != nil {
		return nil, 0, err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for sent := 0; ; {
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-timer.C:
			if sent == orDefault(n.Tries, 3) {
				return nil, sent - 1, fmt.Errorf("standin: no RADIUS server answers at %v", to)
			}
			n.Conn.WriteToUDPAddrPort(b, to)
			sent++
			timer.Reset(orDefault(n.Repeat, 5*time.Second))
		case got := <-answers:
			if a, ok := n.check(got, b); ok {
				return a, sent - 1, nil
			}
			n.forged.Add(1)
		}
	}
}

// check reads an answer to request.
func (n *NAS) check(answer, request []byte) (*layeh.Packet, bool) {
	a, err := layeh.Parse(answer, n.Secret)
	if err != nil || !layeh.IsAuthenticResponse(answer, request, n.Secret) {
		return nil, false
	}
	if a.Code == layeh.CodeAccountingResponse {
		return a, true
	}
	right, _ := signed(a, [16]byte(request[4:20]))
	return a, right
}

// await reserves an Identifier that is free at that address.
func (n *NAS) await(to netip.AddrPort) (waitKey, chan []byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.waiting == nil {
		n.waiting = make(map[waitKey]chan []byte)
	}
	for range 256 {
		k := waitKey{to, n.nextID}
		n.nextID++
		if n.waiting[k] == nil {
			n.waiting[k] = make(chan []byte, 4)
			return k, n.waiting[k], nil
		}
	}
	return waitKey{}, nil, errors.New("standin: all 256 Identifiers are in use")
}

func (n *NAS) forget(k waitKey) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.waiting, k)
}
