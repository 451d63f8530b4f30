package geodns_test

import (
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/aovlb/aovlb/internal/peers/freeport"
)

// The rules of the conformance tests, applied to servers that many trust: a rule
// that these don't follow may be wrong itself.

// needPeers skips the test unless it may run other servers and clients.
func needPeers(t *testing.T, tools ...string) {
	t.Helper()
	if os.Getenv("AOVLB_PEERS") != "1" {
		t.Skip("needs real peers: set AOVLB_PEERS=1 and run as root")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: some of the peers won't run without")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool + ", which is not installed")
		}
	}
}

// freePort returns an address on loopback that nobody listens at.
func freePort(t *testing.T) (addr, port string) {
	t.Helper()
	p, err := freeport.Pick()
	if err != nil {
		t.Fatal(err)
	}
	port = strconv.Itoa(int(p))
	return net.JoinHostPort("127.0.0.1", port), port
}

// publicDir makes a directory that servers which give up root can use.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "aovlb-geodns-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// without leaves out the lines of a zone that begin with one of the names.
func without(zone string, names ...string) string {
	var out strings.Builder
	skip := false
	for line := range strings.Lines(zone) {
		if line[0] != ' ' && line[0] != '\n' {
			skip = false
			for _, n := range names {
				skip = skip || strings.HasPrefix(line, n)
			}
		}
		if !skip {
			out.WriteString(line)
		}
	}
	return out.String()
}

func TestConformanceOfGdnsd(t *testing.T) {
	needPeers(t, "gdnsd")
	dir, addr := publicDir(t), ""
	addr, _ = freePort(t)
	write(t, dir, "config", `options => { listen => `+addr+`, run_dir => "`+dir+`/run", state_dir => "`+dir+`/state", udp_threads => 1, tcp_threads => 1, edns_client_subnet => true, nsid_ascii => test, max_edns_response => 1232 }
plugins => { geoip => {
  maps => { m => { datacenters => [berlin, london, seattle], nets => { 93.0.0.0/8 => [berlin], 81.2.0.0/16 => [london, berlin], 216.160.83.56/29 => [seattle, berlin] } } },
  resources => { vpn => { map => m, dcmap => { berlin => { addrs_v4 => [198.51.100.1], addrs_v6 => [2001:db8:b::1] }, london => { addrs_v4 => [198.51.100.11], addrs_v6 => [2001:db8:c::1] }, seattle => { addrs_v4 => [198.51.100.21], addrs_v6 => [2001:db8:d::1] } } } } } }
`)
	zone := without(zoneText+moreZone, "signed", "         DS", "ns.signed", "vpn      HTTPS", "loop", "moved", "old", "far")
	write(t, dir, "zones/example.com", zone+"vpn 60 DYNA geoip!vpn\n")
	for _, d := range []string{"run", "state"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	start(t, exec.Command("gdnsd", "-c", dir, "start"))
	ready(t, speedPeer{name: "gdnsd", addr: addr})
	s := &subject{name: "gdnsd", addr: addr, has: []string{"geo", "ecs", "nsid", "keepalive"}, own: map[string]string{
		"stateful operations aren't implemented":                    "it implements them",
		"an alias within the zone is followed":                      "it leaves that to the resolver",
		"an alias to a name without the type has the SOA behind it": "it follows none",
		"an alias to no name is NXDOMAIN":                           "it follows none",
		"a wildcard makes an alias":                                 "it follows none",
	}}
	s.run(t)
}

func TestConformanceOfKnot(t *testing.T) {
	needPeers(t, "knotd")
	dir := publicDir(t)
	addr, port := freePort(t)
	zone := write(t, dir, "example.com.zone", "$ORIGIN example.com.\n"+zoneText+moreZone+"vpn 60 A 198.51.100.1\n")
	conf := write(t, dir, "knot.conf", fmt.Sprintf(`server:
  listen: 127.0.0.1@%s
  rundir: %s
  nsid: test
  udp-max-payload: 1232
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
  edns-client-subnet: on
database:
  storage: %s
mod-cookies:
  - id: default
    secret-lifetime: 26h
policy:
  - id: p
    algorithm: ecdsap256sha256
    single-type-signing: on
    zsk-lifetime: 0
template:
  - id: default
    global-module: mod-cookies/default
zone:
  - domain: example.com
    file: %s
    zonefile-sync: -1
    dnssec-signing: on
    dnssec-policy: p
`, port, dir, dir, zone))
	start(t, exec.Command("knotd", "-c", conf))
	ready(t, speedPeer{name: "knot", addr: addr})
	s := &subject{name: "knot", addr: addr, has: []string{"signed", "cookies", "nsid", "ecs", "ds", "dname", "https", "rings"}, own: map[string]string{
		"two questions are a format error":         "it is silent",
		"65,535 questions are a format error":      "it is silent",
		"a format error is answered over TCP, too": "it closes the connection",
		"options of a higher version mean nothing": "it looks at them first",
		"less than 512 octets means 512":           "it refuses a few octets",
		"a client's cookie gets a server's":        "it has clients show it before they get an answer",
		"a cookie can be had without a question":   "it wants one",
		"an alias made of a DNAME keeps the case":  "it writes it in lower case",
		"what would be too long is YXDOMAIN":       "it says NXDOMAIN",
	}}
	var c dns.Client
	m := new(dns.Msg)
	m.SetQuestion("example.com.", dns.TypeDNSKEY)
	r, _, err := c.Exchange(m, addr)
	if err != nil || len(r.Answer) == 0 {
		t.Fatal(r, err)
	}
	s.key = r.Answer[0].(*dns.DNSKEY)
	s.run(t)
}

func pemOf(typ string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
}
