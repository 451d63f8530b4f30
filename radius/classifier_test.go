package radius

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/aovlb/aovlb/lb"
)

var nasFlow = lb.Flow{Client: netip.MustParseAddrPort("192.0.2.10:50000"), Service: 1812}

func msgAuth() attr { return attr{MessageAuthenticator, make([]byte, 16)} }

func TestClassifyDrops(t *testing.T) {
	eap := attr{EAPMessage, []byte{2, 1, 0, 5, 1}}
	name := text(UserName, "ada")
	padded := append(build(AccessRequest, 1, 1, name), 1, 2, 3)
	tests := []struct {
		name   string
		c      Classifier
		b      []byte
		reason string
	}{
		{"request", Classifier{}, build(AccessRequest, 1, 1, name), ""},
		{"padding", Classifier{}, padded, ""},
		{"no attributes", Classifier{}, build(AccessRequest, 1, 1), ""},
		{"accounting", Classifier{}, build(AccountingRequest, 1, 1, name), ""},
		{"EAP", Classifier{}, build(AccessRequest, 1, 1, name, eap, msgAuth()), ""},
		{"cut off", Classifier{}, padded[:20], reasonShort},
		{"empty", Classifier{}, nil, reasonShort},
		{"zeros", Classifier{}, make([]byte, 64), reasonLength},
		{"attribute", Classifier{}, build(AccessRequest, 1, 1, name)[:24], reasonShort},
		{"EAP without Message-Authenticator", Classifier{}, build(AccessRequest, 1, 1, name, eap), reasonNoMessage},
		{"empty EAP without Message-Authenticator", Classifier{}, build(AccessRequest, 1, 1, attr{EAPMessage, nil}), reasonNoMessage},
		{"short Message-Authenticator", Classifier{}, build(AccessRequest, 1, 1, attr{MessageAuthenticator, make([]byte, 15)}), reasonMessage},
		{"two Message-Authenticators", Classifier{}, build(AccessRequest, 1, 1, msgAuth(), msgAuth()), reasonMessage},
		{"bad Message-Authenticator in accounting", Classifier{}, build(AccountingRequest, 1, 1, attr{MessageAuthenticator, nil}), reasonMessage},
		{"required, missing", Classifier{RequireMessageAuthenticator: true}, build(AccessRequest, 1, 1, name), reasonRequire},
		{"required, there", Classifier{RequireMessageAuthenticator: true}, build(AccessRequest, 1, 1, msgAuth(), name), ""},
		{"required, accounting", Classifier{RequireMessageAuthenticator: true}, build(AccountingRequest, 1, 1, name), ""},
		{"Status-Server", Classifier{}, build(StatusServer, 1, 1, msgAuth()), reasonStatus},
		{"accept", Classifier{}, build(AccessAccept, 1, 1), reasonReply},
		{"challenge", Classifier{}, build(AccessChallenge, 1, 1), reasonReply},
		{"accounting response", Classifier{}, build(AccountingResponse, 1, 1), reasonReply},
		{"CoA", Classifier{}, build(CoARequest, 1, 1), reasonChange},
		{"disconnect", Classifier{}, build(DisconnectRequest, 1, 1), reasonChange},
		{"unknown", Classifier{}, build(99, 1, 1), reasonCode},
		{"auth on its port", Classifier{AuthPort: 1812, AcctPort: 1813}, build(AccessRequest, 1, 1, name), ""},
		{"accounting on the port of auth", Classifier{AuthPort: 1812, AcctPort: 1813}, build(AccountingRequest, 1, 1, name), reasonPort},
		{"auth on the port of accounting", Classifier{AuthPort: 1813}, build(AccessRequest, 1, 1, name), reasonPort},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := tt.c.Classify(tt.b, nasFlow)
			if v.Drop != (tt.reason != "") || v.Reason != tt.reason {
				t.Errorf("drop %v, %q; want %q", v.Drop, v.Reason, tt.reason)
			}
			if !v.Drop && (v.Exchange != 2 || v.Pick.IsZero()) {
				t.Errorf("got %+v", v)
			}
		})
	}
}

