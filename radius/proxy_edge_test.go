package radius

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// What follows are the cases in which a balancer of RADIUS goes wrong, and what is
// right in each.

// All codes pass that should, both ways, and their attributes in their order,
// with nothing added but the Message-Authenticator.
func TestProxyPassesEverything(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		classes := []string{"first", "second", "third"}
		for _, s := range w.servers {
			s.handle = func(s *script, p Packet) [][]byte {
				attrs := []attr{text(Class, classes[0]), {200, []byte{1, 2, 3}}, text(Class, classes[1]), text(Class, classes[2])}
				if p.Code() == AccountingRequest {
					return s.answer(p, AccountingResponse, attrs...)
				}
				user, _ := p.Lookup(UserName)
				code := map[string]Code{"accept": AccessAccept, "reject": AccessReject, "challenge": AccessChallenge}[string(user)]
				return s.answer(p, code, attrs...)
			}
		}
		for user, want := range map[string]Code{"accept": AccessAccept, "reject": AccessReject, "challenge": AccessChallenge, "": AccountingResponse} {
			code := AccessRequest
			if want == AccountingResponse {
				code = AccountingRequest
			}
			sent := w.request(code, text(ProxyState, "one"), text(UserName, user), attr{201, []byte("unknown")}, text(ProxyState, "two"))
			p := n.ask(sent)
			if p.Code() != want {
				t.Errorf("%q: answered by %v", user, p.Code())
			}
			if got := values(p, Class); !slices.Equal(got, classes) {
				t.Errorf("%v: Class %q", want, got)
			}
			if got := values(p, 200); !slices.Equal(got, []string{"\x01\x02\x03"}) {
				t.Errorf("%v: the unknown attribute came as %q", want, got)
			}
			if got := values(p, ProxyState); !slices.Equal(got, []string{"one", "two"}) {
				t.Errorf("%v: Proxy-State %q", want, got)
			}
			for _, s := range w.servers {
				for _, b := range s.requests {
					q, _ := Parse(b)
					if got := values(q, ProxyState); !slices.Equal(got, []string{"one", "two"}) {
						t.Errorf("%v: the server saw Proxy-State %q", want, got)
					}
				}
				s.requests = nil
			}
		}
	})
}

// Conversations stay with their server by State: also if each packet comes from
// another port, all users have one anonymous name, and both servers issue the same
// States.
func TestProxyKeepsConversationsWhole(t *testing.T) {
	for name, user := range map[string]func(int) (string, string){
		"users":                    func(i int) (string, string) { return fmt.Sprintf("user%d", i), fmt.Sprintf("02-00-%02d", i) },
		"one anonymous name":       func(i int) (string, string) { return "anonymous", fmt.Sprintf("02-00-%02d", i) },
		"stations behind one name": func(i int) (string, string) { return "same", fmt.Sprintf("02-00-%02d", i) },
	} {
		t.Run(name, func(t *testing.T) {
			perform(t, nil, func(w *theatre) {
				var socks []nasSocket
				for i := range 5 {
					socks = append(socks, w.nas(uint16(40000+i)))
				}
				count := map[string]int{}
				for i := range 20 {
					u, station := user(i)
					server, err := w.converse(u, station, socks[i%5:]...)
					if err != nil {
						t.Errorf("conversation %d: %v", i, err)
					}
					count[server]++
				}
				if len(count) != 2 || w.servers[0].unknown+w.servers[1].unknown > 0 {
					t.Errorf("accepted by %v, %d and %d requests with a State of the other", count, w.servers[0].unknown, w.servers[1].unknown)
				}
			})
		})
	}
}

// The same anonymous name and no Calling-Station-Id: State alone leads.
func TestProxyKeepsNamelessConversationsWhole(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		talks := map[string]string{}
		for i := range 8 {
			for _, s := range w.servers {
				s.states[fmt.Sprintf("x%d", i)] = 0 // so that both could go on
			}
		}
		for _, s := range w.servers {
			s.handle = func(s *script, p Packet) [][]byte {
				if state, ok := p.Lookup(State); ok {
					if talks[string(state)] != s.name {
						t.Errorf("State %s of %s came to %s", state, talks[string(state)], s.name)
					}
					return s.answer(p, AccessAccept, attr{EAPMessage, []byte{3, 1, 0, 4}})
				}
				state := fmt.Sprintf("%s-%d", s.name, len(s.requests))
				talks[state] = s.name
				return s.answer(p, AccessChallenge, text(State, state), attr{EAPMessage, []byte{1, 1, 0, 5, 25}})
			}
		}
		var states []string
		for range 10 {
			p := n.ask(w.request(AccessRequest, eapAttrs("anonymous", "", "")...))
			state, _ := p.Lookup(State)
			states = append(states, string(state))
		}
		for _, state := range states {
			if p := n.ask(w.request(AccessRequest, eapAttrs("anonymous", "", state)...)); p.Code() != AccessAccept {
				t.Errorf("State %s: answered by %v", state, p.Code())
			}
		}
	})
}

