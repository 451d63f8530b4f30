package radius

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// Accounting that goes to another server, after one that may have taken it, says
// so by its Acct-Delay-Time. Otherwise nothing of it is changed.
func TestProxyMarksMovedAccounting(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		delays := func(s *script) (out []string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, b := range s.requests {
				p, _ := Parse(b)
				out = append(out, fmt.Sprintf("% x", values(p, AcctDelayTime)))
			}
			return out
		}
		for i, attrs := range [][]attr{{{AcctDelayTime, []byte{0, 0, 0, 7}}}, nil} {
			for _, s := range w.servers {
				s.hush(false)
			}
			b := w.request(AccountingRequest, append(attrs, text(UserName, fmt.Sprint("user", i)), text(AcctSessionID, fmt.Sprint("s", i)))...)
			first := slices.IndexFunc(w.servers, func(s *script) bool { return true })
			for _, s := range w.servers { // takes it, and doesn't answer
				s.handle = func(*script, Packet) [][]byte { return nil }
			}
			n.send(b)
			synctest.Wait()
			for k, s := range w.servers {
				w.mu.Lock()
				if len(s.requests) > 0 {
					first = k
				}
				w.mu.Unlock()
			}
			if err := w.proxy.Balancer.Pool.Mark(w.servers[first].name, lb.Down, "test"); err != nil {
				t.Fatal(err)
			}
			w.mu.Lock()
			w.servers[1-first].handle = nil
			w.mu.Unlock()
			time.Sleep(3 * time.Second)
			if p := n.await(b, time.Second); p.Code() != AccountingResponse {
				t.Errorf("record %d: %v", i, p.Code())
			}
			was, is := delays(w.servers[first]), delays(w.servers[1-first])
			want := []string{"[00 00 00 07] to [00 00 00 08]", "[] to [00 00 00 01]"}[i]
			if got := was[len(was)-1] + " to " + is[len(is)-1]; got != want {
				t.Errorf("record %d: Acct-Delay-Time %s, not %s", i, got, want)
			}
			if err := w.proxy.Balancer.Pool.Mark(w.servers[first].name, lb.Up, ""); err != nil {
				t.Fatal(err)
			}
			w.mu.Lock()
			for _, s := range w.servers {
				s.requests = nil
			}
			w.mu.Unlock()
		}
	})
}

// A server that has as many requests under way as it may gets no new users, but
// goes on with those it has.
func TestProxyMaxOutstanding(t *testing.T) {
	perform(t, func(w *theatre) {
		w.server.MaxOutstanding = 5
		w.proxy.Silence = time.Hour
		for _, s := range w.servers {
			s.handle = func(s *script, p Packet) [][]byte {
				a := s.answer(p, AccessAccept)
				time.AfterFunc(2*time.Second, func() { s.later(p, a) })
				return nil
			}
		}
	}, func(w *theatre) {
		n := w.nas(40000)
		for i := range 10 {
			n.send(w.request(AccessRequest, text(UserName, fmt.Sprint("user", i)), msgAuth()))
			synctest.Wait()
		}
		if got := w.processed(); got[0] != 5 || got[1] != 5 {
			t.Errorf("10 requests went to %v", got)
		}
		// Both are full: who comes is served nevertheless.
		n.send(w.request(AccessRequest, text(UserName, "late"), msgAuth()))
		synctest.Wait()
		if w.total() != 11 {
			t.Errorf("%d of 11 were sent", w.total())
		}
		time.Sleep(3 * time.Second)
		for range 11 {
			if n.receive(time.Second) == nil {
				t.Fatal("a request wasn't answered")
			}
		}
	})
}

// With LeastOutstanding, who answers late gets less.
func TestProxySlowServer(t *testing.T) {
	perform(t, func(w *theatre) {
		w.proxy.Balancer.Picker = lb.LeastOutstanding{}
		w.servers[0].handle = func(s *script, p Packet) [][]byte {
			a := s.answer(p, AccessAccept)
			time.AfterFunc(400*time.Millisecond, func() { s.later(p, a) })
			return nil
		}
	}, func(w *theatre) {
		n := w.nas(40000)
		for i := range 200 {
			n.send(w.request(AccessRequest, text(UserName, fmt.Sprint("user", i)), msgAuth()))
			time.Sleep(20 * time.Millisecond)
		}
		if got := w.processed(); got[0]*4 > got[1] || got[0] == 0 {
			t.Errorf("of 200 requests the slow server had %d", got[0])
		}
	})
}

