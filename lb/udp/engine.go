package udp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// ErrClosed is what Serve returns after Shutdown.
var ErrClosed = errors.New("udp: engine closed")

// The defaults of an Engine.
const (
	// DefaultUnanswered is how long a flow waits for its first answer.
	DefaultUnanswered = 10 * time.Second
	// DefaultMaxUnanswered is how many flows may wait for their first answer.
	DefaultMaxUnanswered = 1024
	// DefaultMaxFlows bounds upstream sockets where the limit of open files
	// doesn't.
	DefaultMaxFlows = 1 << 16
)

// An Engine carries the datagrams of the listeners it serves. Its fields must not
// be changed after Serve or Restore has been called. Several engines may share a
// Balancer: that is how the ports of an affinity group agree.
type Engine struct {
	// Balancer decides where clients go. It must not be nil.
	Balancer *lb.Balancer
	// Classifier names clients; nil means lb.ByAddr.
	Classifier lb.Classifier
	// Port is the backends' port; 0 means the port that the client came to.
	Port uint16
	// Transparent shows backends the client's own address and port. Linux
	// only; it needs CAP_NET_ADMIN. The backends must route what they send to
	// clients through this machine, and this machine must give it to the
	// sockets that wait for it rather than forward it:
	//
	//	ip rule add iif BACKEND-SIDE lookup 100
	//	ip route add local default dev lo table 100
	//
	// where BACKEND-SIDE is the interface towards the backends, if nothing
	// but answers comes from there. Otherwise mark what has a socket, in a
	// chain of type filter, hook prerouting, priority mangle:
	//
	//	nft add rule inet mangle prerouting ct state new,established,related meta l4proto udp socket transparent 1 meta mark set 1
	//	ip rule add fwmark 1 lookup 100
	//
	// The match on ct is there to have IP fragments put together first: only
	// the first fragment of an answer has ports to find a socket by. Reverse
	// path filtering must be off or loose on BACKEND-SIDE. IPv6
	// takes the same rules and routes of its own.
	Transparent bool

	// MaxFlows bounds the upstream sockets; 0 means DefaultMaxFlows, or half
	// of what the limit of open files leaves room for if that is less. In NAT
	// mode Linux has a local port for some 28,000 by default (see
	// net.ipv4.ip_local_port_range). When there are as many, a half-open flow
	// makes room first, then the established one that has been silent
	// longest, if for a minute or more. A flow that made room isn't lost: the
	// Table leads its next packet to the same backend.
	MaxFlows int
	// MaxUnanswered bounds the flows that wait for a first answer; 0 means
	// DefaultMaxUnanswered.
	MaxUnanswered int
	// MaxHalfOpen bounds the half-open flows; 0 means four times
	// MaxUnanswered. When there are more, the one that has been silent
	// longest goes.
	MaxHalfOpen int
	// Unanswered is how long a flow without an answer may be silent; 0 means
	// DefaultUnanswered.
	Unanswered time.Duration

	// Workers is how many threads serve the sockets on Linux; 0 means one for
	// each, but at most GOMAXPROCS.
	Workers int
	// NoGSO sends each datagram on its own, even where the kernel could take
	// a train of them at once.
	NoGSO bool
	// NoIOUring sends each client's datagrams by a system call of their own,
	// even where the kernel has io_uring, and permits it, to send those of
	// several clients by one. That makes small datagrams of many clients
	// cheaper to carry, by about a tenth; it takes Linux 6.1, and a thread
	// whose seccomp filter lets io_uring pass. [Stats.Batches] tells whether
	// it is used.
	NoIOUring bool
	// GRO has the kernel merge datagrams of one size and flow that arrive one
	// after the other, where it has UDP GRO (Linux). That makes trains of
	// datagrams cheaper to carry, by a tenth to a quarter of their time, if
	// they have a UDP checksum. ESP in UDP should have none (RFC 3948 §2.1),
	// and then isn't merged, while the attempt was measured to cost up to
	// some 5 % for datagrams that can't be. So it is for protocols other than
	// IPsec, and for peers that are known to send checksums; [Stats.Merged]
	// tells whether it does anything.
	GRO bool
	// Dial, if not nil, makes the upstream sockets, and has the portable
	// driver used. Each Read of the connection must return one datagram from
	// remote, and Write must not block. local is where it has to be bound; it is invalid if any address
	// and port will do.
	Dial func(local, remote netip.AddrPort) (net.Conn, error)

	// FastPath, if not nil, is offered the flows that are established, of
	// protocols whose Classifier says what is about a session and what is of
	// it (see [lb.Verdict.Control]). When Serve returns, what it carries stays
	// carried: it is for whoever made it to end that, or for the next Engine
	// that restores the flows to go on with it. It has the Engine be Calm.
	FastPath FastPath
	// Calm has a worker that gets one new client after the other, and has nothing else
	// to do, look for datagrams each half of a millisecond rather than be woken by each
	// (Linux). That takes less time from the processor that they arrive at, where
	// others' packets may be carried; and it is how much later an answer may come.
	Calm bool

	// Logger, if not nil, hears of rare events.
	Logger *slog.Logger
	// Trace, if not nil, hears of events that other parts of a program act on.
	Trace *Trace

	mu       sync.Mutex // below
	running  driver
	down     bool
	restore  []FlowState
	last     []FlowState // when Serve returned
	final    Stats       // likewise
	served   bool
	cancel   context.CancelCauseFunc
	done     chan struct{}       // closed when Serve returns
	quiet    map[lb.ID]time.Time // until when errors of a backend are the same burst
	skipped  atomic.Uint64
	restored atomic.Uint64
}

