package radius

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// The defaults of a Proxy.
const (
	// DefaultHold is how long a request waits for its answer: a person may have
	// to find a telephone and approve, which is seen to take most of a minute.
	DefaultHold = 75 * time.Second
	// DefaultRemember is how long an answer is kept for repetitions of its
	// request (RFC 5080 §2.2.2 says 5 to 30 seconds). A client that doubles its
	// patience may repeat for the third time after 21 seconds.
	DefaultRemember = 30 * time.Second
	// DefaultMaxRequests bounds the requests that wait and the answers that are
	// kept, together.
	DefaultMaxRequests = 1 << 16
	// DefaultSilence is after how long an unanswered request makes a server
	// suspect.
	DefaultSilence = 3 * time.Second
	// DefaultShun is how long a suspect server gets no new users, unless it
	// answers before.
	DefaultShun = 10 * time.Second
)

// ErrClosed is what Serve returns after Shutdown.
var ErrClosed = errors.New("radius: proxy closed")

// A Proxy stands between RADIUS clients (NASes, such as RRAS) and servers (such
// as NPS): it ends the RADIUS of the one and begins that of the other. It knows
// the secrets of both, so unlike what forwards datagrams it can check and renew
// authenticators, give requests Identifiers of its own, answer what is repeated,
// and keep forgeries from both sides. See the package comment on which to use.
//
// The exported fields must not be changed while it serves. Clients and servers
// are given by [Proxy.SetClients] and [Proxy.SetServers], at any time.
type Proxy struct {
	// Balancer decides on servers. It must not be nil. Proxies for
	// authentication and for accounting share one, and forwarding engines may
	// too: they then agree where a user lives.
	Balancer *lb.Balancer
	// Classifier names users. Its ports say which kinds of requests may come
	// to which ports.
	Classifier Classifier
	// AuthPort and AcctPort are the ports of the servers, for Access-Requests
	// and Accounting-Requests; 0 means the port that the request came to.
	AuthPort, AcctPort uint16
	// Hold is how long a request waits for its answer; 0 means DefaultHold.
	Hold time.Duration
	// Remember is how long answers are kept for repeated requests; 0 means
	// DefaultRemember.
	Remember time.Duration
	// MaxRequests bounds the requests that wait and the answers that are kept,
	// together; 0 means DefaultMaxRequests. Answers make room first, the
	// oldest one before others.
	MaxRequests int
	// Silence is how long a server may leave requests unanswered before it is
	// suspected; 0 means DefaultSilence. Suspicion alone moves no conversation:
	// NPS leaves requests unanswered on purpose.
	Silence time.Duration
	// Shun is how long new users are kept from a server that answers nobody;
	// 0 means DefaultShun.
	Shun time.Duration
	// Suspect, if not nil, is told when a server leaves requests unanswered or
	// its port is closed, so that it is probed at once: [lb.Monitor.Suspect].
	// It must not block.
	Suspect func(backend string, err error)
	// Spool, if not nil, takes Accounting-Requests that no server takes.
	Spool Spool
	// Logger hears of what an administrator should know; nil is silent.
	Logger *slog.Logger
	// Trace, if not nil, hears of rare events.
	Trace *Trace
	// NameKey, if not nil, is the key under which users' names are hashed in
	// Stats; nil means a random one. Names shows them as they are.
	NameKey []byte
	// Names has Stats show users' names instead of hashes of them.
	Names bool

	clients  atomic.Pointer[clientSet]
	servers  atomic.Pointer[serverSet]
	cells    []*cell
	once     sync.Once
	epoch    time.Time // monotonic time is counted from here
	state    atomic.Int32
	wg       sync.WaitGroup // readers of links, and what stores
	count    counters
	reasons  reasons
	hands    sync.Pool
	shelf    shelf
	spooler  spooler
	failures failures

	setMu sync.Mutex // one SetClients or SetServers at a time
	endMu sync.Mutex // below
	end   context.CancelCauseFunc
	ended chan struct{} // closed when Serve has ended
}

// A MessagePolicy says what is asked of a client's Message-Authenticators
// (CVE-2024-3596, "Blast-RADIUS"). Whatever it says, Access-Requests to servers
// have one, and one that is there must be right.
type MessagePolicy uint8

const (
	// MessageAdd takes Access-Requests without one, and puts one first into
	// every answer to an Access-Request.
	MessageAdd MessagePolicy = iota
	// MessageRequire drops Access-Requests without one. It is what protects a
	// client's requests from being changed on their way.
	MessageRequire
	// MessageLegacy puts one only into answers to requests that have one, for
	// clients that refuse what they don't know. Nothing then protects an
	// answer; the Proxy warns of it.
	MessageLegacy
)