// What an administrator looks at: who fails and why, without names; how long
// answers take; and what sizes mean.
func TestProxySight(t *testing.T) {
	perform(t, func(w *theatre) {
		for _, s := range w.servers {
			s.handle = func(s *script, p Packet) [][]byte {
				user, _ := p.Lookup(UserName)
				switch {
				case strings.HasPrefix(string(user), "locked"):
					chap := append([]byte{0, 0, 1, 0x37, 2, 17, 1}, "E=647 R=0 V=3   "[:14]...)
					return s.answer(p, AccessReject, attr{vendorSpecific, chap})
				case strings.HasPrefix(string(user), "text"):
					return s.answer(p, AccessReject, text(ReplyMessage, "not\ntoday"))
				}
				return s.answer(p, AccessAccept)
			}
		}
	}, func(w *theatre) {
		n := w.nas(40000)
		for range 3 {
			n.ask(w.request(AccessRequest, text(UserName, "locked@corp.example"), msgAuth()))
		}
		n.ask(w.request(AccessRequest, text(UserName, "text@corp.example"), msgAuth()))
		big := []attr{text(UserName, "ada"), {framedMTU, []byte{0, 0, 5, 220}}, msgAuth()}
		for range 6 {
			big = append(big, attr{EAPMessage, append([]byte{2, 1, 5, 0x88}, make([]byte, 249)...)})
		}
		n.ask(w.request(AccessRequest, big...))
		s := w.proxy.Stats()
		if len(s.Failures) != 2 || s.Failures[0].Times != 3 || s.Failures[0].Reason != "rejected: account disabled" || s.Failures[1].Reason != "rejected: not?today" {
			t.Errorf("failures %+v", s.Failures)
		}
		for _, f := range s.Failures {
			if strings.Contains(f.User, "corp") || !strings.HasPrefix(f.User, "user-") || f.Client != "nas" {
				t.Errorf("%+v", f)
			}
		}
		c := s.Clients[0]
		if c.Rejects != 4 || c.Accepts != 1 || c.Latency.Count() != 5 || c.Sizes.Fragmented != 1 || c.Sizes.FramedMTU != 1500 {
			t.Errorf("%+v", c)
		}
		if a := strings.Join(c.Sizes.Advice(), "; "); !strings.Contains(a, "Framed-MTU of 1344") || !strings.Contains(a, "Framed-MTU of 1500") {
			t.Errorf("advice %q", a)
		}
	})
}

// A client's secret and the way to the servers change in mid-conversation: what
// waits is answered as it was asked, and what comes after goes the new way.
func TestProxyChangesInMidConversation(t *testing.T) {
	perform(t, func(w *theatre) {
		for _, s := range w.servers {
			s.handle = func(s *script, p Packet) [][]byte {
				a := s.behave(p)
				time.AfterFunc(time.Second, func() { s.later(p, a) })
				return nil
			}
		}
	}, func(w *theatre) {
		n := w.nas(40000)
		b := w.request(AccessRequest, eapAttrs("ada", "", "")...)
		n.send(b)
		synctest.Wait()
		changed := w.client
		changed.Secret = NewSecret([]byte("another one"))
		dials := 0
		server := w.server
		server.Dial = func(m *lb.Member, port uint16) (net.Conn, error) {
			dials++
			return w.dial(m, port)
		}
		if err := errors.Join(w.proxy.SetClients(changed), w.proxy.SetServers(server, nil)); err != nil {
			t.Fatal(err)
		}
		p := n.await(b, 3*time.Second) // by the secret that it came with
		if p.Code() != AccessChallenge || dials != 0 {
			t.Fatalf("%v, %d new links", p.Code(), dials)
		}
		state, _ := p.Lookup(State)
		w.client = changed
		b = w.request(AccessRequest, eapAttrs("ada", "", string(state))...)
		n.send(b)
		if p := n.await(b, 3*time.Second); p.Code() != AccessChallenge || dials != 1 {
			t.Errorf("the next round: %v, %d new links", p.Code(), dials)
		}
		// Who still uses the old secret is not answered, and that is counted.
		w.client.Secret = clientSecret
		n.send(w.request(AccessRequest, eapAttrs("bob", "", "")...))
		if n.receive(3*time.Second) != nil || w.proxy.Stats().Clients[0].BadAuthenticators != 1 {
			t.Errorf("the old secret: %+v", w.proxy.Stats().Clients[0])
		}
	})
}

