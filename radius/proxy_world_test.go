package radius

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/lbtest"
)

// The tests of the Proxy run in virtual time, on a network in memory:
//
//	NASes ─── proxy ─┬─ nps1
//	                 └─ nps2
//
// The servers are scripted, and by default do what NPS is documented to do: they
// discard what they don't know.

var (
	clientSecret = NewSecret([]byte("of the client"))
	serverSecret = NewSecret([]byte("of the servers, and longer than sixty-four bytes so that HMAC has to fold it"))
	proxyAddr    = netip.MustParseAddr("10.9.0.1")
	nasAddr      = netip.MustParseAddr("10.0.0.1")
)

// theatre is what a test of the Proxy runs in.
type theatre struct {
	t       *testing.T
	net     *lbtest.Net
	proxy   *Proxy
	servers []*script
	ctx     context.Context
	client  Client
	server  Server
	serials byte

	dropped  []string
	suspects []string
	mu       sync.Mutex
}

// perform runs f with a Proxy and two servers. prepare, which may be nil, sets up
// the Proxy before it serves.
func perform(t *testing.T, prepare func(*theatre), f func(*theatre)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &theatre{t: t, net: &lbtest.Net{Queue: 4096}}
		ctx, cancel := context.WithCancel(context.Background())
		w.ctx = ctx
		pool := new(lb.Pool)
		w.proxy = &Proxy{
			Balancer:   &lb.Balancer{Pool: pool, Table: new(lb.Table), Picker: new(lb.RoundRobin)},
			Classifier: Classifier{AuthPort: 1812, AcctPort: 1813},
		}
		w.client = Client{Name: "nas", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, Secret: clientSecret}
		w.server = Server{Secret: serverSecret, Dial: w.dial}
		var backends []lb.Backend
		var wg sync.WaitGroup
		for i := range 2 {
			s := &script{w: w, name: fmt.Sprintf("nps%d", i+1), addr: netip.AddrFrom4([4]byte{10, 2, 0, byte(i + 1)}), secret: serverSecret}
			w.servers = append(w.servers, s)
			backends = append(backends, lb.Backend{Name: s.name, Addr: s.addr})
		}
		if err := pool.Set(backends...); err != nil {
			t.Fatal(err)
		}
		w.proxy.Suspect = w.probe
		w.proxy.Trace = &Trace{Dropped: func(_ string, _ lb.Flow, reason string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.dropped = append(w.dropped, reason)
		}}
		if prepare != nil {
			prepare(w)
		}
		for _, s := range w.servers {
			s.start()
		}
		if err := w.proxy.SetClients(w.client); err != nil {
			t.Fatal(err)
		}
		if err := w.proxy.SetServers(w.server, nil); err != nil {
			t.Fatal(err)
		}
		auth, acct := w.listen(proxyAddr, 1812), w.listen(proxyAddr, 1813)
		wg.Go(func() {
			if err := w.proxy.Serve(ctx, auth, acct); !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) {
				t.Errorf("Serve: %v", err)
			}
		})
		synctest.Wait()
		f(w)
		cancel()
		for _, s := range w.servers {
			s.stop()
		}
		wg.Wait()
	})
}

// probe does what a Monitor does when it is told of a suspicion.
func (w *theatre) probe(name string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.suspects = append(w.suspects, name+": "+err.Error())
	for _, s := range w.servers {
		if s.name == name && !s.silent && len(s.conns) > 0 && !errors.Is(err, syscall.ECONNREFUSED) {
			time.AfterFunc(time.Second, func() { w.proxy.Alive(name, 1812) })
		}
	}
}

func (w *theatre) listen(a netip.Addr, port uint16) *lbtest.Conn {
	w.t.Helper()
	c, err := lbtest.Host{Net: w.net, Addr: a}.Listen(port)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *theatre) dial(m *lb.Member, port uint16) (net.Conn, error) {
	return lbtest.Host{Net: w.net, Addr: proxyAddr}.Dial(netip.AddrPort{}, netip.AddrPortFrom(m.Addr, port))
}

// script is a server.
type script struct {
	w      *theatre
	name   string
	addr   netip.Addr
	secret Secret
	// handle, if not nil, returns what to send back to a request: a finished
	// packet each. Otherwise behave does.
	handle func(s *script, p Packet) [][]byte
	silent bool
	rounds int // of EAP before the accept; 0 means 3

	conns    []*lbtest.Conn
	states   map[string]int // State to round
	seen     map[string][][]byte
	requests [][]byte // that were processed
	repeats  int
	unknown  int
	wg       sync.WaitGroup
}

