// Package radsec is RADIUS over TLS (RFC 6614), called RadSec: a [Server] takes
// requests for a [radius.Proxy] from clients that show a certificate, and a
// [Dialer] gives the Proxy links to servers.
//
// TLS replaces what RADIUS protects badly: names and session data are hidden, and
// both sides are known by certificates. RADIUS's own shared secret is then always
// the word "radsec" ([Secret]), and protects nothing.
//
// A connection carries packets one after the other; the length in their header
// divides them (RFC 6613 §2.6.1). It has 256 Identifiers, like a socket of UDP, so
// more connections are opened as more requests wait. A server that was found
// unreachable is left alone for a while, which grows to half a minute. A
// connection without traffic is tried out by Status-Server now and then (RFC 3539,
// RFC 5997), so that one whose other end is gone is noticed before users are.
//
// Both ends speak TLS 1.2 or 1.3. Certificates are checked for their chain and
// name, or for a fingerprint; lists of revoked certificates aren't looked at, so
// to shut a client out take its rule away.
package radsec
