// Package radius is what aovlb knows of RADIUS, and of Microsoft's Network
// Policy Server (NPS).
//
// All requests of a VPN gateway come from one address, and often from one port.
// To balance by source is therefore to put a whole gateway on one server. This
// package balances users instead, and keeps each one's conversation whole: an
// EAP conversation lives in the memory of the server that began it, and another
// can only discard its packets.
//
// It holds what balancing needs:
//
//   - [Packet] is a checked view of a datagram, without a copy. Authenticators
//     are computed and checked with a [Secret].
//   - [Classifier] names the users of datagrams that are forwarded unchanged.
//     That needs no secret.
//   - [Proxy] ends the RADIUS of clients and speaks its own with servers. It
//     needs the secrets of both.
//   - [Prober] asks a server whether it truly serves, [LoginProber] whether the
//     directory behind it does.
//
// Below it, package accounting keeps accounting on disk while no server takes it,
// radsec carries RADIUS over TLS, and npscert sees to the certificates that NPS
// shows.
//
// # Which mode
//
// Forwarding changes nothing for clients and servers but an address, and costs
// least. The Proxy keeps forgeries from both sides, lets secrets differ, answers
// what is repeated, moves what waits when a server dies, and tells how logins go.
//
// # Forwarding mode
//
// The authenticators of RADIUS cover a packet's Identifier, so who doesn't know
// the secret can't change it. Each address and port of a NAS therefore needs an
// upstream socket of its own for each server. The Identifier, which a NAS has
// but 256 of for each port, tells the answers apart: it is the Exchange of an
// [lb.Verdict].
package radius
