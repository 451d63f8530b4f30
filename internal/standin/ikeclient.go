package standin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/ikev2"
)

// A Machine is a client computer: one pair of UDP sockets that all its tunnels
// share, as the device tunnel and the user tunnel of one Windows computer do.
// Its exported fields must not be changed once Run has been called.
type Machine struct {
	// IKE and NATT are the service's address with the ports for IKE (500) and
	// for NAT traversal (4500).
	IKE, NATT netip.AddrPort
	// Open opens the sockets for IKE and NATT: once at the beginning and once
	// for each Move, when they may have other addresses.
	Open func() (ike, natt Conn, err error)
	// Tunnels are kept up by Run.
	Tunnels []*Tunnel

	wrongSource atomic.Uint64
	moved       chan struct{}
	once        sync.Once

	mu        sync.Mutex
	ike, natt Conn
	bySPI     map[ikev2.SPI]*Tunnel // by the client's IKE SPI
	byESP     map[uint32]*Tunnel    // by the client's ESP SPI
}

// A Tunnel is an IKE SA with one child SA through which it sends numbered
// messages, and which is made anew when it is lost. It behaves as Windows does:
// requests are repeated after a second, and what stays unanswered is given up for
// a new SA.
type Tunnel struct {
	// Name is the identity it proves.
	Name string
	// Secret is the key that it shares with the gateways.
	Secret []byte
	// Group is the key exchange group it guesses first: 0 means P-256. It offers
	// MODP-2048 too.
	Group ikev2.Group
	// CBC makes it offer AES-CBC with HMAC instead of AES-GCM.
	CBC bool
	// Fragment, if not 0, is into how many bytes IKE_AUTH is cut, which then
	// carries as many certificate requests as that of a Windows computer.
	Fragment int
	// Every is the time between messages; 0 means a second.
	Every time.Duration
	// Patience is how long no answer may come before the tunnel asks whether the
	// gateway lives (DPD); 0 means ten times Every.
	Patience time.Duration
	// Repeat is the time after which a request is repeated; 0 means a second.
	Repeat time.Duration
	// Tries is how often a request is sent before the SA is given up; 0
	// means 3.
	Tries int
	// Trace, if not nil, hears of what happens.
	Trace *TunnelTrace
	// Logger, if not nil, hears why SAs fail.
	Logger *slog.Logger

	machine   *Machine
	inbox     chan arrival
	wantRekey atomic.Bool
	moved     atomic.Bool // the gateway must be told of a new address

	mu     sync.Mutex
	status TunnelStatus
}

// A TunnelTrace hears of a tunnel. Its functions may be nil and must not block.
type TunnelTrace struct {
	// Up is called when a tunnel has been established at a gateway.
	Up func(t *Tunnel, gateway string)
	// Lost is called when an established tunnel has been given up.
	Lost func(t *Tunnel, gateway string, err error)
}

// TunnelStatus is what a tunnel knows of itself.
type TunnelStatus struct {
	// Gateway is the name that the gateway proved; empty while there is none.
	Gateway string
	// Established counts SAs that were established, Failed attempts that failed.
	Established, Failed int
	// Sent and Received count messages and the answers to them.
	Sent, Received uint64
	// Alien counts answers that named another gateway than the SA's.
	Alien uint64
	// Rekeyed counts IKE SAs replaced by rekeying; Moves the address changes
	// that the gateway confirmed.
	Rekeyed, Moves int
	// Lost is when the tunnel was last given up or stopped being answered,
	// Back when it was answered again; zero if that never happened.
	Lost, Back time.Time
}

// Status returns what the tunnel knows now.
func (t *Tunnel) Status() TunnelStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.status
}

func (t *Tunnel) note(f func(s *TunnelStatus)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.status)
}

// Rekey makes the tunnel replace its IKE SA soon.
func (t *Tunnel) Rekey() { t.wantRekey.Store(true) }

// An arrival is a datagram for a tunnel.
type arrival struct {
	b   []byte
	esp bool
}

// init makes what Run and the other methods share.
func (m *Machine) init() {
	m.once.Do(func() {
		m.moved = make(chan struct{}, 1)
		m.bySPI, m.byESP = make(map[ikev2.SPI]*Tunnel), make(map[uint32]*Tunnel)
		for _, t := range m.Tunnels {
			t.machine = m
			t.inbox = make(chan arrival, 32)
		}
	})
}

// Move closes the sockets and opens others, as when a computer changes from one
// network to another. The tunnels tell their gateways.
func (m *Machine) Move() {
	m.init()
	select {
	case m.moved <- struct{}{}:
	default:
	}
}

// WrongSource counts datagrams that didn't come from where the machine had sent
// to: answers must leave from the address that was asked.
func (m *Machine) WrongSource() uint64 { return m.wrongSource.Load() }

// Run keeps the tunnels up until ctx is done.
func (m *Machine) Run(ctx context.Context) error {
	m.init()
	closed, err := m.open(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, t := range m.Tunnels {
		wg.Go(func() { t.run(ctx) })
	}
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			m.close()
			closed()
			return context.Cause(ctx)
		case <-m.moved:
		}
		m.close()
		closed()
		if closed, err = m.open(ctx); err != nil {
			cancel(err)
			return err
		}
		for _, t := range m.Tunnels {
			t.moved.Store(true)
		}
	}
}

// open opens the sockets and reads them; the function it returns awaits the
// readers.
func (m *Machine) open(ctx context.Context) (wait func(), err error) {
	ike, natt, err := m.Open()
	if err != nil {
		return nil, fmt.Errorf("standin: client sockets: %w", err)
	}
	m.mu.Lock()
	m.ike, m.natt = ike, natt
	m.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { m.read(ctx, ike, m.IKE) })
	wg.Go(func() { m.read(ctx, natt, m.NATT) })
	return wg.Wait, nil
}

func (m *Machine) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ike.Close()
	m.natt.Close()
}

func (m *Machine) send(list [][]byte, natt bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range list {
		if natt {
			m.natt.WriteToUDPAddrPort(b, m.NATT)
		} else {
			m.ike.WriteToUDPAddrPort(b, m.IKE)
		}
	}
}

func (m *Machine) read(ctx context.Context, c Conn, service netip.AddrPort) {
	b := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if errors.Is(err, errRefused) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return
		}
		if netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != service {
			m.wrongSource.Add(1)
			continue
		}
		m.dispatch(append([]byte(nil), b[:n]...), service == m.NATT)
	}
}

// dispatch hands a datagram to its tunnel, by the SPI the tunnel chose.
func (m *Machine) dispatch(b []byte, natt bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var t *Tunnel
	a := arrival{b: b}
	switch {
	case len(b) < 4:
		return
	case natt && binary.BigEndian.Uint32(b) != 0:
		a.esp = true
		t = m.byESP[binary.BigEndian.Uint32(b)]
	default:
		if natt {
			a.b = b[4:]
		}
		h, err := ikev2.ParseHeader(a.b)
		if err != nil {
			return
		}
		t = m.bySPI[ownSPI(h)]
	}
	if t == nil {
		return
	}
	select {
	case t.inbox <- a:
	default:
	}
}

func (m *Machine) listen(t *Tunnel, spi ikev2.SPI, esp uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bySPI[spi] = t
	m.byESP[esp] = t
}

func (m *Machine) unlisten(spi ikev2.SPI, esp uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.bySPI, spi)
	delete(m.byESP, esp)
}