// Accounting goes to the server that let the user in, by whatever of its names is
// left, and repeated with another Identifier too.
func TestProxyAccountingFollowsAuthentication(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		for i := range 16 {
			user, station, session := fmt.Sprintf("user%d", i), fmt.Sprintf("02-%02d", i), fmt.Sprintf("S%d", i)
			b := w.request(AccessRequest, text(UserName, user), text(CallingStationID, station), text(AcctSessionID, session))
			m, _ := n.ask(b).Lookup(ReplyMessage)
			for name, attrs := range map[string][]attr{
				"all names":        {text(UserName, user), text(CallingStationID, station), text(AcctSessionID, session)},
				"session only":     {text(AcctSessionID, session)},
				"other user name":  {text(UserName, "DOMAIN\\"+user), text(CallingStationID, station), text(AcctSessionID, session)},
				"without session":  {text(UserName, user), text(CallingStationID, station)},
				"sent later again": {text(UserName, user), text(CallingStationID, station), text(AcctSessionID, session), {AcctDelayTime, []byte{0, 0, 0, 5}}},
			} {
				before := w.processed()
				if p := n.ask(w.request(AccountingRequest, attrs...)); p.Code() != AccountingResponse {
					t.Errorf("%s: answered by %v", name, p.Code())
				}
				after := w.processed()
				for k, s := range w.servers {
					if (after[k] > before[k]) != (s.name == string(m)) {
						t.Errorf("user %d, %s: let in by %s, accounting: %v before, %v after", i, name, m, before, after)
					}
				}
			}
		}
	})
}

// What isn't a packet is dropped and counted, and never sent on.
func TestProxyDropsMalformed(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		good := w.request(AccessRequest, text(UserName, "ada"), msgAuth())
		bad := func(at int, v byte) []byte {
			b := bytes.Clone(good)
			b[at] = v
			return b
		}
		tests := map[string][]byte{
			"empty": {}, "one byte": good[:1], "half a header": good[:10], "cut off": good[:len(good)-1],
			"length under 20": setLen(good, 19), "length over the datagram": setLen(good, len(good)+1), "length over 4096": setLen(append(good, make([]byte, 5000)...), 4097),
			"attribute length 0": bad(21, 0), "attribute length 1": bad(21, 1), "attribute over the end": bad(21, 255),
			"random": []byte("GET / HTTP/1.1\r\nHost: radius\r\n\r\n"),
		}
		for name, b := range tests {
			n.send(b)
			n.WriteToUDPAddrPort(b, to(1812))
			if a := n.receive(time.Second); a != nil {
				t.Errorf("%s: answered", name)
			}
		}
		if w.total() != 0 {
			t.Errorf("%d requests were sent on", w.total())
		}
		s := w.proxy.Stats()
		sum := uint64(0)
		for _, c := range s.Dropped {
			sum += c
		}
		if sum != s.Packets || s.Packets < uint64(len(tests)) || s.Clients[0].Dropped != sum {
			t.Errorf("stats %+v: not all that was dropped is counted", s)
		}
		if p := n.ask(good); p.Code() != AccessAccept {
			t.Errorf("a good packet afterwards: %v", p.Code())
		}
	})
}

// A packet with padding is answered, and the padding not sent on.
func TestProxyTrimsPadding(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		b := w.request(AccessRequest, text(UserName, "ada"), msgAuth())
		n.send(append(bytes.Clone(b), make([]byte, 30)...))
		if p := n.await(b, time.Second); p.Code() != AccessAccept {
			t.Errorf("answered by %v", p.Code())
		}
		for _, s := range w.servers {
			for _, r := range s.requests {
				if len(r) != len(b) {
					t.Errorf("%d bytes were sent on, of %d", len(r), len(b))
				}
			}
		}
	})
}

// Wrong Message-Authenticators, and EAP without, end at the proxy, and no server
// is blamed.
func TestProxyDropsWrongMessageAuthenticators(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		wrong := w.request(AccessRequest, text(UserName, "ada"), msgAuth())
		wrong[len(wrong)-7]++
		other := w.request(AccountingRequest, text(UserName, "ada"))
		other[5]++
		for name, b := range map[string][]byte{
			"wrong":              wrong,
			"EAP without":        w.request(AccessRequest, text(UserName, "ada"), attr{EAPMessage, []byte{2, 1, 0, 5, 1}}),
			"accounting's own":   other,
			"two of them":        w.request(AccessRequest, text(UserName, "ada"), msgAuth(), msgAuth()),
			"of another length":  w.request(AccessRequest, text(UserName, "ada"), attr{MessageAuthenticator, make([]byte, 15)}),
			"of another's NAS":   w.withSecret(NewSecret([]byte("wrong")), func() []byte { return w.request(AccessRequest, text(UserName, "ada"), msgAuth()) }),
			"accounting, wrong":  w.withSecret(NewSecret([]byte("wrong")), func() []byte { return w.request(AccountingRequest, text(UserName, "ada")) }),
			"EAP, wrong, repeat": wrong,
		} {
			n.send(b)
			if a := n.receive(10 * time.Second); a != nil {
				t.Errorf("%s: answered", name)
			}
		}
		if w.total() != 0 || len(w.suspects) > 0 {
			t.Errorf("%d requests were sent on, suspected: %v", w.total(), w.suspects)
		}
		if s := w.proxy.Stats(); s.Clients[0].BadAuthenticators == 0 {
			t.Errorf("none is counted: %+v", s)
		}
	})
}