func TestAnswerDrops(t *testing.T) {
	eap := attr{EAPMessage, []byte{1, 1, 0, 5, 1}}
	tests := []struct {
		name   string
		b      []byte
		reason string
		stage  lb.Stage
	}{
		{"accept", build(AccessAccept, 1, 1), "", lb.StageEstablished},
		{"reject", build(AccessReject, 1, 1), "", lb.StageHalfOpen},
		{"challenge", build(AccessChallenge, 1, 1, text(State, "s"), eap, msgAuth()), "", lb.StageEstablished},
		{"accounting", build(AccountingResponse, 1, 1), "", lb.StageEstablished},
		{"EAP without Message-Authenticator", build(AccessChallenge, 1, 1, eap), reasonNoMessage, 0},
		{"bad Message-Authenticator", build(AccessAccept, 1, 1, attr{MessageAuthenticator, nil}), reasonMessage, 0},
		{"request", build(AccessRequest, 1, 1), reasonBackend, 0},
		{"CoA", build(CoARequest, 1, 1), reasonBackend, 0},
		{"garbage", []byte("garbage"), reasonShort, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := Classifier{}.Answer(tt.b, nasFlow)
			if v.Drop != (tt.reason != "") || v.Reason != tt.reason || v.Stage != tt.stage {
				t.Errorf("drop %v, %q, %v; want %q, %v", v.Drop, v.Reason, v.Stage, tt.reason, tt.stage)
			}
			if !v.Drop && v.Exchange != 2 {
				t.Errorf("exchange %d", v.Exchange)
			}
		})
	}
}

func TestNames(t *testing.T) {
	classify := func(c Classifier, code Code, auth byte, attrs ...attr) lb.Verdict {
		t.Helper()
		v := c.Classify(build(code, 1, auth, attrs...), nasFlow)
		if v.Drop {
			t.Fatal(v.Reason)
		}
		return v
	}
	ada, grace := text(UserName, "ada"), text(UserName, "grace")
	home, office := text(CallingStationID, "198.51.100.7"), text(CallingStationID, "203.0.113.9")
	anon := text(UserName, "anonymous@example.org")
	session := text(AcctSessionID, "17")
	port := attr{NASPort, []byte{0, 0, 0, 3}}
	none := Classifier{}

	same := func(what string, want bool, a, b lb.Key) {
		t.Helper()
		if (a == b) != want {
			t.Errorf("%s: %v and %v, want them equal: %v", what, a, b, want)
		}
	}
	auth := classify(none, AccessRequest, 1, ada, home, session)
	acct := classify(none, AccountingRequest, 2, ada, home, session)
	same("auth and accounting are picked for alike", true, auth.Pick, acct.Pick)
	same("auth and accounting share the user", true, auth.Keys[2], acct.Keys[1])
	same("auth and accounting share the session", true, auth.Keys[1], acct.Keys[0])
	same("auth and accounting share the NAS's session", true, auth.Keys[3], acct.Keys[2])

	same("station beats name", true, auth.Pick, classify(none, AccessRequest, 1, grace, home).Pick)
	same("stations differ", false, auth.Pick, classify(none, AccessRequest, 1, ada, office).Pick)
	same("names count without a station", false, classify(none, AccessRequest, 1, ada).Pick, classify(none, AccessRequest, 1, grace).Pick)
	both, name := Classifier{User: ByStationAndName}, Classifier{User: ByName}
	same("both: names differ", false, classify(both, AccessRequest, 1, ada, home).Pick, classify(both, AccessRequest, 1, grace, home).Pick)
	same("both: stations differ", false, classify(both, AccessRequest, 1, ada, home).Pick, classify(both, AccessRequest, 1, ada, office).Pick)
	same("name: stations don't count", true, classify(name, AccessRequest, 1, ada, home).Pick, classify(name, AccessRequest, 1, ada, office).Pick)
	same("name: station if anonymous", false, classify(name, AccessRequest, 1, anon, home).Pick, classify(name, AccessRequest, 1, anon, office).Pick)

	same("anonymous users are told apart by port", true, classify(none, AccessRequest, 1, anon, port).Pick, classify(none, AccountingRequest, 9, anon, port).Pick)
	same("anonymous users without a port are single requests", false, classify(none, AccessRequest, 1, anon).Pick, classify(none, AccessRequest, 2, anon).Pick)
	same("a repetition is the same", true, classify(none, AccessRequest, 1, anon).Pick, classify(none, AccessRequest, 1, anon).Pick)
	same("a NAS speaking of itself", true, classify(none, AccountingRequest, 1).Pick, classify(none, AccountingRequest, 2).Pick)
	same("a session of another user has the same number", false,
		classify(none, AccountingRequest, 1, ada, session).Keys[0], classify(none, AccountingRequest, 1, grace, session).Keys[0])

	state := text(State, "same")
	first := classify(none, AccessRequest, 1, ada, state)
	if first.Begin || first.Miss != lb.MissPick || !auth.Begin || !acct.Begin {
		t.Error("what begins and what continues is mixed up")
	}
	same("State of the same user", true, first.Keys[0], classify(none, AccessRequest, 5, ada, state).Keys[0])
	same("State of another user", false, first.Keys[0], classify(none, AccessRequest, 1, grace, state).Keys[0])
	same("State of another station", false, first.Keys[0], classify(none, AccessRequest, 1, ada, home, state).Keys[0])
	same("State of another NAS", false, first.Keys[0], classify(none, AccessRequest, 1, ada, state, text(NASIdentifier, "nas2")).Keys[0])
	ans := none.Answer(build(AccessChallenge, 1, 1, state), nasFlow)
	same("State of the answer, in the scope of the request", true, first.Keys[0], ans.Keys[0].In(first.Scope))
	same("the scope doesn't depend on State", true, first.Scope, classify(none, AccessRequest, 3, ada).Scope)
}

