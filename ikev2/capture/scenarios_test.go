package capture_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A scenario is something that happened between a client and a gateway, and what
// is to be found in the captures of it.
type scenario struct {
	name string
	// how says how it was made; it ends up in the README of the captures.
	how string
	// bits are the length of the certificates' keys; 0 means 2048.
	bits  int
	views []view
}

// A view is one place where a scenario was captured.
type view struct {
	from string // client, gateway or balancer; empty if there is only one
	// want are the findings that are more than information, in order.
	want []string
	// info are findings that must be there besides.
	info []string
}

func (v view) file(name string) string {
	if v.from == "" {
		return name + ".pcap"
	}
	return name + "-" + v.from + ".pcap"
}

func healthy(info ...string) []view { return []view{{info: info}} }
func faulty(want ...string) []view  { return []view{{want: want}} }

var scenarios = []scenario{
	{name: "eap", how: "EAP-MSCHAPv2, RFC 7383 on", views: healthy()},
	{name: "certificate-fragments", bits: 4096, how: "certificates with RSA-4096 keys and an intermediate on both sides, RFC 7383 on: IKE_AUTH in SKF", views: healthy()},
	{name: "certificate-ip-fragments", bits: 4096, how: "the same with RFC 7383 off on both sides: IKE_AUTH in IP fragments, which arrive", views: healthy("ip-fragments")},
	{name: "nat", how: "a client behind a NAT router that changes ports, seen at the gateway", views: []view{{from: "gateway"}}},
	{name: "ipv6", bits: 4096, how: "certificates over IPv6", views: healthy()},
	{name: "ipv6-ip-fragments", bits: 4096, how: "certificates over IPv6 with RFC 7383 off: IPv6 fragments, which arrive", views: healthy("ip-fragments")},
	{name: "start-on-4500", how: "a client that begins on UDP 4500", views: healthy()},
	{name: "cookie", how: "a gateway that asks for cookies (cookie_threshold=1) because another client is half-open", views: healthy("cookie")},
	{name: "invalid-ke", how: "a client that guesses ECP-256 first, a gateway that wants MODP-2048", views: healthy("invalid-ke")},
	{name: "mobike", how: "the client changes its address while connected", views: healthy("moved")},
	{name: "rekey-by-client", how: "the client renews the IKE SA", views: healthy()},
	{name: "rekey-by-gateway", how: "the gateway renews the IKE SA", views: healthy()},
	{name: "rekey-child", how: "the client renews the child SA", views: healthy()},
	{name: "dpd", how: "a client with dead peer detection every second, and NAT keepalives", views: healthy()},
	{name: "delete-by-gateway", how: "the gateway ends the session", views: healthy()},
	{name: "two-tunnels", how: "a device tunnel (certificate) and a user tunnel (EAP) of one computer over one flow", views: healthy()},
	{name: "balancer", how: "seen at a balancer by DNAT on all its interfaces (Linux cooked v2): each packet twice", views: healthy()},
	{name: "no-proposal", how: "a client that offers only MODP-1024, a gateway that wants AES-256-GCM with ECP-384", views: faulty("no-proposal")},
	{name: "weak-suite", how: "3DES, SHA-1 and MODP-1024 on both sides", views: faulty("weak-suite")},
	{name: "fragmentation-one-side", bits: 4096, how: "RFC 7383 on at the client and off at the gateway", views: faulty("fragmentation-one-side")},
	{name: "fragments-dropped", bits: 4096, how: "RFC 7383 on at the client and off at the gateway, and a router that drops all IP fragments but the first", views: []view{
		{from: "client", want: []string{"auth-ip-fragments"}}, {from: "gateway", want: []string{"auth-ip-fragments"}},
	}},
	{name: "ike-fragment-lost", bits: 4096, how: "RFC 7383 on, and a router that drops datagrams to UDP 4500 over 1200 octets", views: []view{
		{from: "client", want: []string{"auth-unanswered"}}, {from: "gateway", want: []string{"ike-fragments-missing"}},
	}},
	{name: "never-4500", how: "a router that drops UDP 4500", views: []view{
		{from: "client", want: []string{"auth-unanswered"}}, {from: "gateway", want: []string{"never-4500"}},
	}},
	{name: "no-answer", how: "a router that drops UDP 500", views: faulty("no-answer")},
	{name: "closed", how: "a gateway without IKE: ICMP port unreachable", views: faulty("port-unreachable")},
	{name: "prohibited", how: "a router that rejects UDP 500: ICMP administratively prohibited", views: faulty("prohibited")},
	{name: "wrong-gateway", how: "a balancer that sends UDP 500 to one gateway and 4500 to another; at the balancer on all interfaces (Linux cooked v2)", views: []view{
		{from: "client", want: []string{"auth-unanswered"}}, {from: "balancer", want: []string{"split-gateways"}},
	}},
	{name: "bad-password", how: "EAP with a user the gateway doesn't know", views: faulty("auth-refused")},
	{name: "eap-stopped", how: "EAP with a client that has no password, and breaks off when it is asked for one", views: faulty("eap-stopped")},
	{name: "certificate-refused", how: "a client whose certificate is of a root that the gateway doesn't trust", views: faulty("auth-refused")},
	{name: "gateway-untrusted", how: "EAP with a client that doesn't trust the root of the gateway's certificate", views: faulty("client-stopped")},
	{name: "never-used", how: "a client by certificate whose algorithms for ESP the gateway doesn't take, so that it gets an IKE SA without a tunnel and ends it", views: faulty("never-used")},
	{name: "radius-silent", how: "a gateway whose RADIUS server doesn't answer", views: faulty("auth-stalled")},
	{name: "half-open-limit", how: "a gateway with block_threshold=1, to which one half-open SA is too many", views: faulty("half-open-limit")},
	{name: "slow", how: "a gateway that is stopped for 3 s (SIGSTOP) while a client dials", views: faulty("slow")},
	{name: "gateway-gone", how: "a gateway that stops answering in the middle (SIGSTOP)", views: faulty("gateway-silent")},
	{name: "small-mtu", bits: 4096, how: "an MTU of 1000 between router and gateway: ICMP fragmentation needed", views: faulty("packet-too-big")},
}