func (w *theatre) withSecret(s Secret, f func() []byte) []byte {
	was := w.client.Secret
	w.client.Secret = s
	defer func() { w.client.Secret = was }()
	return f()
}

// Unknown codes, answers, CoA and requests to the wrong port are dropped.
func TestProxyDropsOtherCodes(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		for _, c := range []Code{0, AccessAccept, AccessReject, AccountingResponse, AccessChallenge, DisconnectRequest, 41, 42, CoARequest, 44, 45, 52, 99, 255} {
			n.WriteToUDPAddrPort(w.request(c, text(UserName, "ada"), msgAuth()), to(1812))
			if a := n.receive(time.Second); a != nil {
				t.Errorf("%v: answered", c)
			}
		}
		n.WriteToUDPAddrPort(w.request(AccessRequest, text(UserName, "ada"), msgAuth()), to(1813))
		n.WriteToUDPAddrPort(w.request(AccountingRequest, text(UserName, "ada")), to(1812))
		if a := n.receive(time.Second); a != nil {
			t.Error("a request at the wrong port was answered")
		}
		if w.total() != 0 {
			t.Errorf("%d requests were sent on", w.total())
		}
		if got := w.proxy.Stats().Dropped; got[reasonPort] != 2 || got[reasonChange] != 2 || got[reasonReply] != 4 {
			t.Errorf("dropped: %v", got)
		}
	})
}

// Status-Server is answered by the proxy itself, while there is a server, and
// never sent on.
func TestProxyAnswersStatusServer(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		status := func(port uint16, attrs ...attr) Packet {
			b := w.request(StatusServer, attrs...)
			n.WriteToUDPAddrPort(b, to(port))
			return n.await(b, time.Second)
		}
		if c := status(1812, msgAuth()).Code(); c != AccessAccept {
			t.Errorf("at 1812: %v", c)
		}
		if c := status(1813, msgAuth()).Code(); c != AccountingResponse {
			t.Errorf("at 1813: %v", c)
		}
		if c := status(1812).Code(); c != 0 {
			t.Errorf("without a Message-Authenticator: %v", c)
		}
		for _, s := range w.servers {
			if err := w.proxy.Balancer.Pool.Drain(s.name, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		if c := status(1812, msgAuth()).Code(); c != 0 {
			t.Errorf("without a server: %v", c)
		}
		if w.total() != 0 {
			t.Errorf("%d were sent on", w.total())
		}
	})
}

// A repetition is processed once, at the same server, and answered by the same
// bytes once there is an answer.
func TestProxyRepetitions(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		slow := make(chan struct{})
		b := w.request(AccessRequest, text(UserName, "ada"), msgAuth())
		for _, s := range w.servers {
			s.hush(true)
		}
		n.send(b)
		synctest.Wait()
		close(slow)
		for _, s := range w.servers {
			s.hush(false)
		}
		time.Sleep(500 * time.Millisecond)
		n.send(b)
		synctest.Wait()
		first := n.receive(time.Second)
		if first == nil {
			t.Fatal("no answer to the repetition")
		}
		for range 3 {
			n.send(b)
			if again := n.receive(time.Second); !bytes.Equal(first, again) {
				t.Errorf("the repetition was answered by other bytes")
			}
		}
		if w.total() != 1 {
			t.Errorf("processed %d times", w.total())
		}
		if s := w.proxy.Stats(); s.Clients[0].Duplicates != 4 || s.Clients[0].Requests != 1 {
			t.Errorf("stats %+v", s.Clients[0])
		}
		time.Sleep(DefaultRemember + time.Second)
		if kept := w.proxy.Stats().Kept; kept != 0 {
			t.Errorf("%d answers are kept for ever", kept)
		}
	})
}

