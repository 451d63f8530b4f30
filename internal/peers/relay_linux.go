package peers

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A Relay carries datagrams to a server and back, as badly as it is told to. It
// takes the place of a network emulator in the kernel, which not every kernel has.
type Relay struct {
	// Addr is where clients send to.
	Addr netip.AddrPort

	to    netip.AddrPort
	lose  float64
	delay time.Duration
	host  *Host
	conn  *net.UDPConn

	mu      sync.Mutex
	flows   map[netip.AddrPort]*net.UDPConn
	carried int
	lost    int
	closed  bool
	wg      sync.WaitGroup
}

// Relay starts a relay in the namespace, at listen. Of all datagrams it loses a
// part, from 0 to 1, and delays others by up to delay each, so that they overtake
// each other.
func (h *Host) Relay(listen, to netip.AddrPort, lose float64, delay time.Duration) *Relay {
	t := h.net.t
	t.Helper()
	r := &Relay{Addr: listen, to: to, lose: lose, delay: delay, host: h, flows: make(map[netip.AddrPort]*net.UDPConn)}
	err := h.Do(func() (err error) {
		r.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(listen))
		return err
	})
	if err != nil {
		t.Fatalf("peers: relay: %v", err)
	}
	r.Addr = r.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	_ = r.conn.SetReadBuffer(4 << 20)
	r.wg.Go(r.run)
	t.Cleanup(r.close)
	return r
}

// Counts returns how many datagrams were carried and lost.
func (r *Relay) Counts() (carried, lost int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.carried, r.lost
}

func (r *Relay) close() {
	r.mu.Lock()
	r.closed = true
	_ = r.conn.Close() // nothing is lost with it
	for _, c := range r.flows {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *Relay) run() {
	b := make([]byte, 1<<16)
	for {
		n, from, err := r.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if c := r.flow(from); c != nil {
			r.carry(b[:n], func(b []byte) { _, _ = c.Write(b) })
		}
	}
}

// flow returns the socket for the datagrams of one client.
func (r *Relay) flow(from netip.AddrPort) *net.UDPConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.flows[from]; c != nil || r.closed {
		return c
	}
	var c *net.UDPConn
	err := r.host.Do(func() (err error) {
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(r.to))
		return err
	})
	if err != nil {
		return nil
	}
	r.flows[from] = c
	r.wg.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, err := c.Read(b)
			if r.over() {
				return
			}
			if err == nil {
				r.carry(b[:n], func(b []byte) { _, _ = r.conn.WriteToUDPAddrPort(b, from) })
			}
		}
	})
	return c
}

func (r *Relay) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

func (r *Relay) carry(b []byte, send func([]byte)) {
	lost := rand.Float64() < r.lose
	r.mu.Lock()
	if lost {
		r.lost++
	} else {
		r.carried++
	}
	r.mu.Unlock()
	if lost {
		return
	}
	b = append([]byte(nil), b...)
	if r.delay <= 0 {
		send(b)
		return
	}
	time.AfterFunc(rand.N(r.delay), func() { send(b) })
}
