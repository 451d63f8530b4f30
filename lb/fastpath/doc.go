// Package fastpath has the Linux kernel carry the datagrams of flows that an
// [udp.Engine] has established, so that they never come to user space: several
// times as many a processor as any program with sockets can carry.
//
//	path, err := fastpath.Open(fastpath.Config{At: listeners, Toward: gateways})
//	if err != nil {
//		// One line that says what is missing. Everything works without.
//	}
//	go path.Run(ctx)
//	e := &udp.Engine{…, FastPath: path.Carrier()}
//
// # What is carried
//
// ESP in UDP (RFC 3948) of a flow that is established, in both directions, if the
// Engine has seen its SPI. All else goes to the Engine's sockets as it does without
// this package: IKE, behind its marker or without, NAT keepalives, ESP with an SPI
// that is new (after a rekey, say), IP fragments, packets with IP options, packets
// too large for the way on, and whatever there is no route or neighbour for. So the
// Engine learns, diagnoses and decides as ever. Detaching the programs at any moment
// loses nothing.
//
// # How
//
// A program at the ingress of each network device (TC, by TCX; or XDP) looks the
// packet's addresses and ports up in a map, rewrites them, and sends the packet on
// by the device that the routes say, with its time to live lowered, and its
// checksums kept right; a checksum of zero, usual in ESP, stays zero. An entry of
// the map names its backend's generation, and counts only as long as that is the
// current one: one write ends all entries of a backend that goes down.
//
// ICMP errors about what was carried are copied to whom they concern, with the
// quoted packet's addresses put back, and go on to the stack too, which keeps what
// they say about the size of packets.
//
// First messages of IKE to the listeners are dropped, beyond Config.FirstMessages;
// nothing else ever is.
//
// Packets that are carried don't pass netfilter (nftables, iptables), as they pass
// no socket. What must be filtered has to be so before the flow is established, or
// on another machine.
//
// # Rights and kernels
//
// Linux 6.6 for TCX, 6.3 for XDP alone: since then it says what drivers can. CAP_BPF and CAP_NET_ADMIN; CAP_PERFMON is
// not needed. No clang, no headers and no BTF are needed on the machine that it
// runs on. The programs are looked up routes for as this machine's own packets are,
// so net.ipv4.conf.lo.forwarding (and net.ipv6…) must be 1, which Open sees to if
// it may; it makes no router of the machine, since nothing arrives at lo from
// outside.
package fastpath
