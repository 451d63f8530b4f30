package radius

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// The scenarios below drive a real Balancer with packets of many users. The
// engine is a model: it does what an engine does with flows, without sockets.
//
//	users ── one NAS address and port ── relay ─┬─ nps1
//	                                            └─ nps2

// upstream is one socket of a relay: of one flow, to one server.
type upstream struct {
	flow   lb.Flow
	server string
}

// relay is a model of an engine.
type relay struct {
	t     *testing.T
	b     *lb.Balancer
	c     Classifier
	flows map[lb.Flow]*lb.Exchanges
	nps   map[string]*fakeNPS
}

func newRelay(t *testing.T, picker lb.Picker) *relay {
	t.Helper()
	r := &relay{
		t: t, b: &lb.Balancer{Pool: new(lb.Pool), Table: new(lb.Table), Picker: picker},
		flows: make(map[lb.Flow]*lb.Exchanges), nps: make(map[string]*fakeNPS),
	}
	var backends []lb.Backend
	for i, name := range []string{"nps1", "nps2"} {
		backends = append(backends, lb.Backend{Name: name, Addr: netip.AddrFrom4([4]byte{10, 0, 2, byte(i + 1)})})
		r.nps[name] = &fakeNPS{name: name, rounds: 7, talks: make(map[string]string), seen: make(map[string][]byte)}
	}
	if err := r.b.Pool.Set(backends...); err != nil {
		t.Fatal(err)
	}
	return r
}

// send carries a request, and returns to which server it went and its answer,
// which is nil if there was none. The answer has yet to be given to answered.
func (r *relay) send(b []byte, f lb.Flow) (server string, answer []byte) {
	r.t.Helper()
	v := r.c.Classify(b, f)
	if v.Drop {
		r.t.Fatalf("dropped: %s", v.Reason)
	}
	x := r.flows[f]
	if x == nil {
		x = new(lb.Exchanges)
		r.flows[f] = x
	}
	m, why := x.Repeats(&v, r.b.Pool.View())
	if m == nil {
		route, err := r.b.Route(&v, f)
		if err != nil {
			return "", nil
		}
		m, why = route.Member, route.Why
	}
	x.Sent(&v, m, why)
	return m.Name, r.nps[m.Name].handle(b, upstream{f, m.Name})
}

// answered carries an answer, and reports whether it may be forwarded.
func (r *relay) answered(b []byte, f lb.Flow, server string) bool {
	r.t.Helper()
	v := r.c.Answer(b, f)
	if v.Drop {
		r.t.Fatalf("answer dropped: %s", v.Reason)
	}
	m := r.b.Pool.View().ByName(server)
	if keys, why, ok := r.flows[f].Answered(&v, m); ok {
		r.b.Answered(m, f, v.Stage, why, keys[:]...)
	}
	return true
}

// fakeNPS is a stand-in for NPS: it discards an Access-Request whose State it
// hasn't issued, and takes a repetition for such.
type fakeNPS struct {
	name   string
	talks  map[string]string // State to user
	seen   map[string][]byte // requests by socket, Identifier and Authenticator
	states uint64
	rounds uint64 // challenges before the accept
	// counts
	handled, repeated, unknown int
	accounted                  []string
}

// handle answers a request. The States of all servers are alike on purpose.
func (s *fakeNPS) handle(b []byte, from upstream) []byte {
	p, err := Parse(b)
	if err != nil {
		return nil
	}
	id := fmt.Sprint(from, p.Identifier(), p.Authenticator())
	if answer, ok := s.seen[id]; ok {
		s.repeated++
		return answer
	}
	s.handled++
	answer := s.answer(p)
	s.seen[id] = answer
	return answer
}

func (s *fakeNPS) answer(p Packet) []byte {
	user, _ := p.Lookup(UserName)
	station, _ := p.Lookup(CallingStationID)
	who := string(user) + "/" + string(station)
	if p.Code() == AccountingRequest {
		s.accounted = append(s.accounted, who)
		return build(AccountingResponse, p.Identifier(), 0)
	}
	round := uint64(0)
	if state, ok := p.Lookup(State); ok {
		if s.talks[string(state)] != who {
			s.unknown++
			return nil
		}
		delete(s.talks, string(state))
		round = binary.BigEndian.Uint64(state) % 100
	}
	if round == s.rounds {
		return build(AccessAccept, p.Identifier(), 0, attr{EAPMessage, []byte{3, 1, 0, 4}}, msgAuth(), text(Class, "staff"))
	}
	s.states++
	state := binary.BigEndian.AppendUint64(nil, s.states*100+round+1)
	s.talks[string(state)] = who
	return build(AccessChallenge, p.Identifier(), 0, attr{State, state}, attr{EAPMessage, []byte{1, 1, 0, 5, EAPPEAP}}, msgAuth())
}

