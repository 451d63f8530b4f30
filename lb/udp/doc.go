// Package udp carries datagrams between clients and the backends that an
// [lb.Balancer] chooses for them.
//
//	conns, err := udp.Listen(ctx, netip.MustParseAddrPort("192.0.2.1:4500"), udp.ListenConfig{})
//	…
//	e := &udp.Engine{Balancer: b, Classifier: ikev2.Classifier{}}
//	err = e.Serve(ctx, conns...)
//
// # Flows
//
// A flow is one client address and port, at one of our addresses and ports. It
// has a socket of its own towards its backend (its upstream), so that the
// backend sees a different port for every client and answers find their way
// back. What a flow may cost depends on what has been proven of it:
//
//   - unanswered: no backend has answered yet. There are at most
//     [Engine.MaxUnanswered] of these; when another comes, the oldest goes. A
//     flood of first packets therefore costs its own packets and nothing that
//     lasts.
//   - half-open: a backend has answered, as to the first message of a handshake.
//     It lasts for [lb.Table.HalfOpen] of silence.
//   - established: it lasts for [lb.Table.Idle] of silence in both directions.
//     Its packets are forwarded without asking the Table, as long as their
//     strongest name is the flow itself (ESP) or one that was looked up less
//     than a second ago.
//
// Which of these a flow is, the [lb.Classifier] says of each answer.
//
// # The client's address
//
// By default backends see an address of this machine, with a port for each flow
// (NAT mode). With [Engine.Transparent] they see the client's own address and
// port. That is the mode for gateways that limit clients by address, as Windows
// RRAS does. It takes Linux, CAP_NET_ADMIN, and routes that lead the answers
// back through this machine; see [Engine.Transparent].
//
// # Clients that move
//
// When a NAT gives a client a new port, or the client comes from a new network,
// its names lead it to the same backend, through a new upstream. The gateway
// thus sees the client move, and decides by its keys whether to believe it. To
// hide the move, by sending on through the old upstream, this package would have
// to redirect a client's traffic on the word of a packet it can't authenticate:
// an old packet, sent again from elsewhere, would then be enough to take a
// tunnel's downstream away.
//
// # Drivers
//
// On Linux, real sockets are served by one thread for each worker, in batches;
// see the head of worker_linux.go. Everything else, such as connections in
// memory, is served by a portable driver with goroutines. Both have the same flow
// logic.
package udp