// A server takes a repetition for one: it comes from the same port with the same
// Identifier and Authenticator.
func TestProxyRepeatsTheSameBytes(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		for _, s := range w.servers {
			s.handle = func(*script, Packet) [][]byte { return nil } // it works on it
		}
		for _, b := range [][]byte{w.request(AccessRequest, text(UserName, "ada"), msgAuth()), w.request(AccountingRequest, text(UserName, "ada"))} {
			for range 3 {
				n.send(b)
				time.Sleep(time.Second)
			}
		}
		if w.total() != 2 || w.servers[0].repeats+w.servers[1].repeats != 4 {
			t.Errorf("%d requests, %d and %d repetitions", w.total(), w.servers[0].repeats, w.servers[1].repeats)
		}
	})
}

// The same Identifier with another Authenticator is another request, at once.
func TestProxyServesReusedIdentifiers(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		for i := range 300 {
			b := w.requestID(AccessRequest, 7, text(UserName, fmt.Sprint("user", i)), msgAuth())
			if p := n.ask(b); p.Code() != AccessAccept {
				t.Fatalf("request %d: %v", i, p.Code())
			}
		}
		// Also while the former one waits.
		for _, s := range w.servers {
			s.hush(true)
		}
		n.send(w.requestID(AccessRequest, 8, text(UserName, "one"), msgAuth()))
		synctest.Wait()
		for _, s := range w.servers {
			s.hush(false)
		}
		if p := n.ask(w.requestID(AccessRequest, 8, text(UserName, "two"), msgAuth())); p.Code() != AccessAccept {
			t.Errorf("the second one: %v", p.Code())
		}
		if s := w.proxy.Stats(); s.Waiting != 0 {
			t.Errorf("%d wait still", s.Waiting)
		}
	})
}

// Four times 256 requests under way are answered, each by its own answer.
func TestProxyHasMoreThan256Identifiers(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		for _, s := range w.servers {
			s.handle = func(s *script, p Packet) [][]byte {
				user, _ := p.Lookup(UserName)
				a := s.answer(p, AccessAccept, attr{ReplyMessage, user})
				time.AfterFunc(3*time.Second, func() { s.later(p, a) })
				return nil
			}
		}
		var socks []nasSocket
		var sent [4][256][]byte
		for k := range 4 {
			socks = append(socks, w.nas(uint16(40000+k)))
			for i := range 256 {
				b := w.requestID(AccessRequest, byte(i), text(UserName, fmt.Sprintf("user%d-%d", k, i)), msgAuth())
				sent[k][i] = b
				socks[k].send(b)
				if i%64 == 0 {
					synctest.Wait()
				}
			}
		}
		synctest.Wait()
		if n := w.proxy.Stats().Waiting; n != 1024 {
			t.Errorf("%d wait", n)
		}
		time.Sleep(4 * time.Second)
		right := 0
		for k := range 4 {
			for range 256 {
				a := socks[k].receive(time.Second)
				if a == nil {
					continue
				}
				p, _ := Parse(a)
				b := sent[k][p.Identifier()]
				m, _ := p.Lookup(ReplyMessage)
				if p.CheckAnswer(clientSecret, [16]byte(b[4:20])) == nil && string(m) == fmt.Sprintf("user%d-%d", k, p.Identifier()) {
					right++
				}
			}
		}
		if right != 1024 {
			t.Errorf("%d of 1024 were answered rightly", right)
		}
	})
}

// later sends an answer to where request p came from: every socket it was seen by.
func (s *script) later(p Packet, answers [][]byte) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for id := range s.seen {
		if !strings.HasSuffix(id, fmt.Sprint(p.Code(), p.Identifier(), p.Authenticator())) &&
			!strings.HasSuffix(id, fmt.Sprint("", p.Code(), " ", p.Identifier(), " ", p.Authenticator())) {
			continue
		}
		from, _, _ := strings.Cut(id, " ")
		a, err := netip.ParseAddrPort(from)
		if err != nil {
			s.w.t.Error(err)
			return
		}
		port := 0
		if p.Code() == AccountingRequest {
			port = 1
		}
		for _, b := range answers {
			s.conns[port].WriteToUDPAddrPort(b, a)
		}
	}
}

// Large packets pass: EAP of 3.8 KB and exactly 4096 bytes, but not one more.
func TestProxyPassesLargePackets(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		fill := func(size int, first ...attr) []byte {
			attrs := slices.Clone(first)
			for have := len(w.request(AccessRequest, attrs...)); size-have > 0; have = len(w.request(AccessRequest, attrs...)) {
				k := min(size-have, 255)
				if rest := size - have - k; rest == 1 {
					k -= 2
				}
				attrs = append(attrs, attr{EAPMessage, make([]byte, k-2)})
			}
			return w.request(AccessRequest, attrs...)
		}
		for _, s := range w.servers {
			s.handle = func(s *script, p Packet) [][]byte {
				var attrs []attr
				for range 14 {
					attrs = append(attrs, attr{EAPMessage, make([]byte, 253)})
				}
				return s.answer(p, AccessChallenge, append(attrs, attr{EAPMessage, make([]byte, 200)}, text(State, "s"))...)
			}
		}
		for _, size := range []int{3800, 4078, 4095, 4096} {
			b := fill(size, text(UserName, "ada"), msgAuth())
			if len(b) != size {
				t.Fatalf("made %d bytes, not %d", len(b), size)
			}
			if p := n.ask(b); p.Code() != AccessChallenge || len(p.Bytes()) < 3800 {
				t.Errorf("%d bytes: answered by %v of %d bytes", size, p.Code(), len(p.Bytes()))
			}
		}
		before := w.total()
		n.send(fill(4097, text(UserName, "ada"), msgAuth()))
		if n.receive(time.Second) != nil || w.total() != before {
			t.Error("4097 bytes passed")
		}
		if f := w.proxy.Stats().Clients[0].Sizes; f.Largest != 4096 || f.Fragmented == 0 || len(f.Advice()) == 0 {
			t.Errorf("sizes %+v, advice %q", f, f.Advice())
		}
	})
}

