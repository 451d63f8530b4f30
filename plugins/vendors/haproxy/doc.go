// Package haproxy puts a deployment onto HAProxy: SSTP, passed through, offloaded
// or encrypted anew, and other TCP. HAProxy has no UDP, so IKEv2 and RADIUS must be
// served by somebody else.
//
// The driver writes one file of its own, which HAProxy loads beside the
// administrator's (haproxy -W -S MASTER -f haproxy.cfg -f FILE), has HAProxy check
// it, and reloads HAProxy by its master's socket: connections go on in the process
// that was there before. The same socket serves drains and statistics. What the
// driver must know of a deployment that it applied is in the file itself.
package haproxy