func (m MessagePolicy) String() string {
	switch m {
	case MessageAdd:
		return "add"
	case MessageRequire:
		return "require"
	case MessageLegacy:
		return "legacy"
	}
	return "unknown"
}

// A Client is a NAS that may ask, or a network of them with one secret.
type Client struct {
	// Name identifies the client in Stats and logs.
	Name string
	// Prefixes are where it sends from; a single address is a prefix of full
	// length. Of several that match, the longest counts. A client without any
	// can't ask by UDP.
	Prefixes []netip.Prefix
	// Secret is shared with it.
	Secret Secret
	// Message says what is asked of its Message-Authenticators.
	Message MessagePolicy
	// LimitProxyState drops Access-Requests with a Proxy-State and without a
	// Message-Authenticator, as NPS does by its option of that name: a NAS
	// itself has no reason to send one.
	LimitProxyState bool
}

// A Server says how a backend is spoken to.
type Server struct {
	// Secret is shared with it.
	Secret Secret
	// RequireMessageAuthenticator drops answers to Access-Requests that have
	// none. Servers add one since CVE-2024-3596 was mended in them.
	RequireMessageAuthenticator bool
	// MaxOutstanding is how many requests may wait for its answers before new
	// users go elsewhere; 0 means no limit. What it leaves unanswered for 5
	// seconds while it answers others doesn't count: it was discarded, or waits
	// for a person.
	MaxOutstanding int
	// Dial opens a link to it; nil means UDP.
	Dial DialFunc
}

// A DialFunc opens a link to port of a backend: a connection of which each Write
// takes exactly one packet, and each Read returns one, up to [MaxLen] bytes. The
// Proxy gives each link up to 256 requests, and opens more as needed. A DialFunc
// must not block: where a handshake comes first, it returns at once, and the
// link holds back what is written until it can be sent, or loses it. Read and
// Close are called from other goroutines than Write. A Read that fails ends the
// link, but for ECONNREFUSED on UDP.
type DialFunc func(m *lb.Member, port uint16) (net.Conn, error)

// A Replier takes answers back to who asked. Reply must not block or retain b.
type Replier interface {
	Reply(b []byte, f lb.Flow)
}

// A Request is what a transport gives to [Proxy.Handle].
type Request struct {
	// Bytes are the packet, which need not have been checked. They are only
	// read, and not after Handle has returned.
	Bytes []byte
	// Flow says who sent it, and to which port. Together with the Identifier
	// and the Authenticator it tells repeated requests from new ones, so a
	// connection needs a Flow of its own.
	Flow lb.Flow
	// Client is the Name of the client. Empty means the one whose Prefixes
	// hold the address in Flow, as with UDP.
	Client string
	// Replier takes the answer, at most once for each time the request was
	// sent. It isn't called before the request was found right.
	Replier Replier
}

// A Record is an Accounting-Request for a [Spool].
type Record struct {
	// Packet is as the client sent it. It is only valid during the call.
	Packet Packet
	// Client is the client's name, Flow where it sent from.
	Client string
	Flow   lb.Flow
	// Sent says that it was sent to a server, which may have taken it although
	// no answer came.
	Sent bool
}

// A Spool keeps Accounting-Requests until a server takes them. Its methods are
// called from several goroutines at once.
type Spool interface {
	// Behind reports whether p must be stored although a server could take it,
	// since older requests of its session wait in the Spool. It is called on
	// the way of every request and must be quick.
	Behind(p Packet) bool
	// Store keeps a request. The client is told that its request was taken
	// when Store has returned nil, and not before; else it will repeat it.
	Store(r Record) error
}

// A Trace hears of rare events. Any of its functions may be nil. They are called
// with locks held: they must be quick and must not call the Proxy.
type Trace struct {
	// Dropped is called when a packet of a client was not taken, with the
	// reason, a constant text. Client is empty if it is unknown.
	Dropped func(client string, f lb.Flow, reason string)
	// BadAnswer is called when a packet of a server was not taken.
	BadAnswer func(backend string, reason string)
	// Moved is called when a waiting request was sent to another server.
	Moved func(from, to string, c Code)
	// Shunned is called when new users are kept from a server.
	Shunned func(backend string, err error)
}

// Forward sends a request of the named client to a server as if the client had
// sent it just now, repeats it each 2 seconds, and returns the server's answer,
// signed for the client. Its Request Authenticator need not be right: requests
// that were stored can be changed. It is how a [Spool] gets rid of what it keeps.
// Only one server gets it: if that one doesn't answer until ctx is done, another
// may be tried by calling Forward again, with the request marked as repeated. The
// error wraps ErrNotSent if none got it. Forward may be called only while Serve
// runs.
func (p *Proxy) Forward(ctx context.Context, client string, request Packet, f lb.Flow) ([]byte, error) {
	return p.forward(ctx, client, request, f)
}