// nas sends the requests of users. Like a real one, it doesn't use an Identifier
// that waits for an answer.
type nas struct {
	r     *relay
	rand  *rand.Rand
	ports uint16 // if not 0, each request has another port of so many
	busy  map[lb.Flow]*[256]bool
	last  uint64 // request
}

func newNAS(r *relay, seed uint64) *nas {
	return &nas{r: r, rand: rand.New(rand.NewPCG(seed, 1)), busy: make(map[lb.Flow]*[256]bool)}
}

// request makes a packet with a fresh Authenticator, and the flow it goes by.
func (n *nas) request(c Code, service uint16, attrs ...attr) ([]byte, lb.Flow) {
	n.last++
	f := lb.Flow{Client: netip.MustParseAddrPort("192.0.2.10:50000"), Service: service}
	if n.ports > 0 {
		f.Client = netip.AddrPortFrom(f.Client.Addr(), 50000+uint16(n.last)%n.ports)
	}
	busy := n.busy[f]
	if busy == nil {
		busy = new([256]bool)
		n.busy[f] = busy
	}
	id := byte(n.last)
	for busy[id] {
		id++
	}
	busy[id] = true
	b := build(c, id, 0, append(attrs, attr{NASIPAddress, []byte{192, 0, 2, 10}})...)
	binary.BigEndian.PutUint64(b[4:], n.last)
	return b, f
}

// free says that a request has ended.
func (n *nas) free(b []byte, f lb.Flow) { n.busy[f][b[1]] = false }

// user is one conversation.
type user struct {
	names  []attr
	state  []byte
	server string
	packet []byte // under way, with its answer
	flow   lb.Flow
	answer []byte
	done   bool
	split  []string
}

// step does the next thing in the user's conversation: it sends a request, now
// and then twice, or takes the answer of the last one.
func (u *user) step(n *nas) {
	if u.packet == nil {
		attrs := slices.Concat([]attr{{EAPMessage, []byte{2, 1, 0, 5, EAPPEAP}}, msgAuth()}, u.names)
		if u.state != nil {
			attrs = append(attrs, attr{State, u.state})
		}
		u.packet, u.flow = n.request(AccessRequest, 1812, attrs...)
		u.transmit(n)
		return
	}
	if n.rand.IntN(10) == 0 { // the answer got lost, or took long
		u.transmit(n)
		return
	}
	if u.answer == nil {
		return
	}
	u.take(n)
}

func (u *user) transmit(n *nas) {
	server, answer := n.r.send(u.packet, u.flow)
	if u.server == "" {
		u.server = server
	}
	if server != u.server {
		u.split = append(u.split, server)
	}
	u.answer = answer
}

func (u *user) take(n *nas) {
	n.r.answered(u.answer, u.flow, u.server)
	p, err := Parse(u.answer)
	if err != nil {
		n.r.t.Fatal(err)
	}
	n.free(u.packet, u.flow)
	u.packet, u.answer = nil, nil
	if p.Code() == AccessAccept {
		u.done = true
		return
	}
	state, _ := p.Lookup(State)
	u.state = bytes.Clone(state)
}

// account reports the server that a user's accounting went to.
func (u *user) account(n *nas, names ...attr) string {
	b, f := n.request(AccountingRequest, 1813, names...)
	defer n.free(b, f)
	server, answer := n.r.send(b, f)
	if answer != nil {
		n.r.answered(answer, f, server)
	}
	return server
}

// converse runs the conversations, interleaved at random, to their ends. It
// gives up when steps don't get them there.
func converse(n *nas, users []*user) {
	for range 400 * len(users) {
		left := 0
		for _, u := range users {
			if !u.done {
				left++
			}
		}
		if left == 0 {
			return
		}
		if u := users[n.rand.IntN(len(users))]; !u.done {
			u.step(n)
		}
	}
}

// check reports what no balancer may do: to split a conversation, or to have a
// request worked on twice.
func check(t *testing.T, r *relay, users []*user) {
	t.Helper()
	for i, u := range users {
		if !u.done || len(u.split) > 0 {
			t.Errorf("user %d: accepted %v, at %s, but %d packets went elsewhere", i, u.done, u.server, len(u.split))
		}
	}
	for _, s := range r.nps {
		if s.unknown > 0 {
			t.Errorf("%s got %d packets of conversations that it hadn't begun", s.name, s.unknown)
		}
	}
}