// Only the authentic answer is delivered, once. Forged ones, and those from
// elsewhere, don't end the wait.
func TestProxyWaitsForTheAuthenticAnswer(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		stranger := w.listen(netip.MustParseAddr("10.2.0.1"), 9999)
		for _, s := range w.servers {
			s.handle = func(s *script, p Packet) [][]byte {
				good := s.answer(p, AccessAccept, text(UserName, "good"))[0]
				forged := bytes.Clone(good)
				forged[6]++
				wrongMAC := build(AccessAccept, p.Identifier(), 0, text(UserName, "forged"), attr{MessageAuthenticator, bytes.Repeat([]byte{7}, 16)})
				sum := Packet{b: wrongMAC}.ResponseAuthenticator(s.secret, p.Authenticator())
				copy(wrongMAC[4:], sum[:])
				otherCode := seal(build(AccountingResponse, p.Identifier(), 0), s.secret, p.Authenticator())
				otherID := seal(build(AccessAccept, p.Identifier()+1, 0), s.secret, p.Authenticator())
				for id := range s.seen {
					if from, _, _ := strings.Cut(id, " "); from != "" {
						if a, err := netip.ParseAddrPort(from); err == nil {
							stranger.WriteToUDPAddrPort(good, a)
						}
					}
				}
				return [][]byte{forged, wrongMAC, otherCode, otherID, {1, 2, 3}, good, good}
			}
		}
		b := w.request(AccessRequest, text(UserName, "ada"), msgAuth())
		p := n.ask(b)
		if m, _ := p.Lookup(UserName); p.Code() != AccessAccept || string(m) != "good" {
			t.Errorf("answered by %v %q", p.Code(), m)
		}
		if n.receive(time.Second) != nil {
			t.Error("answered twice")
		}
		bad, stray, malformed := uint64(0), uint64(0), uint64(0)
		for _, s := range w.proxy.Stats().Servers {
			bad, stray, malformed = bad+s.BadAuthenticators, stray+s.Stray, malformed+s.Malformed
		}
		if bad != 3 || stray != 2 || malformed != 1 {
			t.Errorf("counted %d wrong, %d stray, %d malformed; want 3, 2, 1", bad, stray, malformed)
		}
	})
}

// Each policy of Message-Authenticators, both ways.
func TestProxyMessageAuthenticatorPolicy(t *testing.T) {
	plain := []attr{text(UserName, "ada")}
	signed := []attr{text(UserName, "ada"), msgAuth()}
	relayed := []attr{text(UserName, "ada"), text(ProxyState, "x")}
	for name, tc := range map[string]struct {
		client  func(*Client)
		server  func(*Server)
		bare    bool // the server's answers have none
		request []attr
		passes  bool
		first   bool // the answer has one
	}{
		"add, none":               {request: plain, passes: true, first: true},
		"add, one":                {request: signed, passes: true, first: true},
		"add, Proxy-State":        {request: relayed, passes: true, first: true},
		"require, none":           {client: func(c *Client) { c.Message = MessageRequire }, request: plain},
		"require, one":            {client: func(c *Client) { c.Message = MessageRequire }, request: signed, passes: true, first: true},
		"legacy, none":            {client: func(c *Client) { c.Message = MessageLegacy }, request: plain, passes: true},
		"legacy, one":             {client: func(c *Client) { c.Message = MessageLegacy }, request: signed, passes: true, first: true},
		"limited, Proxy-State":    {client: func(c *Client) { c.LimitProxyState = true }, request: relayed},
		"limited, none":           {client: func(c *Client) { c.LimitProxyState = true }, request: plain, passes: true, first: true},
		"bare answer":             {bare: true, request: plain, passes: true, first: true},
		"bare answer, not wanted": {bare: true, request: plain, server: func(s *Server) { s.RequireMessageAuthenticator = true }},
		"full answer wanted":      {request: plain, server: func(s *Server) { s.RequireMessageAuthenticator = true }, passes: true, first: true},
	} {
		t.Run(name, func(t *testing.T) {
			perform(t, func(w *theatre) {
				if tc.client != nil {
					tc.client(&w.client)
				}
				if tc.server != nil {
					tc.server(&w.server)
				}
				if tc.bare {
					for _, s := range w.servers {
						s.handle = func(s *script, p Packet) [][]byte {
							if p.Code() == AccountingRequest {
								return s.behave(p)
							}
							return [][]byte{seal(build(AccessAccept, p.Identifier(), 0), s.secret, p.Authenticator())}
						}
					}
				}
			}, func(w *theatre) {
				n := w.nas(40000)
				p := n.ask(w.request(AccessRequest, tc.request...))
				if got := p.Code() == AccessAccept; got != tc.passes {
					t.Errorf("answered by %v; dropped: %s", p.Code(), w.lastDropped())
				}
				if got := p.find(MessageAuthenticator) == HeaderLen; got != tc.first {
					t.Errorf("the answer begins with a Message-Authenticator: %t", got)
				}
				if acct := n.ask(w.request(AccountingRequest, plain...)); acct.Code() != AccountingResponse {
					t.Errorf("accounting is answered by %v", acct.Code())
				}
			})
		})
	}
}