// Two thousand requests at once, over the kernel's sockets: no more than one in a
// hundred gets lost.
func TestProxyBurst(t *testing.T) {
	const ports, each = 8, 250
	if b, err := os.ReadFile("/proc/sys/net/core/rmem_max"); err == nil && os.Geteuid() != 0 {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n < 4<<20 {
			t.Skipf("the kernel allows receive buffers of %d bytes only: net.core.rmem_max", n)
		}
	}
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Skip("no loopback:", err)
	}
	prepare(server)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer server.Close()
	wg.Go(func() {
		b := make([]byte, MaxLen)
		sign, k := newSigner(), newKey(serverSecret)
		for {
			n, from, err := server.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if p, err := Parse(b[:n]); err == nil {
				_, _ = server.WriteToUDPAddrPort(sign.short(nil, AccessAccept, p.Identifier(), k, p.Authenticator(), true), from)
			}
		}
	})
	pool := new(lb.Pool)
	if err := pool.Set(lb.Backend{Name: "nps1", Addr: netip.MustParseAddr("127.0.0.1")}); err != nil {
		t.Fatal(err)
	}
	back := server.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	p := &Proxy{Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}, AuthPort: back}
	if err := errors.Join(p.SetClients(Client{Name: "nas", Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Secret: clientSecret}),
		p.SetServers(Server{Secret: serverSecret}, nil)); err != nil {
		t.Fatal(err)
	}
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	at := front.LocalAddr().(*net.UDPAddr)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wg.Go(func() { _ = p.Serve(ctx, front) }) // it ends with ctx
	up := &Prober{Secret: clientSecret, Resend: 50 * time.Millisecond}
	if err := up.Probe(ctx, at.AddrPort()); err != nil {
		t.Fatal(err)
	}
	w := &theatre{t: t, client: Client{Secret: clientSecret}}
	answered := make([]int, ports)
	var clients sync.WaitGroup
	for i := range ports {
		var packets [][]byte
		for k := range each {
			packets = append(packets, w.requestID(AccessRequest, byte(k), text(UserName, fmt.Sprintf("user%d-%d", i, k)), msgAuth()))
		}
		clients.Go(func() {
			c, err := net.DialUDP("udp", nil, at)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			prepare(c)
			for _, b := range packets {
				_, _ = c.Write(b)
			}
			b := make([]byte, MaxLen)
			for answered[i] < each {
				_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
				n, err := c.Read(b)
				if err != nil {
					return
				}
				if q, err := Parse(b[:n]); err != nil || q.CheckAnswer(clientSecret, [16]byte(packets[q.Identifier()][4:20])) != nil {
					t.Errorf("a wrong answer: %v", err)
				}
				answered[i]++
			}
		})
	}
	clients.Wait()
	sum := 0
	for _, n := range answered {
		sum += n
	}
	if sum < ports*each*99/100 {
		t.Errorf("%d of %d were answered: %+v", sum, ports*each, p.Stats())
	}
}

// A flood of what isn't RADIUS, of wrong secrets and of strangers takes no memory and
// keeps nobody out.
func TestProxyFlood(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		forged := w.client
		forged.Secret = NewSecret([]byte("wrong"))
		good := w.client
		for i := range 3000 {
			b := binary.BigEndian.AppendUint64(nil, uint64(i)*0x9e3779b97f4a7c15)
			switch i % 3 {
			case 0:
				w.client = forged
				b = w.request(AccessRequest, eapAttrs(fmt.Sprint("user", i), "", "")...)
			case 1:
				b = setLen(append([]byte{1, byte(i)}, make([]byte, 30)...), 4097)
			}
			n.send(b)
			if i%200 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		w.client = good
		if s := w.proxy.Stats(); s.Waiting != 0 || s.Kept != 0 || w.total() != 0 || s.Clients[0].BadAuthenticators != 1000 {
			t.Errorf("%d wait, %d are kept, %d were sent on; %+v", s.Waiting, s.Kept, w.total(), s.Clients[0])
		}
		if _, err := w.converse("ada", "", n); err != nil {
			t.Error(err)
		}
	})
}