func pickers() map[string]lb.Picker {
	return map[string]lb.Picker{"maglev": &lb.Maglev{}, "round robin": &lb.RoundRobin{}, "least clients": lb.LeastClients{}}
}

// TestConversationsStayWhole runs 100 conversations at once, as their packets
// come from one NAS, and then their accounting.
func TestConversationsStayWhole(t *testing.T) {
	tests := []struct {
		name  string
		ports uint16
		names func(i int) []attr
		// spread is how many of the 100 users each server gets at least. It
		// isn't asked of a Picker that picks alike for all of them.
		spread int
		alike  bool
	}{
		{"own name", 0, func(i int) []attr { return []attr{text(UserName, fmt.Sprintf("user%d", i))} }, 25, false},
		{"own station, one name", 0, func(i int) []attr {
			return []attr{text(UserName, "anonymous"), text(CallingStationID, fmt.Sprintf("198.51.100.%d", i))}
		}, 25, false},
		{"one station, own name", 0, func(i int) []attr {
			return []attr{text(UserName, fmt.Sprintf("user%d", i)), text(CallingStationID, "198.51.100.1")}
		}, 25, true},
		{"no name but a port", 0, func(i int) []attr {
			return []attr{text(UserName, "anonymous"), {NASPort, []byte{0, 0, 0, byte(i)}}}
		}, 25, false},
		{"new port for each packet", 30000, func(i int) []attr {
			return []attr{text(UserName, fmt.Sprintf("user%d", i)), text(CallingStationID, fmt.Sprintf("198.51.100.%d", i))}
		}, 25, false},
	}
	for _, tt := range tests {
		for name, picker := range pickers() {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				r := newRelay(t, picker)
				n := newNAS(r, 7)
				n.ports = tt.ports
				users := make([]*user, 100)
				for i := range users {
					users[i] = &user{names: tt.names(i)}
				}
				converse(n, users)
				check(t, r, users)
				got := map[string]int{}
				for i, u := range users {
					got[u.server]++
					for range 2 {
						if at := u.account(n, u.names...); at != u.server {
							t.Errorf("user %d: authenticated by %s, accounted by %s", i, u.server, at)
						}
					}
				}
				if min(got["nps1"], got["nps2"]) < tt.spread && !(tt.alike && name == "maglev") {
					t.Errorf("users are spread %v", got)
				}
				if c := r.b.Table.Stats().Clients; c > 100 {
					t.Errorf("%d clients in the table", c)
				}
			})
		}
	}
}

// TestOneAnonymousName has nothing but State to tell conversations apart.
func TestOneAnonymousName(t *testing.T) {
	for name, picker := range pickers() {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t, picker)
			n := newNAS(r, 3)
			users := make([]*user, 100)
			for i := range users {
				users[i] = &user{names: []attr{text(UserName, "anonymous")}}
			}
			// The stand-in can't tell these users apart either, so States
			// must differ between the servers here.
			r.nps["nps2"].states = 1 << 20
			converse(n, users)
			check(t, r, users)
			if a, b := r.nps["nps1"].handled, r.nps["nps2"].handled; min(a, b) < 200 {
				t.Errorf("requests are spread %d to %d", a, b)
			}
		})
	}
}

// TestLongConversations has more rounds than a client has names.
func TestLongConversations(t *testing.T) {
	for n := range 40 {
		r := newRelay(t, &lb.RoundRobin{})
		for _, s := range r.nps {
			s.rounds = uint64(n)
		}
		u := &user{names: []attr{text(UserName, "ada"), text(AcctSessionID, "5")}}
		nas := newNAS(r, uint64(n))
		converse(nas, []*user{u})
		check(t, r, []*user{u})
		for range 3 {
			if at := u.account(nas, u.names[0]); at != u.server {
				t.Fatalf("after %d rounds: authenticated by %s, accounted by %s", n, u.server, at)
			}
		}
	}
}

// TestAccountingUnderAnotherName has what NASes do when a server answers with
// another User-Name.
func TestAccountingUnderAnotherName(t *testing.T) {
	r := newRelay(t, &lb.RoundRobin{})
	n := newNAS(r, 1)
	for i := range 20 {
		session := text(AcctSessionID, fmt.Sprint(i))
		u := &user{names: []attr{text(UserName, fmt.Sprintf("outer%d", i)), session}}
		converse(n, []*user{u})
		check(t, r, []*user{u})
		// Delay and Identifier change when it repeats itself (RFC 2866 §5.2).
		for delay := range byte(3) {
			if at := u.account(n, text(UserName, fmt.Sprintf("inner%d", i)), session, attr{AcctDelayTime, []byte{0, 0, 0, delay}}); at != u.server {
				t.Errorf("session %d: authenticated by %s, accounted by %s", i, u.server, at)
			}
		}
	}
}