func TestAnonymous(t *testing.T) {
	for name, want := range map[string]bool{
		"": true, "anonymous": true, "Anonymous@example.org": true, "@example.org": true, `CORP\anonymous`: true, `CORP\`: true,
		"ada": false, "ada@example.org": false, `CORP\ada`: false, "anonymously": false, "host/pc1.example.org": false,
	} {
		if got := anonymous([]byte(name)); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

// big returns a request like those of a PEAP conversation, of about 1.4 kB.
func big() []byte {
	attrs := []attr{
		msgAuth(), text(UserName, `CORP\ada.lovelace`), text(CallingStationID, "198.51.100.7"), text(CalledStationID, "vpn.example.org"),
		{NASIPAddress, []byte{10, 0, 1, 11}},
		{NASPort, []byte{0, 0, 0, 4}},
		text(AcctSessionID, "1234"),
		text(State, "0123456789abcdef0123456789abcdef"),
	}
	for range 5 {
		attrs = append(attrs, attr{EAPMessage, bytes.Repeat([]byte{7}, 253)})
	}
	return build(AccessRequest, 1, 1, attrs...)
}

func TestClassifierDoesNotAllocate(t *testing.T) {
	var c lb.Classifier = Classifier{}
	req, ans := big(), build(AccessChallenge, 1, 1, text(State, "0123456789abcdef"), msgAuth())
	acct, bad := build(AccountingRequest, 1, 1, text(UserName, "ada"), text(AcctSessionID, "7")), []byte("bad")
	first := build(AccessRequest, 1, 1, text(UserName, "anonymous"))
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range [][]byte{req, acct, bad, first} {
			c.Classify(b, nasFlow)
		}
		c.Answer(ans, nasFlow)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzClassifier(f *testing.F) {
	f.Add(big())
	f.Add(build(AccountingRequest, 1, 1, text(UserName, "ada"), text(AcctSessionID, "7")))
	f.Add(build(AccessChallenge, 1, 1, text(State, "0123456789abcdef"), msgAuth()))
	f.Add(build(StatusServer, 1, 1, msgAuth()))
	f.Fuzz(func(t *testing.T, b []byte) {
		was := bytes.Clone(b)
		for _, c := range []Classifier{{}, {User: ByStationAndName, RequireMessageAuthenticator: true}, {User: ByName}} {
			v, a := c.Classify(b, nasFlow), c.Answer(b, nasFlow)
			for _, x := range []lb.Verdict{v, a} {
				if x.Drop != (x.Reason != "") || (x.Drop && x != drop(x.Reason)) || (!x.Drop && x.Exchange == 0) {
					t.Fatalf("%+v", x)
				}
			}
			if !v.Drop && !a.Drop {
				t.Fatal("both a request and an answer")
			}
			if !v.Drop && (v.Pick.IsZero() || v.Keys == [lb.MaxKeys]lb.Key{}) {
				t.Fatalf("nobody: %+v", v)
			}
			if v != c.Classify(b, nasFlow) {
				t.Fatal("classified differently again")
			}
		}
		if !bytes.Equal(b, was) {
			t.Fatal("the datagram was changed")
		}
	})
}

func BenchmarkClassify(b *testing.B) {
	for name, req := range map[string][]byte{
		"eap":  big(),
		"pap":  build(AccessRequest, 1, 1, text(UserName, "ada"), attr{UserPassword, make([]byte, 16)}, msgAuth()),
		"acct": build(AccountingRequest, 1, 1, text(UserName, "ada"), text(AcctSessionID, "7")),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var c Classifier
			for b.Loop() {
				c.Classify(req, nasFlow)
			}
		})
	}
}

func BenchmarkAnswer(b *testing.B) {
	ans := build(AccessChallenge, 1, 1, text(State, "0123456789abcdef"), attr{EAPMessage, make([]byte, 253)}, msgAuth())
	b.ReportAllocs()
	var c Classifier
	for b.Loop() {
		c.Answer(ans, nasFlow)
	}
}