// The Proxy warns of answers that nothing protects, naming the client and not the
// user, and not of others.
func TestProxyWarnsOfLegacyClients(t *testing.T) {
	for name, tc := range map[string]struct {
		policy MessagePolicy
		attrs  []attr
		warns  int
	}{
		"legacy, none": {MessageLegacy, []attr{text(UserName, "ada")}, 1},
		"legacy, one":  {MessageLegacy, []attr{text(UserName, "ada"), msgAuth()}, 0},
		"add, none":    {MessageAdd, []attr{text(UserName, "ada")}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			perform(t, func(w *theatre) {
				w.client.Message = tc.policy
				w.proxy.Logger = slog.New(slog.NewTextHandler(&out, nil))
			}, func(w *theatre) {
				n := w.nas(40000)
				for range 3 {
					if p := n.ask(w.request(AccessRequest, tc.attrs...)); p.Code() != AccessAccept {
						t.Errorf("answered by %v", p.Code())
					}
				}
				n.ask(w.request(AccountingRequest, text(UserName, "ada")))
			})
			if got := strings.Count(out.String(), "CVE-2024-3596"); got != tc.warns {
				t.Errorf("%d warnings, want %d:\n%s", got, tc.warns, out.String())
			}
			if tc.warns > 0 && (!strings.Contains(out.String(), "client=nas") || strings.Contains(out.String(), "ada")) {
				t.Errorf("the warning names the wrong one:\n%s", out.String())
			}
		})
	}
}

// Who isn't a client is dropped and counted.
func TestProxyDropsUnknownClients(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := nasSocket{w, w.listen(netip.MustParseAddr("192.0.2.66"), 40000)}
		n.send(w.request(AccessRequest, text(UserName, "ada"), msgAuth()))
		if n.receive(time.Second) != nil || w.total() != 0 {
			t.Error("a stranger was served")
		}
		if got := w.proxy.Stats().Dropped[reasonUnknown]; got != 1 {
			t.Errorf("%d counted", got)
		}
	})
}

// Weights are kept, whatever the answers are: rejects are as healthy as accepts.
func TestProxyKeepsWeights(t *testing.T) {
	perform(t, func(w *theatre) {
		set := []lb.Backend{{Name: "nps1", Addr: w.servers[0].addr, Weight: 3}, {Name: "nps2", Addr: w.servers[1].addr, Weight: 1}}
		if err := w.proxy.Balancer.Pool.Set(set...); err != nil {
			w.t.Fatal(err)
		}
		for _, s := range w.servers {
			s.handle = func(s *script, p Packet) [][]byte { return s.answer(p, AccessReject) }
		}
	}, func(w *theatre) {
		n := w.nas(40000)
		for i := range 400 {
			if p := n.ask(w.request(AccessRequest, text(UserName, fmt.Sprint("user", i)), msgAuth())); p.Code() != AccessReject {
				t.Fatalf("request %d: %v", i, p.Code())
			}
		}
		if got := w.processed(); got[0] < 240 || got[0] > 360 {
			t.Errorf("%v of 400 with weights 3 and 1", got)
		}
		if len(w.suspects) > 0 {
			t.Errorf("suspected: %v", w.suspects)
		}
	})
}

