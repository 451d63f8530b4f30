// Package eaptls does EAP-TLS or PEAP with a RADIUS server as far as is needed to
// see the server's certificate, the way a Windows client does before it logs in:
// TLS in EAP in RADIUS (RFC 5216, RFC 3748, RFC 3579; PEAP version 0 is described
// by MS-PEAP). No password and no certificate of a user is needed; some servers,
// NPS among them, want to know the user's name though.
//
// The TLS is that of crypto/tls, over a connection whose packets are EAP. The
// handshake is taken far enough that the server has proved to hold the
// certificate's key; then the client turns away, and the server says no. So each
// look leaves a failed attempt in the server's log. It counts as no wrong password.
package eaptls
