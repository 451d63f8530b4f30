// Package lb decides which backend serves which client, and remembers it.
//
// It opens no socket and knows no protocol. Protocol packages (ikev2, sstp,
// radius) turn bytes into a [Verdict]: the names of one client, strongest
// first. Engines (lb/udp, lb/tcp) carry the bytes. Between them stands the
// [Balancer]:
//
//	bytes ──Classifier──▶ Verdict ──Balancer.Route──▶ Route ──engine──▶ backend
//	                                     ▲
//	              Pool ──View (immutable)┘◀── Table (names → client → backend)
//	               ▲
//	Monitor ──Mark─┘
//
// # One backend, one gateway
//
// A [Backend] has an address and no port: the listener adds the port. So UDP
// 500, UDP 4500 and TCP 443 of one client can't disagree about where it lives.
// Other products call this port following (Kemp), match across services (F5)
// or a persistency group (NetScaler).
//
// # Names, hints and the Table
//
// A client has several names at once: an IKE SPI, an ESP SPI, a UDP flow, a
// source address. [Balancer.Route] takes the backend of the first name that is
// known and still usable. A hint only steers a client that is new. Names are
// recorded when a backend has answered ([Balancer.Answered]) and not before:
// until then a client costs one hash, so a flood of first packets fills
// nothing.
//
// # Concurrency
//
// Everything in this package may be used from many goroutines at once, except
// that the exported fields of a struct must not be changed after its first use.
package lb