// TestSessionsNumberedAgain restarts a NAS, which gives the numbers of sessions
// to other users.
func TestSessionsNumberedAgain(t *testing.T) {
	r := newRelay(t, &lb.RoundRobin{})
	n := newNAS(r, 1)
	for i := range 20 {
		session := text(AcctSessionID, fmt.Sprint(i%3))
		u := &user{names: []attr{text(UserName, fmt.Sprintf("user%d", i))}}
		converse(n, []*user{u})
		check(t, r, []*user{u})
		if at := u.account(n, u.names[0], session); at != u.server {
			t.Errorf("user %d: authenticated by %s, accounted by %s", i, u.server, at)
		}
	}
}

// TestRetransmissions repeats a request before and after its answer, and after
// the server has died.
func TestRetransmissions(t *testing.T) {
	r := newRelay(t, &lb.RoundRobin{})
	n := newNAS(r, 1)
	b, f := n.request(AccessRequest, 1812, text(UserName, "ada"), msgAuth())
	server, answer := r.send(b, f)
	for range 5 {
		// Others are picked for meanwhile.
		other, of := n.request(AccessRequest, 1812, text(UserName, "grace"), msgAuth())
		r.send(other, of)
		if s, again := r.send(b, f); s != server || !bytes.Equal(again, answer) {
			t.Fatalf("repeated to %s, first sent to %s", s, server)
		}
	}
	r.answered(answer, f, server)
	if s, _ := r.send(b, f); s != server {
		t.Fatalf("after the answer repeated to %s", s)
	}
	if got := r.nps[server].repeated; got != 6 {
		t.Errorf("the server saw %d repetitions, want 6", got)
	}
	if err := r.b.Pool.Mark(server, lb.Down, "test"); err != nil {
		t.Fatal(err)
	}
	if s, _ := r.send(b, f); s == server || s == "" {
		t.Errorf("repeated to %q although that is down", s)
	}
}

// TestServerDies loses the conversations of one server in their middle, and no
// others; then the users begin again.
func TestServerDies(t *testing.T) {
	for name, picker := range pickers() {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t, picker)
			n := newNAS(r, 5)
			users := make([]*user, 60)
			for i := range users {
				users[i] = &user{names: []attr{text(UserName, fmt.Sprintf("user%d", i))}}
				for range 5 {
					users[i].step(n)
				}
			}
			if err := r.b.Pool.Mark("nps1", lb.Down, "test"); err != nil {
				t.Fatal(err)
			}
			handled := r.nps["nps1"].handled
			var lost, kept []*user
			for _, u := range users {
				if u.server == "nps1" {
					lost = append(lost, &user{names: u.names})
				} else {
					kept = append(kept, u)
				}
			}
			if len(lost) < 10 || len(kept) < 10 {
				t.Fatalf("%d lost, %d kept", len(lost), len(kept))
			}
			converse(n, slices.Concat(kept, lost))
			check(t, r, slices.Concat(kept, lost))
			if r.nps["nps1"].handled != handled {
				t.Error("the dead server got requests")
			}
			// Its return moves nobody who has begun again elsewhere.
			if err := r.b.Pool.Mark("nps1", lb.Up, ""); err != nil {
				t.Fatal(err)
			}
			for _, u := range lost {
				if at := u.account(n, u.names...); at != "nps2" {
					t.Errorf("accounted by %s", at)
				}
			}
		})
	}
}

// TestLateAnswer has the answer of a server arrive when the NAS has used its
// Identifier for another user at another server.
func TestLateAnswer(t *testing.T) {
	r := newRelay(t, &lb.RoundRobin{})
	n := newNAS(r, 1)
	ada, f := n.request(AccessRequest, 1812, text(UserName, "ada"), msgAuth())
	server, late := r.send(ada, f)
	n.free(ada, f)
	grace := build(AccessRequest, ada[1], 77, text(UserName, "grace"), msgAuth())
	other, _ := r.send(grace, f)
	if other == server {
		t.Fatal("both went to one server")
	}
	r.answered(late, f, server)
	if c, ok := r.b.Table.Lookup(r.c.Classify(grace, f).Pick); ok {
		t.Errorf("the answer to ada was taken for one to grace: %+v", c)
	}
}