// A Trace hears of an Engine's rare events, and of the few datagrams that set up
// sessions. Any of its functions may be nil. They
// are called from the packet path, of several goroutines at once, so they must be
// quick, must not block, and must not call the Engine.
type Trace struct {
	// Unreachable is called when the network says that a backend can't be
	// reached, as by an ICMP "port unreachable": at most once a second for
	// each backend, however many packets suffer. err is a syscall.Errno on real sockets.
	Unreachable func(m *lb.Member, err error)
	// Moved is called when an existing flow is given another backend.
	Moved func(f lb.Flow, from, to *lb.Member)
	// Control is called for each datagram that the Classifier says is about a
	// session rather than of it (see [lb.Verdict.Control]), before it is sent
	// on: b is from the client of f, or, if answer is set, from backend m. m is
	// nil if a client's datagram goes to several backends, or to none. b is
	// valid only during the call. Datagrams that aren't of this kind cost
	// nothing.
	Control func(f lb.Flow, m *lb.Member, b []byte, answer bool)
	// Full is called when a new flow was refused because there are MaxFlows.
	Full func(f lb.Flow)
}

// A FlowState is what must be known of an established flow to go on with it in
// another process. It survives encoding/json.
type FlowState struct {
	// Client is where the client sends from.
	Client netip.AddrPort
	// Listener is the address and port the client sends to.
	Listener netip.AddrPort
	// Backend is the name of its backend.
	Backend string
	// Local is the address and port the backend sees.
	Local netip.AddrPort
	// Idle is how long the flow has been silent.
	Idle time.Duration
}

