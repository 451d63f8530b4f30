// Package acme gets certificates for SSTP from a CA that speaks ACME (RFC 8555):
// Let's Encrypt, another public one, or one of your own.
//
// A [Manager] gets one certificate for one name, and a new one in good time. It
// never puts a certificate into service by itself: what it gets, it hands to
// [Manager.Obtained], which holds it in an [sstp.Keyring] and begins an
// [sstp.Renewal]. Until a gateway knows the hash of the new leaf, its clients go on
// being shown the old one.
//
// The CA asks for a proof that the name is ours, in one of two ways that a
// balancer can give while it serves. By TLS-ALPN-01 (RFC 8737) it connects to port
// 443 and asks for the protocol acme-tls/1: [Manager.Challenge] answers, as
// Challenge of the Keyring, so that it shares the port with SSTP. By HTTP-01 it
// asks at port 80: [Manager.HTTPHandler] answers there, or if nobody serves that
// port the Manager does for as long as it takes.
//
// The work is done by certmagic, with a cache and a configuration of its own.
package acme
