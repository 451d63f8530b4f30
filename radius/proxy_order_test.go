package radius

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// What a server discards doesn't count as its load once it has answered others: or
// it would be kept from new users for as long as requests are held. What a server
// that answers nobody has got counts on.
func TestProxyCountsWhatServersWorkOn(t *testing.T) {
	for name, most := range map[string]int{"least outstanding": 0, "at most 8": 8} {
		t.Run(name, func(t *testing.T) {
			perform(t, func(w *theatre) {
				if w.server.MaxOutstanding = most; most == 0 {
					w.proxy.Balancer.Picker = lb.LeastOutstanding{}
				}
				w.servers[0].handle = func(s *script, p Packet) [][]byte {
					if user, _ := p.Lookup(UserName); bytes.HasPrefix(user, []byte("discarded")) {
						return nil
					}
					return s.behave(p)
				}
			}, func(w *theatre) {
				n := w.nas(40000)
				pool := w.proxy.Balancer.Pool
				load := func() int { return pool.View().Member(0).Requests().Waiting() }
				if err := pool.Drain("nps2", time.Time{}); err != nil {
					t.Fatal(err)
				}
				for i := range 10 {
					n.send(w.request(AccessRequest, text(UserName, fmt.Sprint("discarded", i)), msgAuth()))
				}
				synctest.Wait()
				w.proxy.Alive("nps1", 1812)
				if err := pool.Undrain("nps2"); err != nil {
					t.Fatal(err)
				}
				if got := load(); got != 10 {
					t.Errorf("nps1 is busy with %d of 10", got)
				}
				time.Sleep(time.Second)
				// nps1 answers somebody: so it isn't busy with those.
				if err := pool.Drain("nps2", time.Time{}); err != nil {
					t.Fatal(err)
				}
				if p := n.ask(w.request(AccessRequest, text(UserName, "first"), msgAuth())); p.Code() != AccessAccept {
					t.Fatalf("%v", p.Code())
				}
				if err := pool.Undrain("nps2"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(personal + time.Second)
				if got := load(); got != 0 {
					t.Errorf("nps1 is busy with %d, which it has discarded", got)
				}
				before := w.processed()
				for i := range 20 {
					n.ask(w.request(AccessRequest, text(UserName, fmt.Sprint("user", i)), msgAuth()))
				}
				after := w.processed()
				if after[0]-before[0] < 4 || after[1]-before[1] < 4 {
					t.Errorf("of 20 new users the servers got %d and %d", after[0]-before[0], after[1]-before[1])
				}
				if s := w.proxy.Stats(); s.Waiting != 10 {
					t.Errorf("%d wait", s.Waiting)
				}
				// Whatever becomes of them, nothing is counted twice.
				time.Sleep(DefaultHold)
				if got := load(); got != 0 || w.proxy.Stats().Waiting != 0 {
					t.Errorf("in the end nps1 is busy with %d", got)
				}
				for _, s := range w.servers {
					s.hush(true)
				}
				for i := range 6 {
					n.send(w.request(AccessRequest, text(UserName, fmt.Sprint("last", i)), msgAuth()))
				}
				time.Sleep(2 * personal)
				if got := load() + pool.View().Member(1).Requests().Waiting(); got != 6 {
					t.Errorf("servers that answer nobody are busy with %d of 6", got)
				}
			})
		})
	}
}

// A request that is repeated while the proxy shuts down is no new one.
func TestProxyAnswersRepetitionsWhileItShutsDown(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		for _, s := range w.servers {
			s.handle = func(s *script, p Packet) [][]byte {
				a := s.answer(p, AccessAccept)
				if user, _ := p.Lookup(UserName); string(user) == "slow" {
					time.AfterFunc(4*time.Second, func() { s.later(p, a) })
					return nil
				}
				return a
			}
		}
		slow, ada := w.request(AccessRequest, text(UserName, "slow"), msgAuth()), w.request(AccessRequest, text(UserName, "ada"), msgAuth())
		n.send(slow) // it keeps the proxy from ending
		if p := n.ask(ada); p.Code() != AccessAccept {
			t.Fatalf("%v", p.Code())
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := w.proxy.Shutdown(w.ctx); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if p := n.ask(ada); p.Code() != AccessAccept {
			t.Errorf("repeated while it shuts down: %v, dropped: %s", p.Code(), w.lastDropped())
		}
		if p := n.ask(w.request(AccessRequest, text(UserName, "bob"), msgAuth())); p.Code() != 0 || w.lastDropped() != reasonClosing {
			t.Errorf("a new request while it shuts down: %v", p.Code())
		}
		n.send(slow)
		if p := n.await(slow, 5*time.Second); p.Code() != AccessAccept {
			t.Errorf("what waited: %v", p.Code())
		}
		wg.Wait()
	})
}

// slowSpool is a Spool whose first Store takes long.
type slowSpool struct {
	mu     sync.Mutex
	calls  int
	stored []string
	err    error
}

func (s *slowSpool) Behind(Packet) bool { return false }