// readme is the text beside the captures.
func readme() string {
	var b strings.Builder
	b.WriteString("# Captures of IKEv2\n\nMade by `AOVLB_PEERS=1 go test ./ikev2/capture -run TestRecord -record` as root, with strongSwan and tcpdump in network\nnamespaces; the same test without `-record` makes them in a temporary folder and judges them just as `TestCaptures` judges these.\n\n")
	b.WriteString("The client is 198.51.100.7 or 2001:db8:1::7, the gateways are 203.0.113.11, 203.0.113.12 and 2001:db8:2::11, behind a\nrouter. The addresses, names, keys and passwords are of the tests alone.\n\n| file | what happens |\n|---|---|\n")
	for _, s := range scenarios {
		for _, v := range s.views {
			how := s.how
			if v.from != "" && len(s.views) > 1 {
				how += "; seen at the " + v.from
			}
			fmt.Fprintf(&b, "| %s | %s |\n", v.file(s.name), how)
		}
	}
	return b.String()
}

func TestScenariosAreMade(t *testing.T) {
	names := map[string]bool{}
	for _, s := range scenarios {
		if names[s.name] || s.how == "" || len(s.views) == 0 {
			t.Errorf("scenario %q isn't complete, or twice", s.name)
		}
		names[s.name] = true
	}
	b, err := os.ReadFile(filepath.Join("..", "testdata", "captures", "README.md"))
	if err != nil || string(b) != readme() {
		t.Errorf("the README of the captures isn't that of the scenarios (%v): make them by -record", err)
	}
}
