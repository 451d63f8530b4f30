// Package tcp is the stream engine: it accepts connections, asks an
// [lb.Balancer] where each belongs, and carries the bytes.
//
//	accept ─▶ PROXY header ─▶ Sniffer ─▶ Balancer.Route ─▶ dial ─▶ Attach ─▶ splice ─▶ Closed
//	          (if trusted)    (bounded)        ▲             │
//	                                           └── refused ──┘ another backend
//
// Nothing is ended and nothing is changed: TLS passes through, and what the
// Sniffer has seen is forwarded with the rest. For SSTP that means that the
// gateway's own certificate reaches the client, which its crypto binding needs.
//
// # One life of a stream
//
// Until a byte has reached a backend, another backend can be tried: a refused or
// timed out connection is told to [Trace.Unreachable] and costs the client
// nothing but time. From then on the stream lives and dies with its backend.
//
//   - The end of one direction is passed on as such (FIN), and the other goes on.
//   - A reset is passed on as a reset, in both directions.
//   - A stream in which nothing has moved, either way, for [Engine.Idle] is cut.
//   - A backend that drains keeps its streams. When it goes down, or the deadline
//     of its drain passes, or it is taken from the Pool, they are cut within about
//     a second, so that the clients come back and are given another.
//   - A peer that has vanished is noticed by keepalives, or, if data are under
//     way, after [Engine.UserTimeout].
//
// What the engine cuts, it cuts by reset: the peers learn of it at once, and no
// socket lingers in TIME_WAIT.
//
// # How bytes move
//
// On Linux, between two TCP sockets, they are spliced: they go from socket to
// pipe to socket inside the kernel. A pipe is held only while there are bytes in
// it, so an idle tunnel costs two sockets and two small goroutines. Elsewhere, or
// when no pipe is to be had, bytes are copied through buffers. How much has moved
// is counted with each splice; a sweeper that compares these counts finds idle
// streams, so that no timer or deadline is touched while bytes move.
//
// # The client's address
//
// By default a backend sees the balancer's address. There are two other ways:
//
// [Engine.ProxyTo] puts a PROXY protocol header in front of the stream, for
// servers that understand it. RRAS doesn't.
//
// [Engine.Transparent] connects from the client's own address, on Linux. It needs
// CAP_NET_ADMIN, and the answers must come back through this machine: it has to be
// the backends' router to the clients (usually their default gateway). Here, the
// answers must be handed to local sockets, although their address isn't local.
// With eth1 towards the backends and port 443:
//
//	ip rule add iif eth1 ipproto tcp sport 443 lookup 100
//	ip route add local 0.0.0.0/0 dev lo table 100
//	ip -6 rule add iif eth1 ipproto tcp sport 443 lookup 100
//	ip -6 route add local ::/0 dev lo table 100
//
// or, if other traffic from port 443 of the backends passes through this machine
// too, by the socket rather than by the port:
//
//	nft add table inet aovlb
//	nft 'add chain inet aovlb pre { type filter hook prerouting priority mangle; }'
//	nft add rule inet aovlb pre iif eth1 meta l4proto tcp socket transparent 1 meta mark set 1
//	ip rule add fwmark 1 lookup 100
//	ip route add local 0.0.0.0/0 dev lo table 100
//
// Strict reverse-path filtering (net.ipv4.conf.*.rp_filter=1) drops such packets
// if the clients aren't routed through eth1: set it to 2 there.
package tcp
