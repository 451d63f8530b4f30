package standin

import (
	"bytes"
	"context"
	"crypto/hmac"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"
)

// An NPS is a RADIUS server that behaves as Microsoft documents of its Network
// Policy Server: what it can't make sense of it discards without a word, and that
// includes a State it has not issued. It keeps books. Serve may be called again
// after it has returned.
type NPS struct {
	// Name is what it calls itself in the Class it issues.
	Name string
	// Secret is what it shares with every NAS.
	Secret []byte
	// Users are the passwords of those it lets in.
	Users map[string]string
	// Rounds is how many challenges an EAP conversation has; 0 means 4.
	Rounds int
	// Logger, if not nil, hears of what is discarded.
	Logger *slog.Logger

	book book

	mu       sync.Mutex
	counts   NPSCounts
	convs    map[string]*conversation // by State
	former   map[string]bool          // States of earlier lives
	replies  map[replyKey]reply
	sessions map[string]int // by Class
}

// NPSCounts are what an NPS was asked, and what it discarded.
type NPSCounts struct {
	// Accepts, Rejects and Challenges count these answers, Accounting those to
	// accounting, Repeats the requests answered from memory.
	Accepts, Rejects, Challenges, Accounting, Repeats uint64
	// UnknownState counts requests that continue a conversation of another
	// server, Stale those of one that was lost when this server was killed.
	UnknownState, Stale uint64
	// ForeignAccounting counts accounting of users whom another server let in.
	ForeignAccounting uint64
	// Bad counts what was malformed, or wrongly or not signed.
	Bad uint64
}

// conversation is an EAP conversation that waits for its next round.
type conversation struct {
	user      string
	station   string
	began     time.Time
	round     int
	challenge []byte
}

// replyKey tells a repeated request from a new one (RFC 5080 section 2.2.2).
type replyKey struct {
	from netip.AddrPort
	id   byte
	auth [16]byte
}

type reply struct {
	b  []byte
	at time.Time
}

const (
	// rememberReply is how long a repeated request gets the same answer.
	rememberReply = 10 * time.Second
	defaultRounds = 4
)

// Counts returns what has been counted over all lives.
func (n *NPS) Counts() NPSCounts {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.counts
}

// Sessions returns the users it let in, of all lives. Accounting packets are
// their Packets, and accounting's Stop ends them.
func (n *NPS) Sessions() []Session { return n.book.list() }

// Serve answers authentication and accounting until ctx is done, and closes both
// sockets.
func (n *NPS) Serve(ctx context.Context, auth, acct Conn) error {
	n.begin()
	defer n.forget()
	stop := context.AfterFunc(ctx, func() { auth.Close(); acct.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { n.read(auth, layeh.CodeAccessRequest); auth.Close(); acct.Close() })
	wg.Go(func() { n.read(acct, layeh.CodeAccountingRequest); auth.Close(); acct.Close() })
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.New("standin: a socket of NPS " + n.Name + " was closed")
}

func (n *NPS) begin() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.convs = make(map[string]*conversation)
	n.replies = make(map[replyKey]reply)
	if n.former == nil {
		n.former, n.sessions = make(map[string]bool), make(map[string]int)
	}
}

func (n *NPS) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for state := range n.convs {
		n.former[state] = true
	}
	n.book.newLife()
}

func (n *NPS) read(c Conn, want layeh.Code) {
	b := make([]byte, layeh.MaxPacketLength)
	for {
		k, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if a := n.handle(b[:k], from, want); a != nil {
			c.WriteToUDPAddrPort(a, from)
		}
	}
}

// handle returns the answer to one datagram, or nil.
func (n *NPS) handle(b []byte, from netip.AddrPort, want layeh.Code) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, err := layeh.Parse(b, n.Secret)
	if err != nil || p.Code != want || !layeh.IsAuthenticRequest(b, n.Secret) {
		return n.discard("malformed or wrong secret", &n.counts.Bad)
	}
	key := replyKey{from, p.Identifier, p.Authenticator}
	if r, ok := n.replies[key]; ok && time.Since(r.at) < rememberReply {
		n.counts.Repeats++
		return r.b
	}
	var answer *layeh.Packet
	if want == layeh.CodeAccountingRequest {
		answer = n.account(p)
	} else {
		answer = n.authenticate(p)
	}
	if answer == nil {
		return nil
	}
	out, err := encodeAnswer(answer)
	if err != nil {
		return n.discard(err.Error(), &n.counts.Bad)
	}
	n.remember(key, out)
	return out
}

func encodeAnswer(p *layeh.Packet) ([]byte, error) {
	if p.Code == layeh.CodeAccountingResponse {
		return p.Encode()
	}
	return encodeSigned(p)
}

