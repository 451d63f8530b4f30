// Package peers runs other people's programs as the peers of a test: strongSwan
// gateways and clients, FreeRADIUS, eapol_test, radclient and HTTPS servers,
// each in a network namespace of its own, joined by bridges and NAT routers that
// a test can re-map while traffic flows.
//
// It is for tests only. A test asks for what it needs with [Need], and is
// skipped, with the reason, unless it runs as root with AOVLB_PEERS=1 and the
// programs are installed. Everything a test made is gone when the test ends, and
// what the programs logged is shown if it failed.
//
// # The usual net
//
//	client ──┐            "internet"                         "dc"
//	client ──┤          198.18.0.0/16                     10.1.0.0/24
//	         ├────────── bridge ──────────── lb ──────────── bridge ──┬── ras1
//	client ──NAT ──┘                VIP 198.18.0.100                  ├── ras2
//	client ──┘                                                        └── …
//
// A [Net] makes namespaces ([Host]) and bridges ([Segment]); [NAT] makes a
// router that masquerades. The bridges live in a namespace too, so nothing of it
// is seen by the machine itself.
//
// # Telling gateways apart
//
// Gateway n gives its clients addresses of 172.16.n.0/24 and is itself reached
// inside the tunnel as 172.31.n.1, so a client can tell by its own address which
// gateway it has, and a ping of the inner address proves it. ESP is handled by
// strongSwan's kernel-libipsec, so the kernel needs no IPsec.
package peers