// A user whose requests are discarded, as NPS does, doesn't remove a server: it is
// only asked at once.
func TestProxySilentUserRemovesNoServer(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		for _, s := range w.servers {
			s.handle = func(s *script, p Packet) [][]byte {
				if user, _ := p.Lookup(UserName); string(user) == "silent" {
					return nil
				}
				return s.behave(p)
			}
		}
		n := w.nas(40000)
		b := w.request(AccessRequest, text(UserName, "silent"), msgAuth())
		for range 6 {
			n.send(b)
			time.Sleep(5 * time.Second)
		}
		if len(w.suspects) == 0 {
			t.Error("nobody is suspected")
		}
		for i := range 20 {
			if p := n.ask(w.request(AccessRequest, text(UserName, fmt.Sprint("user", i)), msgAuth())); p.Code() != AccessAccept {
				t.Errorf("user %d: %v", i, p.Code())
			}
		}
		if got := w.processed(); got[0] < 8 || got[1] < 8 {
			t.Errorf("the servers had %v", got)
		}
		for _, s := range w.proxy.Stats().Servers {
			if s.Shunned > 0 {
				t.Errorf("%s was shunned", s.Name)
			}
		}
		time.Sleep(DefaultHold)
		if f := w.proxy.Stats().Failures; len(f) != 1 || !strings.Contains(f[0].Reason, "no answer") {
			t.Errorf("failures %+v", f)
		}
	})
}

// A server that drains keeps conversations and gets no new ones; undrained it gets
// its share again.
func TestProxyDrain(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		type talk struct{ user, state, server string }
		var talks []talk
		for i := range 8 {
			before := w.processed()
			user := fmt.Sprint("user", i)
			p := n.ask(w.request(AccessRequest, eapAttrs(user, "", "")...))
			state, _ := p.Lookup(State)
			at := "nps1"
			if w.processed()[1] > before[1] {
				at = "nps2"
			}
			talks = append(talks, talk{user, string(state), at})
		}
		pool := w.proxy.Balancer.Pool
		if err := pool.Drain("nps1", time.Time{}); err != nil {
			t.Fatal(err)
		}
		for _, k := range talks {
			before := w.processed()
			if p := n.ask(w.request(AccessRequest, eapAttrs(k.user, "", k.state)...)); p.Code() != AccessChallenge {
				t.Errorf("%s of %s: %v", k.user, k.server, p.Code())
			}
			if moved := (w.processed()[0] > before[0]) != (k.server == "nps1"); moved {
				t.Errorf("%s of %s went to the other", k.user, k.server)
			}
		}
		before := w.processed()
		for i := range 10 {
			if _, err := w.converse(fmt.Sprint("new", i), "", n); err != nil {
				t.Error(err)
			}
		}
		if got := w.processed()[0] - before[0]; got != 0 {
			t.Errorf("%d new requests went to the server that drains", got)
		}
		if err := pool.Undrain("nps1"); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			if _, err := w.converse(fmt.Sprint("newer", i), "", n); err != nil {
				t.Error(err)
			}
		}
		if got := w.processed()[0] - before[0]; got == 0 {
			t.Error("it doesn't get any after Undrain")
		}
	})
}

// A server falls silent: conversations that only it can continue stay, and go on
// when it returns; new ones go elsewhere.
func TestProxySilentServer(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		states := map[string]string{}
		for i := range 8 {
			user := fmt.Sprint("user", i)
			state, _ := n.ask(w.request(AccessRequest, eapAttrs(user, "", "")...)).Lookup(State)
			states[user] = string(state)
		}
		w.servers[0].hush(true)
		began := time.Now()
		late := time.Duration(0)
		for i := range 60 {
			b := w.request(AccessRequest, text(UserName, fmt.Sprint("new", i)), msgAuth())
			for try := range 4 {
				n.send(b)
				if n.await(b, 2*time.Second).Code() == AccessAccept {
					break
				}
				if try == 3 {
					t.Errorf("new user %d was never served", i)
				}
				late = time.Since(began)
			}
		}
		if late > 8*time.Second {
			t.Errorf("new users had to wait until %v after it fell silent", late)
		}
		// Continuations go nowhere else.
		if err := w.proxy.Balancer.Pool.Mark("nps1", lb.Down, "silent"); err != nil {
			t.Fatal(err)
		}
		var waiting [][]byte
		for user, state := range states {
			b := w.request(AccessRequest, eapAttrs(user, "", state)...)
			waiting = append(waiting, b)
			n.send(b)
		}
		time.Sleep(5 * time.Second)
		w.servers[0].hush(false)
		for _, b := range waiting {
			n.send(b)
		}
		answered := map[byte]bool{}
		for a := n.receive(time.Second); a != nil; a = n.receive(time.Second) {
			answered[a[1]] = Code(a[0]) == AccessChallenge
		}
		for _, b := range waiting {
			if !answered[b[1]] {
				t.Errorf("Identifier %d was not answered when the server was back", b[1])
			}
		}
		if w.servers[1].unknown > 0 {
			t.Errorf("%d continuations went to the other server", w.servers[1].unknown)
		}
		_ = w.proxy.Balancer.Pool.Mark("nps1", lb.Up, "")
		before := w.processed()[0]
		for i := range 10 {
			n.ask(w.request(AccessRequest, text(UserName, fmt.Sprint("newest", i)), msgAuth()))
		}
		if w.processed()[0] == before {
			t.Error("it gets nobody after it came back")
		}
	})
}

