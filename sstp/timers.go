package sstp

import "time"

// The timers of the protocol (MS-SSTP §3.1.2, §3.2.2, §3.3.2), as Windows has
// them.
const (
	// NegotiationTimeout is how long a peer waits for each next message until a
	// call is connected. It then aborts with StatusNegotiationTimeout.
	NegotiationTimeout = 60 * time.Second
	// HTTPTimeout is how long a client waits for the answer to its request.
	HTTPTimeout = 60 * time.Second
	// HelloTimeout is the silence after which a peer sends an EchoRequest, and
	// how much longer it waits. Then it closes the connection, without an abort.
	// So in a tunnel that lives something moves at least each minute, both ways,
	// and nothing may cut it before two.
	HelloTimeout = 60 * time.Second
	// AbortTimeout1 and AbortTimeout2 are how long who has sent a CALL_ABORT, or
	// who has received one, goes on before it closes the connection.
	AbortTimeout1 = 3 * time.Second
	AbortTimeout2 = 1 * time.Second
	// DisconnectTimeout1 and DisconnectTimeout2 are the same for a
	// CALL_DISCONNECT.
	DisconnectTimeout1 = 5 * time.Second
	DisconnectTimeout2 = 1 * time.Second
	// MaxNaks is how often a request may be refused by a CALL_CONNECT_NAK before
	// the call is aborted with StatusRetryCountExceeded.
	MaxNaks = 3
)