// Stats counts what an Engine has done since it was made, and what it holds.
type Stats struct {
	// Flows are all flows; Unanswered and HalfOpen are those of them that
	// aren't established. Sockets are their upstreams.
	Flows, Unanswered, HalfOpen, Sockets int
	// ClientPackets and ClientBytes came from clients, BackendPackets and
	// BackendBytes from backends.
	ClientPackets, ClientBytes, BackendPackets, BackendBytes uint64
	// Sent counts datagrams handed to the network towards backends, Replied
	// those towards clients.
	Sent, Replied uint64
	// Dropped counts what the Classifier refused from clients, Hidden what it
	// refused from backends.
	Dropped, Hidden uint64
	// Refused counts datagrams for which the Balancer had no backend, Full
	// those of new clients that came when there were MaxFlows, and Closing
	// those that came after Shutdown.
	Refused, Full, Closing uint64
	// SendErrors counts datagrams the network refused to take, OpenErrors
	// upstream sockets that could not be made.
	SendErrors, OpenErrors uint64
	// Unreachable counts errors that the network reported of backends.
	Unreachable uint64
	// Overflow counts datagrams the kernel dropped because its buffer for a
	// listener was full.
	Overflow uint64
	// Opened counts flows that were made; Expired, Recycled and Evicted those
	// that were silent for too long, were one of too many that weren't
	// established, and had to make room. Moved counts changes of backend.
	Opened, Expired, Recycled, Evicted, Moved uint64
	// Restored and Skipped count flows given to Restore that were and could
	// not be continued.
	Restored, Skipped uint64
	// Trains counts sends of several datagrams at once by UDP GSO, and Merged
	// receptions of several at once by UDP GRO. All other counters count
	// datagrams, except that Overflow counts what was to be received at once
	// as one.
	Trains, Merged uint64
	// Carried is how many flows the FastPath carries now. CarriedPackets and
	// CarriedBytes are the part of all packets and bytes, from clients and from
	// backends together, that it has carried, as far as is known: it is asked
	// each few seconds.
	Carried                      int
	CarriedPackets, CarriedBytes uint64
	// Batches counts system calls that sent datagrams of several flows at
	// once, by io_uring (Linux).
	Batches uint64
}

// driver serves the sockets of one Serve.
type driver interface {
	// serve blocks until ctx is done, the drain is complete, or a listener
	// fails. It closes the sockets.
	serve(ctx context.Context) error
	// drain refuses new clients from now on, and lets serve return when
	// there are no flows left.
	drain()
	// flows returns the flows that could be continued elsewhere.
	flows() []FlowState
	stats() Stats
}

// Serve carries datagrams until ctx is done, Shutdown is called, or a socket
// fails. It owns conns, and closes them before it returns. The error is ErrClosed
// after Shutdown, the cause of ctx if that is done, and never nil. An Engine
// serves once.
func (e *Engine) Serve(ctx context.Context, conns ...net.PacketConn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d, err := e.prepare(conns, cancel)
	if err != nil {
		for _, c := range conns {
			if cerr := c.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
				err = errors.Join(err, cerr)
			}
		}
		return err
	}
	var watching sync.WaitGroup
	watched, unwatch := context.WithCancel(ctx)
	if e.FastPath != nil {
		watching.Go(func() { e.watchPool(watched) })
	}
	err = d.serve(ctx)
	unwatch()
	watching.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last, e.final, e.running = d.flows(), d.stats(), nil
	close(e.done)
	switch {
	case err != nil:
		return err
	case e.down:
		return ErrClosed
	}
	return context.Cause(ctx)
}

func (e *Engine) prepare(conns []net.PacketConn, cancel context.CancelCauseFunc) (driver, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.Balancer == nil || e.Balancer.Pool == nil || e.Balancer.Table == nil:
		return nil, errors.New("udp: engine without a balancer that has a pool and a table")
	case len(conns) == 0:
		return nil, errors.New("udp: nothing to serve: no sockets given")
	case e.down:
		return nil, ErrClosed
	case e.served:
		return nil, errors.New("udp: an engine serves only once")
	}
	d, err := e.newDriver(conns)
	if err != nil {
		return nil, err
	}
	e.running, e.served, e.done, e.cancel = d, true, make(chan struct{}), cancel
	return d, nil
}