func (n *NPS) remember(k replyKey, b []byte) {
	if len(n.replies) >= 4096 {
		for k, r := range n.replies {
			if time.Since(r.at) >= rememberReply {
				delete(n.replies, k)
			}
		}
	}
	n.replies[k] = reply{b, time.Now()}
}

func (n *NPS) discard(why string, count *uint64) []byte {
	*count++
	if n.Logger != nil {
		n.Logger.Info("discarded", "nps", n.Name, "why", why)
	}
	return nil
}

// authenticate answers an Access-Request.
func (n *NPS) authenticate(p *layeh.Packet) *layeh.Packet {
	right, present := signed(p, p.Authenticator)
	eap, err := rfc2869.EAPMessage_Lookup(p)
	hasEAP := err == nil
	if present && !right || hasEAP && !present {
		n.discard("Message-Authenticator is wrong or missing", &n.counts.Bad)
		return nil
	}
	user := rfc2865.UserName_GetString(p)
	if hasEAP {
		return n.converse(p, user, eap)
	}
	password, known := n.Users[user]
	if known && password == rfc2865.UserPassword_GetString(p) {
		return n.accept(p, user, time.Now())
	}
	n.counts.Rejects++
	return p.Response(layeh.CodeAccessReject)
}

// accept lets a user in, with a Class by which accounting is known again.
func (n *NPS) accept(p *layeh.Packet, user string, began time.Time) *layeh.Packet {
	n.counts.Accepts++
	a := p.Response(layeh.CodeAccessAccept)
	class := append([]byte(n.Name+":"), randomBytes(12)...)
	rfc2865.Class_Set(a, class)
	now := time.Now()
	n.sessions[string(class)] = n.book.open(Session{Client: user, Begun: began, Established: now, Last: now})
	return a
}

// converse goes on with an EAP conversation, or begins one.
func (n *NPS) converse(p *layeh.Packet, user string, eap []byte) *layeh.Packet {
	code, id, data, err := parseEAP(eap)
	if err != nil || code != eapResponse || len(data) == 0 {
		n.discard("malformed EAP", &n.counts.Bad)
		return nil
	}
	state := rfc2865.State_Get(p)
	if state == nil {
		if data[0] != eapIdentity || string(data[1:]) != user {
			n.discard("EAP without State that is no identity", &n.counts.Bad)
			return nil
		}
		return n.challenge(p, id, &conversation{user: user, station: rfc2865.CallingStationID_GetString(p), began: time.Now()})
	}
	c := n.convs[string(state)]
	switch {
	case c == nil && n.former[string(state)]:
		n.discard("State of an earlier life", &n.counts.Stale)
		return nil
	case c == nil || c.user != user:
		n.discard("State attribute is present, but unrecognized", &n.counts.UnknownState)
		return nil
	}
	delete(n.convs, string(state)) // it is good for one round
	password, known := n.Users[user]
	proof := eapProof(password, uint8(c.round), c.challenge)
	if !known || len(data) != 2+len(proof) || data[0] != eapMethod || !hmac.Equal(data[2:], proof) {
		n.counts.Rejects++
		a := p.Response(layeh.CodeAccessReject)
		rfc2869.EAPMessage_Set(a, eapPacket(eapFailure, id, nil))
		return a
	}
	if c.round < orDefault(n.Rounds, defaultRounds) {
		return n.challenge(p, id, c)
	}
	a := n.accept(p, user, c.began)
	rfc2869.EAPMessage_Set(a, eapPacket(eapSuccess, id, nil))
	return a
}

// challenge begins the next round of c.
func (n *NPS) challenge(p *layeh.Packet, id uint8, c *conversation) *layeh.Packet {
	n.counts.Challenges++
	c.round++
	c.challenge = randomBytes(16)
	state := randomBytes(16)
	n.convs[string(state)] = c
	a := p.Response(layeh.CodeAccessChallenge)
	rfc2865.State_Set(a, state)
	data := append([]byte{eapMethod, uint8(c.round)}, c.challenge...)
	rfc2869.EAPMessage_Set(a, eapPacket(eapRequest, id+1, data))
	return a
}

// account takes an Accounting-Request.
func (n *NPS) account(p *layeh.Packet) *layeh.Packet {
	n.counts.Accounting++
	class := rfc2865.Class_Get(p)
	if !bytes.HasPrefix(class, []byte(n.Name+":")) {
		n.counts.ForeignAccounting++
		return p.Response(layeh.CodeAccountingResponse)
	}
	if s, ok := n.sessions[string(class)]; ok {
		n.book.note(s, func(s *Session) {
			s.Packets++
			s.Last = time.Now()
			if rfc2866.AcctStatusType_Get(p) == rfc2866.AcctStatusType_Value_Stop {
				s.Ended = s.Last
			}
		})
	}
	return p.Response(layeh.CodeAccountingResponse)
}