// TestDrain lets conversations finish and sends new users elsewhere.
func TestDrain(t *testing.T) {
	r := newRelay(t, nil)
	n := newNAS(r, 9)
	users := make([]*user, 60)
	for i := range users {
		users[i] = &user{names: []attr{text(UserName, fmt.Sprintf("user%d", i))}}
		for range 4 {
			users[i].step(n)
		}
	}
	r.b.Pool.Drain("nps1", time.Time{})
	converse(n, users)
	check(t, r, users)
	late := make([]*user, 40)
	for i := range late {
		late[i] = &user{names: []attr{text(UserName, fmt.Sprintf("late%d", i))}}
	}
	converse(n, late)
	check(t, r, late)
	for i, u := range late {
		if u.server != "nps2" {
			t.Errorf("user %d began at %s", i, u.server)
		}
	}
}

// TestDrainBetweenLogins drains the server of users who are logged in: what they
// report goes there still, until they log in again, which they do elsewhere.
func TestDrainBetweenLogins(t *testing.T) {
	for name, picker := range pickers() {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t, picker)
			n := newNAS(r, 3)
			users := make([]*user, 30)
			for i := range users {
				users[i] = &user{names: []attr{text(UserName, fmt.Sprintf("user%d", i)), text(AcctSessionID, fmt.Sprint(i))}}
			}
			converse(n, users)
			check(t, r, users)
			r.b.Pool.Drain("nps1", time.Time{})
			again := make([]*user, len(users))
			for i, u := range users {
				if at := u.account(n, u.names...); at != u.server {
					t.Errorf("user %d is logged in at %s, and reports to %s", i, u.server, at)
				}
				again[i] = &user{names: []attr{u.names[0], text(AcctSessionID, fmt.Sprint(100+i))}}
			}
			converse(n, again)
			check(t, r, again)
			for i, u := range again {
				if at := u.account(n, u.names...); u.server != "nps2" || at != "nps2" {
					t.Errorf("user %d logged in again at %s, and reports to %s", i, u.server, at)
				}
			}
		})
	}
}

// TestNeighboursBehindOneAddress begins conversations of users who share a
// Calling-Station-Id at once, with a picker that spreads them: the name that
// they share must not tear any of them along.
func TestNeighboursBehindOneAddress(t *testing.T) {
	for seed := range uint64(20) {
		r := newRelay(t, &lb.RoundRobin{})
		n := newNAS(r, seed)
		users := make([]*user, 40)
		for i := range users {
			users[i] = &user{names: []attr{text(UserName, fmt.Sprintf("user%d", i)), text(CallingStationID, "198.51.100.1")}}
			users[i].step(n)
		}
		converse(n, users)
		check(t, r, users)
	}
}

// TestRestart has the conversations of a balancer that has forgotten everything
// go on at their servers, since its Picker agrees with itself.
func TestRestart(t *testing.T) {
	r := newRelay(t, nil)
	n := newNAS(r, 2)
	users := make([]*user, 60)
	for i := range users {
		users[i] = &user{names: []attr{text(UserName, fmt.Sprintf("user%d", i))}}
		for range 5 {
			users[i].step(n)
		}
	}
	r.b = &lb.Balancer{Pool: r.b.Pool, Table: new(lb.Table)}
	clear(r.flows)
	for _, u := range users {
		if u.packet != nil {
			u.transmit(n)
		}
	}
	converse(n, users)
	check(t, r, users)
}

// TestBothAnswer has a request that was repeated to another server, since the first
// was held up, be answered by both: the NAS may go on with either.
func TestBothAnswer(t *testing.T) {
	r := newRelay(t, &lb.RoundRobin{})
	n := newNAS(r, 1)
	b, f := n.request(AccessRequest, 1812, text(UserName, "ada"), msgAuth())
	v := r.c.Classify(b, f)
	first, second := r.b.Pool.View().Members[0], r.b.Pool.View().Members[1]
	x := new(lb.Exchanges)
	x.Sent(&v, first, lb.WhyPicked)
	x.Sent(&v, second, lb.WhyMoved)
	for m, state := range map[*lb.Member]string{first: "of the first", second: "of the second"} {
		a := r.c.Answer(build(AccessChallenge, b[1], 0, text(State, state), msgAuth()), f)
		keys, why, ok := x.Answered(&a, m)
		if !ok || !r.b.Answered(m, f, a.Stage, why, keys[:]...) {
			t.Fatalf("the State %s isn't recorded", state)
		}
	}
	for m, state := range map[*lb.Member]string{first: "of the first", second: "of the second"} {
		next, f := n.request(AccessRequest, 1812, text(UserName, "ada"), text(State, state), msgAuth())
		v := r.c.Classify(next, f)
		if got, err := r.b.Route(&v, f); err != nil || got.Member != m {
			t.Errorf("the State %s leads to %+v, %v", state, got.Member, err)
		}
	}
}
