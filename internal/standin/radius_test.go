package standin

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"

	"github.com/aovlb/aovlb/radius"
)

// npsWorld runs two servers, a NAS that asks the first, and f, in a bubble of
// virtual time.
func npsWorld(t *testing.T, f func(ctx context.Context, n *network, servers [2]*NPS, nas *NAS)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		n := newNetwork()
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		var servers [2]*NPS
		for i := range servers {
			servers[i] = &NPS{Name: fmt.Sprintf("nps%d", i+1), Secret: testSecret, Users: map[string]string{"alice": "pw", "bob": "pw2"}}
			auth, acct := n.listen(t, fmt.Sprintf("10.2.0.%d:1812", i+1)), n.listen(t, fmt.Sprintf("10.2.0.%d:1813", i+1))
			wg.Go(func() { servers[i].Serve(ctx, auth, acct) })
		}
		nas := &NAS{Conn: n.listen(t, "10.0.0.1:40000"), Auth: netip.MustParseAddrPort("10.2.0.1:1812"), Acct: netip.MustParseAddrPort("10.2.0.1:1813"), Addr: netip.MustParseAddr("10.0.0.1"), Secret: testSecret}
		wg.Go(func() { nas.Run(ctx) })
		synctest.Wait()
		f(ctx, n, servers, nas)
		cancel()
		wg.Wait()
	})
}

func TestLogin(t *testing.T) {
	for name, tc := range map[string]struct {
		user     User
		accepted bool
		rounds   int
	}{
		"EAP":             {User{Name: "alice", Password: "pw"}, true, 4},
		"PAP":             {User{Name: "bob", Password: "pw2", PAP: true}, true, 0},
		"EAP, wrong":      {User{Name: "alice", Password: "no"}, false, 1},
		"PAP, wrong":      {User{Name: "bob", Password: "pw", PAP: true}, false, 0},
		"nobody's":        {User{Name: "mallory", Password: ""}, false, 1},
		"nobody's, PAP":   {User{Name: "mallory", Password: "", PAP: true}, false, 0},
		"EAP, lost twice": {User{Name: "alice", Password: "pw", Session: "lossy"}, true, 4},
	} {
		t.Run(name, func(t *testing.T) {
			npsWorld(t, func(ctx context.Context, n *network, servers [2]*NPS, nas *NAS) {
				if tc.user.Session == "lossy" {
					n.loseFirst(func(_, _ netip.AddrPort, _ []byte) bool { return true })
				}
				l, err := nas.Login(ctx, tc.user)
				if err != nil || l.Accepted != tc.accepted || l.Rounds != tc.rounds {
					t.Fatalf("login %+v, %v; want accepted %t after %d rounds", l, err, tc.accepted, tc.rounds)
				}
				if !l.Accepted {
					return
				}
				for _, status := range []rfc2866.AcctStatusType{rfc2866.AcctStatusType_Value_Start, rfc2866.AcctStatusType_Value_Stop} {
					if err := nas.Account(ctx, tc.user, l, status); err != nil {
						t.Error(err)
					}
				}
				if s := servers[0].Sessions(); len(s) != 1 || s[0].Client != tc.user.Name || s[0].Packets != 2 || s[0].Ended.IsZero() {
					t.Errorf("sessions %+v; want one with start and stop", s)
				}
				if c := servers[0].Counts(); c.Bad+c.UnknownState+c.ForeignAccounting != 0 || nas.Forged() != 0 {
					t.Errorf("counts %+v, %d forged", c, nas.Forged())
				}
			})
		})
	}
}

// A conversation that is moved to another server is met with silence, and
// accounting there is seen to be another's.
func TestNPSNoticesSplits(t *testing.T) {
	npsWorld(t, func(ctx context.Context, _ *network, servers [2]*NPS, nas *NAS) {
		u := User{Name: "alice", Password: "pw"}
		l, err := nas.Login(ctx, u)
		if err != nil {
			t.Fatal(err)
		}
		nas.Acct = netip.MustParseAddrPort("10.2.0.2:1813")
		if err := nas.Account(ctx, u, l, rfc2866.AcctStatusType_Value_Start); err != nil {
			t.Error(err)
		}
		p := nas.request(layeh.CodeAccessRequest, u)
		rfc2865.State_Set(p, []byte("from elsewhere"))
		proof := eapPacket(eapResponse, 1, append([]byte{eapMethod, 1}, make([]byte, 32)...))
		p.Add(79, proof)
		if _, repeats, err := nas.exchange(ctx, nas.Auth, p); err == nil || repeats != 2 {
			t.Errorf("answered after %d repeats, %v; want silence", repeats, err)
		}
		if c := servers[0].Counts(); c.UnknownState != 3 {
			t.Errorf("counts %+v; want 3 unknown States", c)
		}
		if c := servers[1].Counts(); c.ForeignAccounting != 1 {
			t.Errorf("counts %+v; want foreign accounting", c)
		}
	})
}