// With Class a name, accounting follows it, whatever else the NAS calls its user; in
// both modes.
func TestAccountingFollowsClass(t *testing.T) {
	perform(t, func(w *theatre) {
		w.proxy.Classifier.Class = true
		for _, s := range w.servers {
			s.handle = func(s *script, p Packet) [][]byte {
				if p.Code() == AccountingRequest {
					return s.answer(p, AccountingResponse)
				}
				user, _ := p.Lookup(UserName)
				return s.answer(p, AccessAccept, text(Class, "group"), text(Class, s.name+" "+string(user)), text(ReplyMessage, s.name))
			}
		}
	}, func(w *theatre) {
		n := w.nas(40000)
		for i := range 20 {
			p := n.ask(w.request(AccessRequest, text(UserName, fmt.Sprint("user", i)), msgAuth()))
			at, _ := p.Lookup(ReplyMessage)
			classes := values(p, Class)
			before := w.processed()
			n.ask(w.request(AccountingRequest, text(UserName, "else"), text(CallingStationID, fmt.Sprint(i)), text(AcctSessionID, fmt.Sprint("s", i)), text(Class, classes[0]), text(Class, classes[1])))
			after := w.processed()
			for k, s := range w.servers {
				if (after[k] > before[k]) != (s.name == string(at)) {
					t.Errorf("user %d: let in by %s, accounting: %v before, %v after", i, at, before, after)
				}
			}
		}
	})
	c := Classifier{Class: true}
	a := c.Answer(build(AccessAccept, 1, 0, text(Class, "x")), lb.Flow{})
	q := c.Classify(build(AccountingRequest, 2, 0, text(Class, "x"), text(UserName, "u")), lb.Flow{})
	if a.Keys[1].IsZero() || !slices.Contains(q.Keys[:], a.Keys[1]) {
		t.Errorf("the answer names %v, accounting %v", a.Keys, q.Keys)
	}
	if k := (Classifier{}).Classify(build(AccountingRequest, 2, 0, text(Class, "x")), lb.Flow{}); slices.Contains(k.Keys[:], a.Keys[1]) {
		t.Error("Class is a name although nobody said so")
	}
}

// A Message-Authenticator is added as long as there is room for it, both ways, and
// what has none for want of room passes as it is.
func TestProxyAddsWhatFits(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		fill := func(b []attr, have, size int) []attr {
			for ; have < size; have += len(b[len(b)-1].v) + 2 {
				k := min(size-have, 255)
				if size-have-k == 1 {
					k -= 2
				}
				b = append(b, attr{vendorSpecific, make([]byte, k-2)})
			}
			return b
		}
		size := 0
		for _, s := range w.servers {
			s.handle = func(s *script, p Packet) [][]byte {
				return [][]byte{seal(build(AccessAccept, p.Identifier(), 0, fill(nil, HeaderLen, size)...), s.secret, p.Authenticator())}
			}
		}
		n := w.nas(40000)
		for _, size = range []int{4000, MaxLen - 18, MaxLen - 17, MaxLen} {
			first := []attr{text(UserName, "ada")}
			b := w.request(AccessRequest, fill(first, len(build(AccessRequest, 0, 0, first...))+6, size)...)
			if len(b) != size {
				t.Fatalf("made %d bytes, not %d", len(b), size)
			}
			want := size
			if size <= MaxLen-18 {
				want += 18
			}
			if p := n.ask(b); p.Code() != AccessAccept || len(p.Bytes()) != want {
				t.Errorf("%d bytes: answered by %v of %d bytes, want %d", size, p.Code(), len(p.Bytes()), want)
			}
			for _, s := range w.servers {
				for _, r := range s.requests {
					if len(r) != want {
						t.Errorf("%d bytes were sent on as %d, want %d", size, len(r), want)
					}
				}
				s.requests = nil
			}
		}
	})
}

// A server's answer with EAP and without a Message-Authenticator is dropped, whatever
// its Response Authenticator is, and doesn't end the wait (RFC 3579 §3.2).
func TestProxyDropsBareEAPAnswers(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		for _, s := range w.servers {
			s.handle = func(s *script, p Packet) [][]byte {
				bare := seal(build(AccessChallenge, p.Identifier(), 0, text(State, "x"), attr{EAPMessage, []byte{1, 1, 0, 5, EAPPEAP}}), s.secret, p.Authenticator())
				return append([][]byte{bare}, s.behave(p)...)
			}
		}
		n := w.nas(40000)
		p := n.ask(w.request(AccessRequest, eapAttrs("ada", "", "")...))
		if state, _ := p.Lookup(State); p.Code() != AccessChallenge || string(state) == "x" {
			t.Errorf("answered by %v with State %q", p.Code(), state)
		}
		bad := uint64(0)
		for _, s := range w.proxy.Stats().Servers {
			bad += s.BadAuthenticators
		}
		if bad != 1 || len(w.suspects) > 0 {
			t.Errorf("%d counted, suspected: %v", bad, w.suspects)
		}
	})
}

