package plugins

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// good returns a Deployment without a fault, made anew.
func good() *Deployment {
	return &Deployment{Name: "test", Sites: []Site{{
		Name: "hq",
		Pools: []Pool{
			{Name: "ras", Backends: []Backend{
				{Name: "ras1", Address: netip.MustParseAddr("10.0.1.11")},
				{Name: "ras2", Address: netip.MustParseAddr("10.0.1.12")},
			}, Checks: []Check{{Type: CheckIKEv2}, {Type: CheckSSTP, Expect: 401}}},
			{
				Name: "nps", Backends: []Backend{{Name: "nps1", Address: netip.MustParseAddr("10.0.2.11")}},
				Checks: []Check{{Type: CheckRADIUS, User: "ping", SecretFile: "/etc/secret"}},
			},
		},
		Groups: []Group{
			{Name: "vpn", Pool: "ras", Affinity: AffinitySPI, Listeners: []Listener{
				{Name: "ike", Protocol: ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:500")},
				{Name: "nat-t", Protocol: ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:4500")},
				{Name: "sstp", Protocol: ProtocolSSTP, Address: netip.MustParseAddrPort("192.0.2.1:443")},
			}},
			{Name: "nps", Pool: "nps", Listeners: []Listener{
				{Name: "auth", Protocol: ProtocolRADIUS, Address: netip.MustParseAddrPort("192.0.2.1:1812")},
			}},
		},
	}}}
}

func TestValidateGood(t *testing.T) {
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestValidateFaults(t *testing.T) {
	ap, ip := netip.MustParseAddrPort, netip.MustParseAddr
	tests := []struct {
		name  string
		spoil func(*Site)
		path  string // after sites[0].
		text  string
	}{
		{"site name", func(s *Site) { s.Name = "" }, "name", "a site needs a name"},
		{"bad name", func(s *Site) { s.Name = "a b" }, "name", `"a b" may hold only`},
		{"long name", func(s *Site) { s.Name = strings.Repeat("x", 64) }, "name", "64 characters"},
		{"no pools", func(s *Site) { s.Pools = nil }, "pools", "there is none"},
		{"no groups", func(s *Site) { s.Groups = nil }, "groups", "there is none"},
		{"pool twice", func(s *Site) { s.Pools[1].Name, s.Groups[1].Pool = "ras", "ras" }, "pools[1].name", "taken by sites[0].pools[0]"},
		{"backend twice", func(s *Site) { s.Pools[0].Backends[1].Name = "ras1" }, "pools[0].backends[1].name", "taken"},
		{"address twice", func(s *Site) { s.Pools[0].Backends[1].Address = ip("::ffff:10.0.1.11") }, "pools[0].backends[1].address", "is sites[0].pools[0].backends[0] already"},
		{"no address", func(s *Site) { s.Pools[0].Backends[1].Address = netip.Addr{} }, "pools[0].backends[1].address", "needed"},
		{"any address", func(s *Site) { s.Pools[0].Backends[1].Address = ip("0.0.0.0") }, "pools[0].backends[1].address", "any address"},
		{"multicast backend", func(s *Site) { s.Pools[0].Backends[1].Address = ip("ff02::1") }, "pools[0].backends[1].address", "single server"},
		{"no backends", func(s *Site) { s.Pools[1].Backends = nil }, "pools[1].backends", "there is none"},
		{"weight", func(s *Site) { s.Pools[0].Backends[0].Weight = new(70000) }, "pools[0].backends[0].weight", "70000 is not between 0 and 65535"},
		{"all weights 0", func(s *Site) { s.Pools[1].Backends[0].Weight = new(0) }, "pools[1].backends", "weight 0"},
		{"priority", func(s *Site) { s.Pools[0].Backends[0].Priority = -1 }, "pools[0].backends[0].priority", "-1"},
		{"max clients", func(s *Site) { s.Pools[0].Backends[0].MaxClients = -1 }, "pools[0].backends[0].max_clients", "-1"},
		{"admin", func(s *Site) { s.Pools[0].Backends[0].Admin = "off" }, "pools[0].backends[0].admin", `"off" is unknown, it can be enabled, draining or disabled`},
		{"picker", func(s *Site) { s.Pools[0].Picker = "random" }, "pools[0].picker", `"random"`},
		{"failback", func(s *Site) { s.Pools[0].Failback = "never" }, "pools[0].failback", `"never"`},
		{"need", func(s *Site) { s.Pools[0].Need = "two" }, "pools[0].need", `"two"`},
		{"delay missing", func(s *Site) { s.Pools[0].Failback = FailbackDelayed }, "pools[0].failback_delay", "needs it"},
		{"delay without", func(s *Site) { s.Pools[0].FailbackDelay = Duration(time.Minute) }, "pools[0].failback_delay", "only for"},
		{"slow start", func(s *Site) { s.Pools[0].SlowStart = -1 }, "pools[0].slow_start", "between 1s and 24h"},
		{"check type", func(s *Site) { s.Pools[0].Checks[0].Type = "ikve2" }, "pools[0].checks[0].type", `"ikve2" is unknown, it can be ikev2, sstp, radius, radsec, tcp, https or icmp`},
		{"no check type", func(s *Site) { s.Pools[0].Checks[0].Type = "" }, "pools[0].checks[0].type", "needs a type"},
		{"check twice", func(s *Site) { s.Pools[0].Checks[1].Type = CheckIKEv2; s.Pools[0].Checks[1].Expect = 0 }, "pools[0].checks[1].name", "taken"},
		{"check port", func(s *Site) { s.Pools[0].Checks[0].Port = 65536 }, "pools[0].checks[0].port", "65536"},
		{"tcp port", func(s *Site) { s.Pools[0].Checks[0].Type = CheckTCP }, "pools[0].checks[0].port", "needs it"},
		{"interval", func(s *Site) { s.Pools[0].Checks[0].Interval = 1 }, "pools[0].checks[0].interval", "1ns is not between"},
		{"timeout", func(s *Site) { s.Pools[0].Checks[0].Timeout = Duration(6 * time.Second) }, "pools[0].checks[0].timeout", "longer than the interval, 5s"},
		{"rise", func(s *Site) { s.Pools[0].Checks[0].Rise = 101 }, "pools[0].checks[0].rise", "101"},
		{"fall", func(s *Site) { s.Pools[0].Checks[0].Fall = -1 }, "pools[0].checks[0].fall", "-1"},
		{"useless field", func(s *Site) { s.Pools[0].Checks[0].User = "x" }, "pools[0].checks[0].user", "type ikev2 has no use for it, radius has"},
		{"expect", func(s *Site) { s.Pools[0].Checks[1].Expect = 4010 }, "pools[0].checks[1].expect", "4010"},
		{"plain verify", func(s *Site) {
			c := &s.Pools[0].Checks[1]
			c.PlainHTTP, c.VerifyTLS, c.Host = true, true, "vpn.example.com"
		}, "pools[0].checks[1].verify_tls", "no TLS"},
		{"sstp host", func(s *Site) { s.Pools[0].Checks[1].Host = "a/b" }, "pools[0].checks[1].host", "host name"},
		{"verify", func(s *Site) { s.Pools[0].Checks[1].VerifyTLS = true }, "pools[0].checks[1].host", "verify_tls"},
		{"all advisory", func(s *Site) { s.Pools[1].Checks[0].Advisory = true }, "pools[1].checks", "advisory"},
		{"radius long user", func(s *Site) { s.Pools[1].Checks[0].User = strings.Repeat("u", 254) }, "pools[1].checks[0].user", "253"},
		{"radius secret", func(s *Site) { s.Pools[1].Checks[0].SecretFile = "" }, "pools[1].checks[0].secret_file", "secret_file or secret_env"},
		{"secret itself", func(s *Site) { s.Pools[1].Checks[0].SecretFile, s.Pools[1].Checks[0].SecretEnv = "", "s3cret!" }, "pools[1].checks[0].secret_env", "isn't the name"},
		{"two secrets", func(s *Site) { s.Pools[1].Checks[0].SecretEnv = "X" }, "pools[1].checks[0].secret_env", "only one"},
		{"accounting authenticator", func(s *Site) { c := &s.Pools[1].Checks[0]; c.Accounting, c.RequireMessageAuthenticator = true, true }, "pools[1].checks[0].require_message_authenticator", "have none"},
		{"group twice", func(s *Site) { s.Groups[1].Name = "vpn" }, "groups[1].name", "taken"},
		{"no pool", func(s *Site) { s.Groups[0].Pool = "" }, "groups[0].pool", "needs a pool"},
		{"unknown pool", func(s *Site) { s.Groups[0].Pool = "rsa" }, "groups[0].pool", `no pool "rsa"`},
		{"affinity", func(s *Site) { s.Groups[0].Affinity = "cookie" }, "groups[0].affinity", `"cookie"`},
		{"spi without ikev2", func(s *Site) { s.Groups[1].Affinity = AffinitySPI }, "groups[1].affinity", "needs an ikev2 listener"},
		{"user without radius", func(s *Site) { s.Groups[0].Affinity = AffinityUser }, "groups[0].affinity", "needs a radius listener"},
		{"client address", func(s *Site) { s.Groups[0].ClientAddress = "snat" }, "groups[0].client_address", `"snat"`},
		{"idle", func(s *Site) { s.Groups[0].Idle = 5 }, "groups[0].idle", "5ns"},
		{"half open", func(s *Site) { s.Groups[0].HalfOpen = Duration(2 * time.Hour) }, "groups[0].half_open", "2h"},
		{"limits", func(s *Site) { s.Groups[0].Limits.MaxClients = -1 }, "groups[0].limits.max_clients", "-1"},
		{"limits contradict", func(s *Site) { s.Groups[0].Limits = Limits{MaxClients: 10, MaxPerSource: 20} }, "groups[0].limits.max_per_source", "more than max_clients"},
		{"no listeners", func(s *Site) { s.Groups[1].Listeners = nil }, "groups[1].listeners", "there is none"},
		{"listener twice", func(s *Site) { s.Groups[1].Listeners[0].Name = "ike" }, "groups[1].listeners[0].name", "taken"},
		{"protocol", func(s *Site) { s.Groups[0].Listeners[0].Protocol = "ike" }, "groups[0].listeners[0].protocol", `"ike" is unknown`},
		{"no protocol", func(s *Site) { s.Groups[0].Listeners[0].Protocol = "" }, "groups[0].listeners[0].protocol", "needs a protocol"},
		{"radius with ikev2", func(s *Site) {
			s.Groups[0].Listeners = append(s.Groups[0].Listeners, s.Groups[1].Listeners[0])
			s.Groups = s.Groups[:1]
		}, "groups[0].listeners[0].protocol", "can't share a group with radius"},
		{"same address", func(s *Site) { s.Groups[1].Listeners[0].Address = ap("192.0.2.1:500") }, "groups[1].listeners[0].address", "udp 192.0.2.1:500 is taken by sites[0].groups[0].listeners[0]"},
		{"wildcard", func(s *Site) { s.Groups[1].Listeners[0].Address = ap("[::]:500") }, "groups[1].listeners[0].address", "taken"},
		{"no listener address", func(s *Site) { s.Groups[0].Listeners[0].Address = netip.AddrPort{} }, "groups[0].listeners[0].address", "needs an address and port"},
		{"listener port 0", func(s *Site) { s.Groups[0].Listeners[0].Address = ap("192.0.2.1:0") }, "groups[0].listeners[0].address", "no port"},
		{"multicast listener", func(s *Site) { s.Groups[0].Listeners[0].Address = ap("224.0.0.1:500") }, "groups[0].listeners[0].address", "multicast"},
		{"loop", func(s *Site) { s.Groups[0].Listeners[0].Address = ap("10.0.1.11:500") }, "groups[0].listeners[0].address", "would send to itself"},
		{"backend port", func(s *Site) { s.Groups[0].Listeners[0].BackendPort = -3 }, "groups[0].listeners[0].backend_port", "-3"},
		{"workers", func(s *Site) { s.Groups[0].Listeners[0].Workers = 65 }, "groups[0].listeners[0].workers", "65"},
		{"tcp workers", func(s *Site) { s.Groups[0].Listeners[2].Workers = 2 }, "groups[0].listeners[2].workers", "over TCP"},
		{"udp proxy", func(s *Site) { s.Groups[0].Listeners[0].ProxyProtocol = ProxyV2 }, "groups[0].listeners[0].proxy_protocol", "over UDP"},
		{"proxy version", func(s *Site) { s.Groups[0].Listeners[2].ProxyProtocol = "v3" }, "groups[0].listeners[2].proxy_protocol", `"v3"`},
		{"proxy and transparent", func(s *Site) {
			s.Groups[0].ClientAddress = ClientAddressTransparent
			s.Groups[0].Listeners[2].ProxyProtocol = ProxyV2
		}, "groups[0].listeners[2].proxy_protocol", "already"},
		{"sstp idle", func(s *Site) { s.Groups[0].Listeners[2].IdleTimeout = Duration(time.Minute) }, "groups[0].listeners[2].idle_timeout", "more than 2m"},
		{"udp idle", func(s *Site) { s.Groups[0].Listeners[0].IdleTimeout = Duration(time.Minute) }, "groups[0].listeners[0].idle_timeout", "over UDP"},
		{"family", func(s *Site) {
			s.Groups[1].ClientAddress = ClientAddressTransparent
			s.Groups[1].Listeners[0].Address = ap("[2001:db8::1]:1812")
		}, "groups[1].listeners[0].address", "can't change the address family"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := good()
			tt.spoil(&d.Sites[0])
			all := FieldErrors(d.Validate())
			if len(all) != 1 {
				t.Errorf("%d faults, want 1: %v", len(all), all)
			}
			for _, e := range all {
				if e.Path == "sites[0]."+tt.path && strings.Contains(e.Err.Error(), tt.text) {
					return
				}
			}
			t.Errorf("no fault at %s with %q: %v", tt.path, tt.text, all)
		})
	}
}

func TestValidateAllAtOnce(t *testing.T) {
	d := good()
	d.Sites[0].Pools[0].Picker = "x"
	d.Sites[0].Groups[1].Pool = "y"
	d.Sites = append(d.Sites, Site{Name: "hq"})
	var paths []string
	for _, e := range FieldErrors(d.Validate()) {
		paths = append(paths, e.Path)
	}
	want := "sites[0].pools[0].picker sites[0].groups[1].pool sites[1].name sites[1].pools sites[1].groups"
	if got := strings.Join(paths, " "); got != want {
		t.Errorf("faults at %s, want %s", got, want)
	}
	if err := new(Deployment).Validate(); err == nil {
		t.Error("an empty deployment is valid")
	}
}

// Wildcards of different families, and different networks, don't compete.
func TestOverlap(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{
		{"10.0.0.1", "10.0.0.1", true},
		{"10.0.0.1", "10.0.0.2", false},
		{"0.0.0.0", "10.0.0.2", true},
		{"0.0.0.0", "2001:db8::1", false},
		{"::", "10.0.0.2", true},
		{"2001:db8::1", "::", true},
		{"::", "0.0.0.0", true},
	}
	for _, tt := range tests {
		if got := overlap(netip.MustParseAddr(tt.a), netip.MustParseAddr(tt.b)); got != tt.want {
			t.Errorf("overlap(%s, %s) = %v", tt.a, tt.b, got)
		}
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]string{"35m": "35m", "90s": "1m30s", "1h": "1h", "1h0m5s": "1h0m5s", "250ms": "250ms", "0s": "0s", "10m": "10m", "100h": "100h"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.String() != want {
			t.Errorf("%s: %v, %v; want %s", text, d, err, want)
		}
	}
	var d Duration
	if err := d.UnmarshalText([]byte("5")); err == nil {
		t.Error("5 without a unit is a duration")
	}
}

func TestSecret(t *testing.T) {
	t.Setenv("TEST_SECRET", "hush")
	if b, err := (Secret{Env: "TEST_SECRET"}).Read(); err != nil || string(b) != "hush" {
		t.Errorf("%q, %v", b, err)
	}
	for _, s := range []Secret{{}, {Env: "TEST_SECRET_UNSET"}, {File: t.TempDir()}, {File: t.TempDir() + "/none"}} {
		if _, err := s.Read(); err == nil {
			t.Errorf("%v was read", s)
		}
	}
}

func TestFieldErrorsOfOthers(t *testing.T) {
	got := FieldErrors(errors.New("other"))
	if len(got) != 1 || got[0].Path != "" || got[0].Err.Error() != "other" {
		t.Errorf("%v", got)
	}
}