func TestNPSDiscards(t *testing.T) {
	s := &NPS{Name: "nps1", Secret: testSecret, Users: map[string]string{"alice": "pw"}}
	s.begin()
	nas := &NAS{Secret: testSecret, Addr: netip.MustParseAddr("10.0.0.1")}
	from := netip.MustParseAddrPort("10.0.0.1:40000")
	u := User{Name: "alice"}
	unsigned := nas.request(layeh.CodeAccessRequest, u)
	unsigned.Add(79, eapPacket(eapResponse, 0, []byte{eapIdentity, 'a', 'l', 'i', 'c', 'e'}))
	b1, _ := unsigned.Encode()
	b2, _ := encodeSigned(unsigned)
	b2[len(b2)-1] ^= 1
	other := &NAS{Secret: []byte("another secret"), Addr: nas.Addr}
	b3, _ := encodeSigned(other.request(layeh.CodeAccessRequest, u))
	b4, _ := other.request(layeh.CodeAccountingRequest, u).Encode()
	for name, tc := range map[string]struct {
		b    []byte
		want layeh.Code
	}{
		"EAP without Message-Authenticator": {b1, layeh.CodeAccessRequest},
		"changed on the way":                {b2, layeh.CodeAccessRequest},
		"wrong secret":                      {b3, layeh.CodeAccessRequest},
		"accounting, wrong secret":          {b4, layeh.CodeAccountingRequest},
		"accounting on the other port":      {b4, layeh.CodeAccessRequest},
		"cut off":                           {b1[:25], layeh.CodeAccessRequest},
	} {
		was := s.Counts().Bad
		if a := s.handle(tc.b, from, tc.want); a != nil || s.Counts().Bad != was+1 {
			t.Errorf("%s: answered %x, counts %+v", name, a, s.Counts())
		}
	}
}

// A repeated request gets the same answer, and isn't processed again.
func TestNPSAnswersRepeatsFromMemory(t *testing.T) {
	s := &NPS{Name: "nps1", Secret: testSecret, Users: map[string]string{"alice": "pw"}}
	s.begin()
	nas := &NAS{Secret: testSecret, Addr: netip.MustParseAddr("10.0.0.1")}
	p := nas.request(layeh.CodeAccessRequest, User{Name: "alice"})
	p.Add(79, eapPacket(eapResponse, 0, []byte{eapIdentity, 'a', 'l', 'i', 'c', 'e'}))
	b, err := encodeSigned(p)
	if err != nil {
		t.Fatal(err)
	}
	if q, err := radius.Parse(b); err != nil || q.Code() != radius.AccessRequest || q.Count(radius.MessageAuthenticator) != 1 {
		t.Errorf("package radius sees %v, %v", q.Code(), err)
	}
	from := netip.MustParseAddrPort("10.0.0.1:40000")
	first, again := s.handle(b, from, layeh.CodeAccessRequest), s.handle(b, from, layeh.CodeAccessRequest)
	elsewhere := s.handle(b, netip.MustParseAddrPort("10.0.0.1:40001"), layeh.CodeAccessRequest)
	if first == nil || string(first) != string(again) || string(first) == string(elsewhere) {
		t.Error("a repeated request must have the same answer, one from another port its own")
	}
	if c := s.Counts(); c.Challenges != 2 || c.Repeats != 1 {
		t.Errorf("counts %+v; want 2 challenges and 1 repeat", c)
	}
}

func FuzzNPS(f *testing.F) {
	nas := &NAS{Secret: testSecret, Addr: netip.MustParseAddr("10.0.0.1")}
	p := nas.request(layeh.CodeAccessRequest, User{Name: "alice"})
	p.Add(79, eapPacket(eapResponse, 0, []byte{eapIdentity, 'a', 'l', 'i', 'c', 'e'}))
	b, err := encodeSigned(p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, true)
	f.Add(b[:30], false)
	f.Fuzz(func(t *testing.T, b []byte, auth bool) {
		s := &NPS{Name: "nps1", Secret: testSecret, Users: map[string]string{"alice": "pw"}}
		s.begin()
		want := layeh.CodeAccountingRequest
		if auth {
			want = layeh.CodeAccessRequest
			if q, err := layeh.Parse(b, testSecret); err == nil && q.Code == want {
				// Mutations of signed requests would all fail at the signature.
				if signed, err := encodeSigned(q); err == nil {
					b = signed
				}
			}
		}
		if a := s.handle(b, netip.MustParseAddrPort("10.0.0.1:40000"), want); a != nil {
			if _, ok := nas.check(a, b); !ok {
				t.Errorf("answer %x isn't signed", a)
			}
		}
	})
}

// NAS with many users at once: 256 Identifiers must do.
func TestNASManyUsers(t *testing.T) {
	npsWorld(t, func(ctx context.Context, _ *network, servers [2]*NPS, nas *NAS) {
		nas.Think = time.Second
		servers[0].mu.Lock()
		for i := range 200 {
			servers[0].Users[fmt.Sprint("user", i)] = "pw"
		}
		servers[0].mu.Unlock()
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond) // the sockets hold 64
				if l, err := nas.Login(ctx, User{Name: fmt.Sprint("user", i), Password: "pw"}); err != nil || !l.Accepted {
					t.Errorf("user %d: %+v, %v", i, l, err)
				}
			})
		}
		wg.Wait()
		if c := servers[0].Counts(); c.Accepts != 200 || c.Challenges != 800 {
			t.Errorf("counts %+v", c)
		}
	})
}
