package ikev2

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers"
)

// libreswanPolicies are policies in libreswan's spelling and in strongSwan's.
var libreswanPolicies = []struct{ libreswan, keywords string }{
	{"aes256-sha2_256-modp2048", "aes256-sha256-modp2048"},
	{"aes_gcm128-sha2_256-modp2048", "aes128gcm16-prfsha256-modp2048"},
	{"aes_gcm256-sha2_384-dh20,aes128-sha2_256-dh19+dh14", "aes256gcm16-prfsha384-ecp384,aes128-sha256-ecp256-modp2048"},
	{"3des-sha1-modp1536,aes128-sha1-modp2048", "3des-sha1-modp1536,aes128-sha1-modp2048"},
	{"aes256-sha2_512-dh31", "aes256-sha512-x25519"},
}

// TestLibreswan probes and scans a real libreswan, and compares with ike-scan:
//
//	client 10.99.0.1 ── gw 10.99.1.1, 10.99.1.2 …, one policy at each; one pluto
func TestLibreswan(t *testing.T) {
	peers.Need(t, "unshare", "ldd", "dpkg-deb", "apt-get")
	root := peers.NeedLibreswan(t)
	net := peers.New(t)
	wire, client, gw := net.Segment("wire"), net.Host("client"), net.Host("gw")
	client.Attach(wire, "10.99.0.1/16")
	var all []peers.Acceptance
	var addrs []string
	for i, x := range libreswanPolicies {
		addrs = append(addrs, plutoAddr(i).String()+"/16")
		all = append(all, peers.Acceptance{Addr: plutoAddr(i), IKE: x.libreswan})
	}
	gw.Attach(wire, addrs...)
	gw.Libreswan(root, all...)
	peers.Eventually(t, 20*time.Second, "an answer of libreswan", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := ask(ctx, client, Prober{}, netip.AddrPortFrom(plutoAddr(len(all)-1), Port))
		return err
	})
	for i, x := range libreswanPolicies {
		t.Run(x.libreswan, func(t *testing.T) {
			ps, err := ParseProposals(ProtocolIKE, x.keywords)
			if err != nil {
				t.Fatal(err)
			}
			target := netip.AddrPortFrom(plutoAddr(i), Port)
			r, err := ask(t.Context(), client, Prober{}, target)
			if err != nil || r.Answer != AnswerInvalidKE {
				t.Fatalf("gentle probe: %v, %v", r, err)
			}
			if at4500, err := ask(t.Context(), client, Prober{}, netip.AddrPortFrom(plutoAddr(i), PortNATT)); err != nil || at4500.Answer != AnswerInvalidKE {
				t.Errorf("probe of port 4500: %v, %v", at4500, err)
			}
			r, err = ask(t.Context(), client, Prober{Complete: true}, target)
			if err != nil || r.Answer != AnswerSA || !r.Fragments || r.NAT != NATNone {
				t.Errorf("complete probe: %+v, %v", r, err)
			}
			t.Logf("complete probe: %v, vendors %v, notifies %v", r, r.Vendors, r.Notifies)
			compareScan(t, client, "all", target, netip.Addr{}, AllCandidates(), Policy{IKE: ps})
			compareIKEScan(t, client, target, Policy{IKE: ps})
		})
	}
}

func plutoAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 99, 1, byte(i + 1)}) }
