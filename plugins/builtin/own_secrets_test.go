package builtin

import (
	"context"
	"crypto/md5"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/radius"
)

// rejecter is a server that rejects what bears its secret, and discards all else.
func rejecter(t *testing.T, secret string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, radius.MaxLen)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			p, err := radius.Parse(b[:n])
			if err != nil || p.CheckRequest(radius.NewSecret([]byte(secret))) != nil {
				continue
			}
			auth := p.Authenticator()
			answer := append([]byte{byte(radius.AccessReject), p.Identifier(), 0, radius.HeaderLen}, auth[:]...)
			sum := md5.Sum(append(answer[:len(answer):len(answer)], secret...))
			copy(answer[4:], sum[:])
			c.WriteToUDPAddrPort(answer, from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// A check asks a server with the secret that a proxy has for it.
func TestChecksUseServersSecrets(t *testing.T) {
	t.Setenv("SECRET_OF_ALL", "common")
	t.Setenv("SECRET_OF_ONE", "its own")
	t.Setenv("SECRET_OF_NONE", "another")
	at := rejecter(t, "its own")
	group := func(mode plugins.RADIUSMode, backend, env string) plugins.Group {
		return plugins.Group{Pool: "nps", RADIUS: &plugins.RADIUS{
			Mode: mode, Servers: []plugins.RADIUSServer{{Backend: backend, SecretEnv: env}, {Backend: "gone", SecretEnv: env}},
		}, Listeners: []plugins.Listener{{Protocol: plugins.ProtocolRADIUS}}}
	}
	spec := plugins.Pool{
		Name:     "nps",
		Backends: []plugins.Backend{{Name: "nps1", Address: at.Addr()}, {Name: "nps2", Address: netip.MustParseAddr("127.0.0.2")}},
		Checks:   []plugins.Check{{Type: plugins.CheckRADIUS, SecretEnv: "SECRET_OF_ALL"}},
	}
	sums := make(map[[32]byte]bool)
	for _, tt := range []struct {
		name  string
		group plugins.Group
		alive bool
	}{
		{"its own", group(plugins.RADIUSProxy, "nps1", "SECRET_OF_ONE"), true},
		{"none", group(plugins.RADIUSProxy, "nps1", ""), false},
		{"another's", group(plugins.RADIUSProxy, "nps2", "SECRET_OF_ONE"), false},
		{"a wrong one", group(plugins.RADIUSProxy, "nps1", "SECRET_OF_NONE"), false},
	} {
		own, err := ownSecretsOf(&plugins.Site{Groups: []plugins.Group{tt.group}}, "sites[0]", &spec)
		if err != nil {
			t.Fatal(err)
		}
		set, err := checksOf(&spec, "sites[0].pools[0]", own)
		if err != nil {
			t.Fatal(err)
		}
		if sums[set.secrets] {
			t.Errorf("%s: a change isn't seen", tt.name)
		}
		sums[set.secrets] = true
		patience := 200 * time.Millisecond // for what is never answered
		if tt.alive {
			patience = 20 * time.Second
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err = set.list[0].Prober.Probe(ctx, at)
		cancel()
		if (err == nil) != tt.alive {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	missing := group(plugins.RADIUSProxy, "nps1", "SECRET_THAT_ISNT_SET")
	if _, err := ownSecretsOf(&plugins.Site{Groups: []plugins.Group{missing}}, "sites[0]", &spec); err == nil {
		t.Error("a secret that isn't there is no fault")
	}
}