func (s *script) start() {
	s.states, s.seen = make(map[string]int), make(map[string][][]byte)
	for _, port := range []uint16{1812, 1813} {
		c := s.w.listen(s.addr, port)
		s.conns = append(s.conns, c)
		s.wg.Go(func() {
			b := make([]byte, MaxLen)
			for {
				n, from, err := c.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				s.w.mu.Lock()
				answers := s.take(bytes.Clone(b[:n]), from)
				s.w.mu.Unlock()
				for _, a := range answers {
					c.WriteToUDPAddrPort(a, from)
				}
			}
		})
	}
}

// hush has it answer nothing, or again.
func (s *script) hush(silent bool) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.silent = silent
}

func (s *script) stop() {
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
	s.wg.Wait()
}

func (s *script) take(b []byte, from netip.AddrPort) [][]byte {
	p, err := Parse(b)
	if err != nil {
		s.w.t.Errorf("%s was sent what isn't a packet: %v", s.name, err)
		return nil
	}
	if err := p.CheckRequest(s.secret); err != nil {
		s.w.t.Errorf("%s was sent %v: %v", s.name, p.Code(), err)
		return nil
	}
	if p.Code() == AccessRequest && (len(b) <= MaxLen-18 || p.find(MessageAuthenticator) > 0) && p.find(MessageAuthenticator) != HeaderLen {
		s.w.t.Errorf("%s was sent an Access-Request whose first attribute isn't a Message-Authenticator", s.name)
	}
	if s.silent {
		return nil
	}
	id := fmt.Sprint(from, p.Code(), p.Identifier(), p.Authenticator())
	if a, ok := s.seen[id]; ok {
		s.repeats++
		return a
	}
	s.requests = append(s.requests, b)
	handle := s.handle
	if handle == nil {
		handle = (*script).behave
	}
	a := handle(s, p)
	s.seen[id] = a
	return a
}

// behave does what NPS does, as far as it matters here.
func (s *script) behave(p Packet) [][]byte {
	if p.Code() == AccountingRequest {
		return s.answer(p, AccountingResponse)
	}
	_, eap := p.Lookup(EAPMessage)
	if !eap {
		return s.answer(p, AccessAccept, text(ReplyMessage, s.name))
	}
	round := 0
	if state, ok := p.Lookup(State); ok {
		if round, ok = s.states[string(state)]; !ok {
			s.unknown++
			return nil // "State attribute is present, but unrecognized"
		}
		delete(s.states, string(state))
	}
	if round == max(s.rounds, 3) {
		return s.answer(p, AccessAccept, attr{EAPMessage, []byte{3, 1, 0, 4}}, text(ReplyMessage, s.name))
	}
	// All servers issue the same States.
	user, _ := p.Lookup(UserName)
	station, _ := p.Lookup(CallingStationID)
	state := fmt.Sprintf("%s%s-%d", user, station, round)
	s.states[state] = round + 1
	return s.answer(p, AccessChallenge, text(State, state), attr{EAPMessage, []byte{1, 1, 0, 5, EAPPEAP}})
}

// answer makes a signed answer, with a Message-Authenticator last for a change.
func (s *script) answer(p Packet, c Code, attrs ...attr) [][]byte {
	if c != AccountingResponse {
		attrs = append(attrs, msgAuth())
	}
	for t, v := range p.Attributes() {
		if t == ProxyState {
			attrs = append(attrs, attr{ProxyState, v})
		}
	}
	return [][]byte{seal(build(c, p.Identifier(), 0, attrs...), s.secret, p.Authenticator())}
}

// seal signs an answer by the slow functions, which are not the Proxy's.
func seal(b []byte, s Secret, request [16]byte) []byte {
	p, err := Parse(b)
	if err != nil {
		panic(err)
	}
	if at := p.find(MessageAuthenticator); at > 0 {
		mac, _ := p.MessageAuthenticator(s, request)
		copy(b[at+2:], mac[:])
	}
	sum := p.ResponseAuthenticator(s, request)
	copy(b[4:20], sum[:])
	return b
}

// request makes a signed request, with a random Authenticator. An Access-Request
// is signed if it has a Message-Authenticator.
func (w *theatre) request(c Code, attrs ...attr) []byte {
	w.serials++
	return w.requestID(c, w.serials, attrs...)
}

func (w *theatre) requestID(c Code, id byte, attrs ...attr) []byte {
	b := build(c, id, 0, append(attrs, attr{NASIPAddress, nasAddr.AsSlice()})...)
	if c == AccountingRequest {
		sum := Packet{b: b}.AccountingAuthenticator(w.client.Secret)
		copy(b[4:20], sum[:])
		return b
	}
	rand.Read(b[4:20])
	return w.resign(b)
}

