package builtin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/aovlb/aovlb/lb/tcp"
	"github.com/aovlb/aovlb/lb/udp"
)

// A front is the open sockets of one address. It outlives the engines that
// serve it one after the other: each is given duplicates, so that nothing that
// arrives between two of them is lost.
type front struct {
	key       frontKey
	files     []*os.File
	inherited bool
	owner     *listener
}

type frontKey struct {
	network string
	addr    netip.AddrPort
}

// fronts are all that are open.
type fronts struct {
	mu   sync.Mutex
	open map[frontKey]*front
	// spare are inherited sockets that no listener has asked for yet.
	spare map[frontKey][]*os.File
}

func keyOf(network string, a netip.AddrPort) frontKey {
	return frontKey{network, netip.AddrPortFrom(a.Addr().Unmap(), a.Port())}
}

// inherit takes over sockets that were opened for this process.
func (s *fronts) inherit(files []*os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spare = make(map[frontKey][]*os.File)
	var errs []error
	for _, f := range files {
		k, err := identify(f)
		if err != nil {
			errs = append(errs, fmt.Errorf("inherited socket %s: %w", f.Name(), err))
			continue
		}
		s.spare[k] = append(s.spare[k], f)
	}
	return errors.Join(errs...)
}

// identify says what kind of socket f is, and its address.
func identify(f *os.File) (frontKey, error) {
	if l, err := net.FileListener(f); err == nil {
		defer l.Close()
		a, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			return frontKey{}, fmt.Errorf("listens on %s, not on TCP", l.Addr().Network())
		}
		return keyOf("tcp", a.AddrPort()), nil
	}
	c, err := net.FilePacketConn(f)
	if err != nil {
		return frontKey{}, err
	}
	defer c.Close()
	a, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return frontKey{}, fmt.Errorf("is for %s, not for UDP", c.LocalAddr().Network())
	}
	return keyOf("udp", a.AddrPort()), nil
}

// find returns the front that is open at k, or was inherited for it, or nil.
func (s *fronts) find(k frontKey) *front {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.open[k]; f != nil {
		return f
	}
	files := s.spare[k]
	if len(files) == 0 {
		return nil
	}
	delete(s.spare, k)
	f := &front{key: k, files: files, inherited: true}
	s.put(f)
	return f
}

func (s *fronts) put(f *front) {
	if s.open == nil {
		s.open = make(map[frontKey]*front)
	}
	s.open[f.key] = f
}

// add makes f known.
func (s *fronts) add(f *front) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(f)
}

// claim makes l the owner of f.
func (s *fronts) claim(f *front, l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.owner = l
}

// release closes f, if there is one, which l owns still. Inherited sockets stay open, because they
// can't be opened again.
func (s *fronts) release(f *front, l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f == nil || f.owner != l {
		return
	}
	f.owner = nil
	if f.inherited {
		return
	}
	f.close()
	delete(s.open, f.key)
}

// closeAll closes everything.
func (s *fronts) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.open {
		f.close()
	}
	for _, files := range s.spare {
		for _, f := range files {
			f.Close()
		}
	}
	s.open, s.spare = nil, nil
}

func (f *front) close() {
	for _, file := range f.files {
		file.Close()
	}
}

// openFront opens sockets at the address of l.
func openFront(ctx context.Context, network string, a netip.AddrPort, sockets int) (*front, error) {
	f := &front{key: keyOf(network, a)}
	if network == "tcp" {
		l, err := listenAgain(ctx, a)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		return f, f.keep(l)
	}
	conns, err := udp.Listen(ctx, a, udp.ListenConfig{Sockets: sockets})
	if err != nil {
		return nil, err
	}
	for _, c := range conns {
		defer c.Close()
		file, ok := c.(interface{ File() (*os.File, error) })
		if !ok {
			f.close()
			return nil, fmt.Errorf("a %T can't be kept open across a reload", c)
		}
		if err := f.keep(file); err != nil {
			f.close()
			return nil, err
		}
	}
	return f, nil
}

// listenAgain listens at an address that a listener of ours may have been removed
// from a moment ago, whose engine closes it in its own time.
func listenAgain(ctx context.Context, a netip.AddrPort) (*net.TCPListener, error) {
	const patience = 500 * time.Millisecond
	for begin := time.Now(); ; {
		l, err := new(tcp.ListenConfig).Listen(ctx, a)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) || time.Since(begin) > patience {
			return l, err
		}
		t := time.NewTimer(10 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, err
		}
	}
}

func (f *front) keep(c interface{ File() (*os.File, error) }) error {
	file, err := c.File()
	if err == nil {
		f.files = append(f.files, file)
	}
	return err
}

// packetConns returns duplicates of the sockets, which must not be served by
// anybody else at this moment.
func (f *front) packetConns() ([]net.PacketConn, error) {
	var conns []net.PacketConn
	for _, file := range f.files {
		c, err := net.FilePacketConn(file)
		if err != nil {
			for _, c := range conns {
				c.Close()
			}
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// listeners is packetConns for TCP.
func (f *front) listeners() ([]net.Listener, error) {
	var out []net.Listener
	for _, file := range f.files {
		l, err := net.FileListener(file)
		if err != nil {
			for _, l := range out {
				l.Close()
			}
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// A door is a listener that tells when it is closed, after which nothing comes out
// of it: neither the kernel's queue nor a call of Accept that had begun gives more.
type door struct {
	net.Listener
	once   sync.Once
	closed chan struct{}
}

func newDoor(l net.Listener) *door { return &door{Listener: l, closed: make(chan struct{})} }

// Close closes the listener.
func (d *door) Close() error {
	err := d.Listener.Close()
	d.once.Do(func() { close(d.closed) })
	return err
}

// accepting returns the listeners for the engine of l, which is to own them.
func (l *listener) accepting() ([]net.Listener, error) {
	conns, err := l.front.listeners()
	for i, c := range conns {
		d := newDoor(c)
		l.doors, conns[i] = append(l.doors, d), d
	}
	return conns, err
}

// fits reports whether f can serve a listener that wants so many sockets.
func (f *front) fits(sockets int) bool {
	return f.inherited || f.key.network == "tcp" || len(f.files) == cmp.Or(sockets, 1)
}