// Shutdown lets the Engine serve the flows it has, and refuse new ones, until
// none is left or ctx is done; then Serve returns. The flows at that moment can
// still be had from Flows. The error is that of ctx, if it ended first.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.mu.Lock()
	e.down = true
	d, done, cancel := e.running, e.done, e.cancel
	e.mu.Unlock()
	if d == nil {
		return nil
	}
	d.drain()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	cancel(ErrClosed)
	<-done
	return ctx.Err()
}

// Stats returns what has been counted.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	d, s := e.running, e.final
	e.mu.Unlock()
	if d != nil {
		s = d.stats()
	}
	s.Restored, s.Skipped = e.restored.Load(), e.skipped.Load()
	return s
}

// Flows iterates over the established flows as they are when it is called, or,
// after Serve has returned, as they were at its end. What it yields is what
// Restore takes.
func (e *Engine) Flows() iter.Seq[FlowState] {
	e.mu.Lock()
	d, s := e.running, e.last
	e.mu.Unlock()
	if d != nil {
		s = d.flows()
	}
	return slices.Values(s)
}

// Restore has Serve continue these flows, from the same local ports, so that
// backends don't notice that another process serves them. It must be called
// before Serve, with the Pool filled. What can't be continued is skipped and
// counted: because its backend is gone, its port is taken, or no listener has its
// address. A transparent flow needs no port of ours and is always continued.
func (e *Engine) Restore(flows []FlowState) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.restore = append(e.restore, flows...)
}

var errNoListener = errors.New("udp: no listener has its address")

// takeRestore returns what Restore was given, once.
func (e *Engine) takeRestore() []FlowState {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.restore
	e.restore = nil
	// The lists of flows are in the order of when each was last heard of.
	slices.SortStableFunc(r, func(a, b FlowState) int { return cmp.Compare(b.Idle, a.Idle) })
	return r
}

// resumed counts a flow that was to be restored.
func (e *Engine) resumed(f FlowState, err error) {
	if err == nil {
		e.restored.Add(1)
		return
	}
	e.skipped.Add(1)
	if e.Logger != nil && e.Logger.Enabled(context.Background(), slog.LevelDebug) {
		e.Logger.Debug("flow not restored", "client", f.Client, "backend", f.Backend, "local", f.Local, "error", err)
	}
}

// unreachable tells of an error that the network reported of m, once a burst.
func (e *Engine) unreachable(m *lb.Member, err error) {
	now := time.Now()
	e.mu.Lock()
	fresh := !now.Before(e.quiet[m.ID])
	if e.quiet == nil {
		e.quiet = make(map[lb.ID]time.Time)
	}
	if fresh {
		e.quiet[m.ID] = now.Add(time.Second)
	}
	e.mu.Unlock()
	if !fresh {
		return
	}
	if e.Trace != nil && e.Trace.Unreachable != nil {
		e.Trace.Unreachable(m, err)
	}
	if e.Logger != nil {
		e.Logger.Warn("backend unreachable", "backend", m.Name, "error", err)
	}
}

// ringFailed notes that datagrams are sent by a system call each.
func (e *Engine) ringFailed(err error) {
	if e.Logger != nil && e.Logger.Enabled(context.Background(), slog.LevelDebug) {
		e.Logger.Debug("sending without io_uring", "error", err)
	}
}

func (e *Engine) classifier() lb.Classifier {
	if e.Classifier == nil {
		return lb.ByAddr{}
	}
	return e.Classifier
}

func (e *Engine) port(service uint16) uint16 { return cmp.Or(e.Port, service) }

// local returns where the upstream of f must be bound: anywhere, in NAT mode.
func (e *Engine) local(f lb.Flow) netip.AddrPort {
	if e.Transparent {
		return f.Client
	}
	return netip.AddrPort{}
}

func addrPort(a net.Addr) (netip.AddrPort, error) {
	if u, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		ap := u.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return ap, fmt.Errorf("udp: %s address %q is no IP address and port", a.Network(), a)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}
