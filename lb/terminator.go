package lb

import (
	"context"
	"net"
	"net/netip"
)

// A Terminator serves streams whose protocol ends here, TLS say, before a backend
// is known. An engine of streams hands it each connection, once its limits let it
// in, in place of choosing a backend by its first bytes. The engine keeps what
// engines do: it counts, cuts what is idle or has lost its backend, and drains.
type Terminator interface {
	// Terminate serves c until it has ended. It returns nil if c was carried or
	// answered, and otherwise why it couldn't be. When ctx is done, c has been
	// cut. The engine closes its connections after Terminate has returned.
	Terminate(ctx context.Context, c Incoming) error
}

// Incoming is a connection from a client, as an engine hands it to a
// [Terminator]. Its methods are for one goroutine. They are in the order in which
// a Terminator uses them: Route, Dial or DialAddr, Carry.
type Incoming interface {
	// Client is the connection. Nobody else reads it.
	Client() net.Conn
	// Flow says who came, and to which port.
	Flow() Flow
	// Route chooses a backend other than those of avoid, and connects to none.
	Route(avoid ...ID) (Route, error)
	// Dial connects to the backend of r, at port or, if that is 0, where the
	// engine reaches backends. It announces the client as the engine is told to.
	// From then on the connection is one of that backend's.
	Dial(ctx context.Context, r Route, port uint16) (net.Conn, error)
	// DialAddr connects to a server that isn't a backend.
	DialAddr(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
	// Carry sends first to the backend, and then moves bytes between client and
	// backend until both directions have ended or the engine has cut them. They
	// are the connections of Client and Dial, or others made from them; if they
	// have a CloseWrite method, the end of a direction is passed on.
	//
	// If one has a method WaitRead() error, it is called each time nothing is left
	// to be read, and has to return once something might be, so that no buffer is
	// held for a connection while it is silent. Its Read may return 0 and no error.
	Carry(client, backend net.Conn, first []byte) Carried
}

// Carried says how a stream that was carried has ended.
type Carried struct {
	// End is a word for how: done, reset, idle, backend_down or closing.
	End string
	// First is who began it: client, backend, or engine.
	First string
	// Err is the error of a reset; otherwise nil.
	Err error
	// Sent and Received are bytes to the backend and to the client.
	Sent, Received uint64
}
