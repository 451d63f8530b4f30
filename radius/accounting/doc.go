// Package accounting keeps RADIUS accounting when no server takes it: a
// [radius.Proxy] that has a [Store] acknowledges an Accounting-Request once it is
// synced to disk, and the Store delivers it when a server is back.
//
// # What is repeated, and how it is marked
//
// RADIUS has no flag for a record that may have come before. What it has is
// Acct-Delay-Time (RFC 2866 §5.2): for how many seconds its sender has been
// trying. A gateway raises it with each attempt, and so does a Store. A record
// that may have reached a server before, whether it was the Proxy that sent it,
// or the Store before it was killed, goes out with an Acct-Delay-Time that is
// higher than any it was ever sent with. All else in it is the same: with
// Acct-Session-Id, Acct-Status-Type, the NAS and the time it happened, which is
// the time it arrives less its Acct-Delay-Time, a server tells it from a new
// record. An attribute of our own would be for implementations that agree on it
// (RFC 2865 §5.26), and no server would; so there is none.
//
// The Identifier and the Request Authenticator of a stored record are new each
// time it is sent, as RFC 2866 §5.2 has it where Acct-Delay-Time changes.
//
// # What is written
//
// The attributes as they came, without those that hold secrets (passwords, CHAP
// and MS-CHAP, keys), without Message-Authenticator and without Proxy-State,
// which belongs to an exchange that has ended. The authenticator isn't written,
// nor anything made of it: together with the rest of the packet it would let a
// thief of the file try out secrets. What remains is personal data; see package
// spool for how the files are kept.
package accounting
