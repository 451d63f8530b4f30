package sstp

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// What a session costs while nothing moves is what its two readers hold while they
// wait, for a VPN waits nearly always. A Read that blocks within crypto/tls holds a
// buffer and a stack as deep as decryption goes. So the waiting is apart: a wire
// says that nothing is there, instead of waiting for it, crypto/tls passes that on
// and goes on later where it was, and whoever reads waits at the wire, with empty
// hands.

// maxPayload is what a record of TLS carries at most (RFC 8446 §5.1).
const maxPayload = 16 << 10

// errDry says that a wire has nothing to read now. It is temporary, so that
// crypto/tls takes it for no end.
var errDry net.Error = dryError{}

type dryError struct{}

func (dryError) Error() string   { return "sstp: nothing to read yet" }
func (dryError) Timeout() bool   { return false }
func (dryError) Temporary() bool { return true }

// A wire is the TCP connection under a side of a session.
type wire struct {
	net.Conn
	raw syscall.RawConn // nil if its reader can't wait apart
	// dries has Read return errDry rather than wait.
	dries bool

	// Of the reader; the functions are made once, as each use would allocate.
	into        []byte
	n           int
	err         error
	short       bool // the last Read took all there was
	waited      bool
	has         bool // wait has read a byte
	one         [1]byte
	later       error // of what comes after it
	ended       bool  // Read has returned an error that is an end
	records     records
	take, awake func(fd uintptr) bool

	mu     sync.Mutex // below
	corked bool
	out    *[]byte // what was written since
}

// newWire returns the wire of a connection. Until dries is set it is that
// connection, no more.
func newWire(c net.Conn) *wire {
	w := &wire{Conn: c}
	if s, ok := c.(syscall.Conn); ok && canWait {
		if raw, err := s.SyscallConn(); err == nil {
			w.raw = raw
			w.take, w.awake = w.takeOnce, w.awakeOnce
		}
	}
	return w
}

// Read reads what there is. If dries is set and there is nothing, it returns errDry.
func (w *wire) Read(b []byte) (int, error) {
	if !w.has && !w.dries && w.later == nil {
		n, err := w.Conn.Read(b)
		w.records.count(b[:n])
		w.ended = w.ended || err != nil
		return n, err
	}
	if len(b) == 0 {
		return 0, nil
	}
	n := 0
	if w.has {
		w.has, b[0] = false, w.one[0]
		n++
	}
	m, err := w.readNow(b[n:])
	w.records.count(b[:n+m])
	if n+m > 0 && err != nil {
		if !isDry(err) {
			w.later = err
		}
		err = nil
	}
	w.ended = w.ended || err != nil && !isDry(err)
	return n + m, err
}

// readNow reads without waiting.
func (w *wire) readNow(b []byte) (int, error) {
	if err := w.later; err != nil {
		w.later = nil
		return 0, err
	}
	if w.short || len(b) == 0 {
		w.short = false
		return 0, errDry
	}
	w.into, w.n, w.err = b, 0, nil
	err := w.raw.Read(w.take)
	w.into = nil
	w.short = w.n > 0 && w.n < len(b)
	if err == nil {
		err = w.err
	}
	return w.n, err
}

// wait returns when there is something to read, or an end. An error is that of the
// connection.
func (w *wire) wait() error {
	if w.has || w.later != nil {
		return nil
	}
	w.short, w.waited, w.err = false, false, nil
	err := w.raw.Read(w.awake)
	if err == nil {
		err = w.err
	}
	w.ended = w.ended || err != nil
	return err
}

// A records counts records of TLS as they go by, by their headers.
type records struct {
	off  bool // it isn't TLS
	n    int  // that have ended
	have int  // bytes of the header that is under way
	left int  // bytes of the record after it
}

const recordHeader = 5

func (r *records) count(b []byte) {
	for len(b) > 0 && !r.off {
		if r.have < recordHeader {
			if r.have == 3 {
				r.left = int(b[0]) << 8
			} else if r.have == 4 {
				r.left |= int(b[0])
			}
			r.have++
			b = b[1:]
		} else {
			n := min(r.left, len(b))
			r.left -= n
			b = b[n:]
		}
		if r.have == recordHeader && r.left == 0 {
			r.n, r.have = r.n+1, 0
		}
	}
}

// whole reports whether nothing of a record is under way.
func (r *records) whole() bool { return r.have == 0 }

// wires keeps buffers for what is written while a wire is corked.
var wires = sync.Pool{New: func() any {
	b := make([]byte, 0, 4*(maxPayload+256))
	return &b
}}

// cork has what is written held back until flush: TLS writes each record by itself.
func (w *wire) cork() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corked, w.out = true, wires.Get().(*[]byte)
}

// flush writes what was held back.
func (w *wire) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.out
	w.corked, w.out = false, nil
	_, err := w.Conn.Write(*b)
	*b = (*b)[:0]
	wires.Put(b)
	return err
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.corked {
		return w.Conn.Write(b)
	}
	*w.out = append(*w.out, b...)
	return len(b), nil
}

// isDry reports whether err says that there is nothing to read now.
func isDry(err error) bool { return errors.Is(err, errDry) }