func (s *slowSpool) Store(r Record) error {
	id, _ := r.Packet.Lookup(AcctStatusType)
	s.mu.Lock()
	s.calls++
	first, err := s.calls == 1, s.err
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if first {
		time.Sleep(time.Second)
	}
	session, _ := r.Packet.Lookup(AcctSessionID)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored = append(s.stored, fmt.Sprintf("%s%d", session, id[3]))
	return nil
}

// The records of a session are stored in the order they came, though others aren't
// kept waiting; and what comes while one is being stored goes the same way, even if
// a server could take it by then.
func TestProxyStoresInOrder(t *testing.T) {
	spool := new(slowSpool)
	perform(t, func(w *theatre) { w.proxy.Spool = spool }, func(w *theatre) {
		n := w.nas(40000)
		record := func(session string, status byte) []byte {
			return w.request(AccountingRequest, text(UserName, "ada"), text(AcctSessionID, session), attr{AcctStatusType, []byte{0, 0, 0, status}})
		}
		pool := w.proxy.Balancer.Pool
		for _, s := range w.servers {
			if err := pool.Mark(s.name, lb.Down, "test"); err != nil {
				t.Fatal(err)
			}
		}
		n.send(record("s", 1))
		synctest.Wait()
		n.send(record("s", 3))
		n.send(record("other", 1))
		synctest.Wait()
		for _, s := range w.servers {
			if err := pool.Mark(s.name, lb.Up, ""); err != nil {
				t.Fatal(err)
			}
		}
		n.send(record("s", 2))
		n.send(record("third", 1))
		time.Sleep(2 * time.Second)
		spool.mu.Lock()
		if want := []string{"other1", "s1", "s3", "s2"}; !slices.Equal(spool.stored, want) {
			t.Errorf("stored %v, not %v", spool.stored, want)
		}
		spool.mu.Unlock()
		if w.total() != 1 {
			t.Errorf("%d records went to servers, and only that of the third session should", w.total())
		}
		for range 5 {
			if a := n.receive(time.Second); a == nil || Code(a[0]) != AccountingResponse {
				t.Fatal("a record wasn't answered")
			}
		}
	})
}

// A Spool that can't store is asked again now and then, not ten times a second.
func TestProxyOffersAgainAfterAWhile(t *testing.T) {
	spool := &slowSpool{err: errors.New("full")}
	perform(t, func(w *theatre) { w.proxy.Spool = spool }, func(w *theatre) {
		for _, s := range w.servers {
			s.hush(true)
		}
		n := w.nas(40000)
		n.send(w.request(AccountingRequest, text(AcctSessionID, "s"), attr{AcctStatusType, []byte{0, 0, 0, 1}}))
		time.Sleep(20 * time.Second)
		spool.mu.Lock()
		if spool.calls < 5 || spool.calls > 12 {
			t.Errorf("asked %d times in 20 seconds", spool.calls)
		}
		spool.err = nil
		spool.mu.Unlock()
		if a := n.receive(3 * time.Second); a == nil {
			t.Error("it isn't stored although there is room again")
		}
	})
}

// An answer that is asked for again and again doesn't keep others in memory.
func TestProxyForgetsBehindWhatIsRepeated(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		b := w.request(AccessRequest, text(UserName, "again"), msgAuth())
		n.ask(b)
		for i := range 20 {
			n.ask(w.request(AccessRequest, text(UserName, fmt.Sprint("user", i)), msgAuth()))
		}
		for range 8 {
			time.Sleep(5 * time.Second)
			n.ask(b)
		}
		if kept := w.proxy.Stats().Kept; kept != 1 {
			t.Errorf("%d answers are kept", kept)
		}
	})
}