// resign renews an Access-Request's Message-Authenticator.
func (w *theatre) resign(b []byte) []byte {
	p := Packet{b: b}
	if at := p.find(MessageAuthenticator); at > 0 {
		mac, _ := p.MessageAuthenticator(w.client.Secret, p.Authenticator())
		copy(b[at+2:], mac[:])
	}
	return b
}

// eapAttrs are those of a conversation's request.
func eapAttrs(user, station, state string) []attr {
	attrs := []attr{text(UserName, user), {EAPMessage, []byte{2, 1, 0, 5, EAPPEAP}}, msgAuth()}
	if station != "" {
		attrs = append(attrs, text(CallingStationID, station))
	}
	if state != "" {
		attrs = append(attrs, text(State, state))
	}
	return attrs
}

// nasSocket is a NAS's socket.
type nasSocket struct {
	w *theatre
	*lbtest.Conn
}

func (w *theatre) nas(port uint16) nasSocket { return nasSocket{w, w.listen(nasAddr, port)} }

func to(port uint16) netip.AddrPort { return netip.AddrPortFrom(proxyAddr, port) }

func portOf(b []byte) uint16 {
	if len(b) > 0 && Code(b[0]) == AccountingRequest {
		return 1813
	}
	return 1812
}

func (n nasSocket) send(b []byte) { n.WriteToUDPAddrPort(b, to(portOf(b))) }

// receive returns what comes within d, nil if nothing does.
func (n nasSocket) receive(d time.Duration) []byte {
	n.SetReadDeadline(time.Now().Add(d))
	defer n.SetReadDeadline(time.Time{})
	b := make([]byte, MaxLen)
	k, _, err := n.ReadFromUDPAddrPort(b)
	if err != nil {
		return nil
	}
	return b[:k]
}

// ask sends a request and returns its answer, which must be right, or a zero
// Packet if none comes within 2 seconds.
func (n nasSocket) ask(b []byte) Packet {
	n.w.t.Helper()
	n.send(b)
	return n.await(b, 2*time.Second)
}

// await returns the answer to b that comes within d.
func (n nasSocket) await(b []byte, d time.Duration) Packet {
	n.w.t.Helper()
	a := n.receive(d)
	if a == nil {
		return Packet{}
	}
	p, err := Parse(a)
	if err != nil {
		n.w.t.Errorf("the answer isn't a packet: %v", err)
		return Packet{}
	}
	request := [16]byte(b[4:20])
	if err := p.CheckAnswer(n.w.client.Secret, request); err != nil || p.Identifier() != b[1] {
		n.w.t.Errorf("the answer %v to Identifier %d: %v", p.Code(), b[1], err)
	}
	room := len(p.Bytes()) <= MaxLen-18 || p.find(MessageAuthenticator) > 0
	if p.Code() != AccountingResponse && n.w.client.Message != MessageLegacy && room && p.find(MessageAuthenticator) != HeaderLen {
		n.w.t.Errorf("the first attribute of an %v isn't its Message-Authenticator", p.Code())
	}
	return p
}

// converse goes through an EAP conversation, from the sockets in turn, and
// returns the name of the server that accepted it.
func (w *theatre) converse(user, station string, socks ...nasSocket) (server string, err error) {
	state := ""
	for round := range 10 {
		b := w.request(AccessRequest, eapAttrs(user, station, state)...)
		p := socks[round%len(socks)].ask(b)
		switch p.Code() {
		case AccessChallenge:
			s, _ := p.Lookup(State)
			state = string(s)
		case AccessAccept:
			m, _ := p.Lookup(ReplyMessage)
			return string(m), nil
		default:
			return "", fmt.Errorf("round %d was answered by %v", round, p.Code())
		}
	}
	return "", errors.New("it doesn't end")
}

func (w *theatre) lastDropped() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.dropped) == 0 {
		return ""
	}
	return w.dropped[len(w.dropped)-1]
}

// processed returns how many requests each server has processed.
func (w *theatre) processed() (n []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.servers {
		n = append(n, len(s.requests))
	}
	return n
}

func (w *theatre) total() int {
	n := w.processed()
	return n[0] + n[1]
}

// values returns all values of type t.
func values(p Packet, t Type) (all []string) {
	for u, v := range p.Attributes() {
		if u == t {
			all = append(all, string(v))
		}
	}
	return all
}

// setLen writes a length that needn't be right.
func setLen(b []byte, n int) []byte {
	b = slices.Clone(b)
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	return b
}