// The accounting of a server is dead and its authentication alive, and the other
// way round: only that part goes elsewhere.
func TestProxyHalfDeadServer(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		w.servers[0].conns[1].Close() // accounting of nps1
		n := w.nas(40000)
		for i := range 20 {
			user := fmt.Sprint("user", i)
			if p := n.ask(w.request(AccessRequest, text(UserName, user), msgAuth())); p.Code() != AccessAccept {
				t.Errorf("%s: %v", user, p.Code())
			}
			if p := n.ask(w.request(AccountingRequest, text(UserName, user))); p.Code() != AccountingResponse {
				t.Errorf("accounting of %s: %v", user, p.Code())
			}
		}
		for _, s := range w.proxy.Stats().Servers {
			if s.Name == "nps1" && s.Port == 1812 && (s.Accepts == 0 || s.Refused > 0) {
				t.Errorf("authentication suffers: %+v", s)
			}
			if s.Name == "nps1" && s.Port == 1813 && s.Refused == 0 {
				t.Errorf("the closed port wasn't noticed: %+v", s)
			}
		}
	})
}

// A closed port is noticed by its refusal: what waits is sent elsewhere at once.
func TestProxyClosedPort(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		w.servers[0].stop()
		for i := range 20 {
			begin := time.Now()
			if p := n.ask(w.request(AccessRequest, text(UserName, fmt.Sprint("user", i)), msgAuth())); p.Code() != AccessAccept {
				t.Errorf("user %d: %v", i, p.Code())
			}
			if d := time.Since(begin); d > 100*time.Millisecond {
				t.Errorf("user %d waited for %v", i, d)
			}
		}
		if len(w.suspects) == 0 || !strings.HasPrefix(w.suspects[0], "nps1: radius: port 1812") {
			t.Errorf("suspects %q", w.suspects)
		}
	})
}

// Both servers are dead, then back: the clients' repetitions are answered.
func TestProxyBothDeadThenBack(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		for _, s := range w.servers {
			s.stop()
		}
		b := w.request(AccessRequest, text(UserName, "ada"), msgAuth())
		acct := w.request(AccountingRequest, text(UserName, "ada"))
		for range 3 {
			n.send(b)
			n.send(acct)
			if n.receive(5*time.Second) != nil {
				t.Fatal("answered by nobody")
			}
		}
		for _, s := range w.servers {
			s.start()
		}
		if p := n.ask(b); p.Code() != AccessAccept {
			t.Errorf("the repetition: %v", p.Code())
		}
		if p := n.ask(acct); p.Code() != AccountingResponse {
			t.Errorf("the repetition of accounting: %v", p.Code())
		}
		if p := n.ask(w.request(AccessRequest, text(UserName, "bob"), msgAuth())); p.Code() != AccessAccept {
			t.Errorf("a new request: %v", p.Code())
		}
	})
}

// An answer that takes 35 seconds, since a person has to approve, is delivered,
// and the request processed once however often it was repeated.
func TestProxyAnswerAfter35Seconds(t *testing.T) {
	for name, others := range map[string]bool{"among others": true, "alone": false} {
		t.Run(name, func(t *testing.T) { answerAfter35Seconds(t, others) })
	}
}

func answerAfter35Seconds(t *testing.T, others bool) {
	perform(t, nil, func(w *theatre) {
		n, m := w.nas(40000), w.nas(40001)
		for _, s := range w.servers {
			s.handle = func(s *script, p Packet) [][]byte {
				user, _ := p.Lookup(UserName)
				if string(user) != "slow" {
					return s.behave(p)
				}
				a := s.answer(p, AccessAccept)
				time.AfterFunc(35*time.Second, func() { s.later(p, a) })
				return nil
			}
		}
		b := w.request(AccessRequest, text(UserName, "slow"), msgAuth())
		var got []byte
		for i := 0; got == nil && i < 10; i++ {
			n.send(b)
			got = n.receive(5 * time.Second)
			if others && m.ask(w.request(AccessRequest, text(UserName, fmt.Sprint("other", i)), msgAuth())).Code() != AccessAccept {
				t.Errorf("another user isn't served meanwhile")
			}
		}
		if got == nil || Code(got[0]) != AccessAccept {
			t.Fatalf("answered by %v", got)
		}
		n.receive(time.Second)
		slow := 0
		for _, s := range w.servers {
			for _, r := range s.requests {
				p, _ := Parse(r)
				if user, _ := p.Lookup(UserName); string(user) == "slow" {
					slow++
				}
			}
		}
		if slow != 1 {
			t.Errorf("processed %d times", slow)
		}
	})
}