// With one secret for all, what is signed well and has its Message-Authenticator
// first goes through as it is, nothing added and nothing taken away, under the
// Identifier of its client; and what can't, is signed anew.
func TestProxyWithOneSecret(t *testing.T) {
	key := attr{vendorSpecific, append([]byte{0, 0, 1, 55, msMPPERecvKey, 36}, bytes.Repeat([]byte{0x91}, 34)...)}
	perform(t, func(w *theatre) {
		w.server.Secret = clientSecret
		for _, s := range w.servers {
			s.secret = clientSecret
			s.handle = func(s *script, p Packet) [][]byte {
				user, _ := p.Lookup(UserName)
				switch {
				case string(user) == "waits":
					return nil
				case p.Code() == AccountingRequest:
					return s.answer(p, AccountingResponse, text(Class, "c"))
				case string(user) == "last":
					return s.answer(p, AccessAccept, key, text(Class, "c")) // with its Message-Authenticator last
				}
				return [][]byte{seal(build(AccessAccept, p.Identifier(), 0, msgAuth(), key, text(Class, "c")), s.secret, p.Authenticator())}
			}
		}
	}, func(w *theatre) {
		n, m := w.nas(40000), w.nas(40001)
		sent := func() []byte {
			w.mu.Lock()
			defer w.mu.Unlock()
			var last []byte
			for _, s := range w.servers {
				if len(s.requests) > 0 {
					last = s.requests[len(s.requests)-1]
				}
				s.requests = nil
			}
			return last
		}
		for name, attrs := range map[string][]attr{
			"first": {msgAuth(), text(UserName, "first"), {UserPassword, make([]byte, 16)}, text(ProxyState, "x")},
			"last":  {msgAuth(), text(UserName, "last"), {UserPassword, make([]byte, 16)}},
			"none":  {text(UserName, "none"), {UserPassword, make([]byte, 16)}},
			"after": {text(UserName, "after"), msgAuth(), {200, []byte{1}}},
		} {
			for range 3 { // at both servers
				b := w.request(AccessRequest, attrs...)
				p := n.ask(b)
				if p.Code() != AccessAccept || !slices.Equal(values(p, vendorSpecific), []string{string(key.v)}) || !slices.Equal(values(p, Class), []string{"c"}) {
					t.Errorf("%s: %v % x", name, p.Code(), p.Bytes())
				}
				got := sent()
				if attrs[0].t == MessageAuthenticator && !bytes.Equal(got, b) {
					t.Errorf("%s: % x was sent on as % x", name, b, got)
				}
				if q, _ := Parse(got); q.Identifier() != b[1] || q.Count(MessageAuthenticator) != 1 {
					t.Errorf("%s: % x was sent on as % x", name, b, got)
				}
			}
		}
		acct := w.request(AccountingRequest, text(UserName, "ada"), attr{AcctDelayTime, []byte{0, 0, 0, 1}})
		if p := n.ask(acct); p.Code() != AccountingResponse || !bytes.Equal(sent(), acct) {
			t.Errorf("accounting: %v", p.Code())
		}
		// Two clients use the same Identifiers, and each has its own answers.
		for i := range 20 {
			w.serials = 100
			n.send(w.request(AccessRequest, msgAuth(), text(UserName, "waits")))
			w.serials = 100
			b := w.request(AccessRequest, msgAuth(), text(UserName, fmt.Sprint("user", i)))
			if p := m.ask(b); p.Code() != AccessAccept {
				t.Errorf("user %d: %v", i, p.Code())
			}
		}
	})
}

// Accounting that moves is marked, and so signed anew, also where all have one
// secret.
func TestProxyMarksMovedAccountingWithOneSecret(t *testing.T) {
	perform(t, func(w *theatre) {
		w.server.Secret = clientSecret
		for _, s := range w.servers {
			s.secret = clientSecret
			s.handle = func(*script, Packet) [][]byte { return nil }
		}
	}, func(w *theatre) {
		n := w.nas(40000)
		b := w.request(AccountingRequest, text(UserName, "ada"), attr{AcctDelayTime, []byte{0, 0, 0, 7}})
		n.send(b)
		synctest.Wait()
		at := 0
		if w.processed()[1] > 0 {
			at = 1
		}
		w.mu.Lock()
		w.servers[1-at].handle = nil
		w.mu.Unlock()
		if err := w.proxy.Balancer.Pool.Mark(w.servers[at].name, lb.Down, "test"); err != nil {
			t.Fatal(err)
		}
		if p := n.await(b, 3*time.Second); p.Code() != AccountingResponse {
			t.Fatalf("%v", p.Code())
		}
		p, _ := Parse(w.servers[1-at].requests[0])
		if got := values(p, AcctDelayTime); !slices.Equal(got, []string{"\x00\x00\x00\x08"}) {
			t.Errorf("Acct-Delay-Time %q", got)
		}
	})
}

// A server whose accounting falls silent loses the accounting of new users within
// the time that detection takes, and nothing of its authentication.
func TestProxySilentAccounting(t *testing.T) {
	perform(t, func(w *theatre) {
		w.proxy.Suspect, w.proxy.Balancer.Picker = nil, nil
		w.servers[0].handle = func(s *script, p Packet) [][]byte {
			if p.Code() == AccountingRequest {
				return nil
			}
			return s.behave(p)
		}
	}, func(w *theatre) {
		n := w.nas(40000)
		begin, late := time.Now(), time.Duration(0)
		for i := range 40 {
			user := fmt.Sprint("user", i)
			if p := n.ask(w.request(AccessRequest, text(UserName, user), msgAuth())); p.Code() != AccessAccept {
				t.Errorf("%s: %v", user, p.Code())
			}
			b := w.request(AccountingRequest, text(UserName, fmt.Sprint("other", i)), text(AcctSessionID, user))
			for range 5 {
				n.send(b)
				if n.await(b, 2*time.Second).Code() == AccountingResponse {
					break
				}
				late = time.Since(begin)
			}
		}
		if late > 60*time.Second {
			t.Errorf("accounting was late until %v", late)
		}
		accepts := map[string]uint64{}
		for _, s := range w.proxy.Stats().Servers {
			if s.Port == 1812 {
				accepts[s.Name] = s.Accepts
				if s.Shunned > 0 {
					t.Errorf("authentication of %s was kept from users", s.Name)
				}
			}
		}
		if accepts["nps1"] < 10 || accepts["nps2"] < 10 {
			t.Errorf("accepts %v", accepts)
		}
	})
}