// Two NASes number their sessions alike: the accounting of each goes to the server of
// its own user.
func TestProxySessionsOfTwoNASes(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		var nases []nasSocket
		for i := range 2 {
			nases = append(nases, nasSocket{w, w.listen(netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + i)}), 40000)})
		}
		ask := func(i int, c Code, attrs ...attr) (server string) {
			before := w.processed()
			b := w.request(c, attrs...)
			for at := HeaderLen; at < len(b); at += int(b[at+1]) { // each names itself
				if Type(b[at]) == NASIPAddress {
					b[at+5] = byte(10 + i)
				}
			}
			if c == AccountingRequest {
				clear(b[4:20])
				sum := Packet{b: b}.AccountingAuthenticator(clientSecret)
				copy(b[4:20], sum[:])
			} else {
				w.resign(b)
			}
			if p := nases[i].ask(b); p.Code() != AccessAccept && p.Code() != AccountingResponse {
				t.Errorf("NAS %d: answered by %v", i, p.Code())
			}
			if w.processed()[1] > before[1] {
				return "nps2"
			}
			return "nps1"
		}
		differ := 0
		for k := range 12 {
			session := text(AcctSessionID, fmt.Sprintf("%08x", k))
			var at [2]string
			for i := range at {
				at[i] = ask(i, AccessRequest, text(UserName, fmt.Sprintf("user%d-%d", i, k)), session, msgAuth())
			}
			for i := range at {
				if got := ask(i, AccountingRequest, session); got != at[i] {
					t.Errorf("session %d of NAS %d is at %s, its accounting went to %s", k, i, at[i], got)
				}
			}
			if at[0] != at[1] {
				differ++
			}
		}
		if differ == 0 {
			t.Error("no session of one number was at two servers: nothing was tested")
		}
	})
}

// A server that was silent gets new users again within ten seconds of its return, by
// its answers or by its probe alone.
func TestProxySilentServerReturns(t *testing.T) {
	perform(t, nil, func(w *theatre) {
		n := w.nas(40000)
		serve := func(from, to int) {
			for i := from; i < to; i++ {
				b := w.request(AccessRequest, text(UserName, fmt.Sprint("user", i)), msgAuth())
				for range 5 { // as a NAS repeats it
					n.send(b)
					if n.await(b, 2*time.Second).Code() == AccessAccept {
						break
					}
				}
			}
		}
		shunned := func() (times uint64) {
			for _, s := range w.proxy.Stats().Servers {
				times += s.Shunned
			}
			return times
		}
		w.servers[0].hush(true)
		serve(0, 30)
		if shunned() == 0 {
			t.Fatal("nobody noticed that a server is silent")
		}
		w.servers[0].hush(false)
		back, before := time.Now(), w.processed()[0]
		for i := 100; w.processed()[0] == before; i++ {
			if time.Since(back) > 10*time.Second {
				t.Fatal("it gets no new users ten seconds after it came back")
			}
			serve(i, i+1)
			time.Sleep(500 * time.Millisecond)
		}
		before = w.processed()[0]
		serve(200, 240)
		if got := w.processed()[0] - before; got < 10 {
			t.Errorf("it gets %d of 40 new users after it came back", got)
		}
	})
}

// wall is a link whose packets something on the way refuses.
type wall struct {
	net.Conn
	err error
}

func (w wall) Write([]byte) (int, error) { return 0, w.err }

// What tells at sending that a server can't be reached moves what waits for it at
// once, whichever ICMP message it was.
func TestProxyUnreachableWhenSending(t *testing.T) {
	for _, err := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH} {
		t.Run(err.Error(), func(t *testing.T) {
			perform(t, func(w *theatre) {
				w.server.Dial = func(m *lb.Member, port uint16) (net.Conn, error) {
					c, derr := w.dial(m, port)
					if derr == nil && m.Name == "nps1" {
						c = wall{c, os.NewSyscallError("sendmmsg", err)}
					}
					return c, derr
				}
			}, func(w *theatre) {
				n := w.nas(40000)
				for i := range 4 {
					n.send(w.request(AccessRequest, text(UserName, fmt.Sprintf("user%d", i))))
					if b := n.receive(time.Second); b == nil {
						t.Errorf("user%d waits", i)
					}
				}
				for _, s := range w.proxy.Stats().Servers {
					if s.Name == "nps1" && !s.Shuns {
						t.Errorf("nps1 isn't shunned: %+v", s)
					}
				}
			})
		})
	}
}
