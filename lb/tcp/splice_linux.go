package tcp

import (
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Why not io.Copy, which splices too: it holds its pipe, two descriptors and the
// kernel's array for a megabyte, for as long as it waits for bytes, which for a
// VPN is nearly always; and it says what it has moved only at its end, so an idle
// stream couldn't be told from a busy one.

const (
	// spliceMax is how much is moved at once, and the size of a pipe. An
	// unprivileged user may have 64 MiB in pipes before the kernel makes them
	// tiny (fs.pipe-user-pages-soft).
	spliceMax   = 256 << 10
	spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK
	// maxPipes is how many empty pipes are kept for use.
	maxPipes = 64
)

// pipes keeps empty pipes for use. A pipe is used only while bytes are in it, so
// there are as many as streams that move bytes at one moment.
type pipes struct {
	mu   sync.Mutex
	free []pipe
}

type pipe struct{ r, w int }

func (p *pipes) get() (pipe, error) {
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		got := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		return got, nil
	}
	p.mu.Unlock()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return pipe{}, os.NewSyscallError("pipe2", err)
	}
	// A smaller pipe works as well, only slower.
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, spliceMax)
	return pipe{fds[0], fds[1]}, nil
}

// put takes an empty pipe back.
func (p *pipes) put(x pipe) {
	p.mu.Lock()
	if len(p.free) < maxPipes {
		p.free = append(p.free, x)
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	x.close()
}

func (x pipe) close() {
	unix.Close(x.r)
	unix.Close(x.w)
}

func (p *pipes) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.free {
		x.close()
	}
	p.free = nil
}

// A splicer moves the bytes of one direction.
type splicer struct {
	pipes    *pipes
	src, dst syscall.RawConn

	pipe pipe
	held bool  // there is a pipe, and it may have bytes in it
	n    int   // bytes in the pipe, or that the last write took
	err  error // of the last call
	copy bool  // splicing can't be had: copy instead
}

// splice moves bytes from src to dst until src ends. It returns false if the
// rest must be copied instead; nothing is lost then.
func (e *Engine) splice(p *progress, dst, src net.Conn) (at action, err error, ok bool) {
	from, ok1 := src.(*net.TCPConn)
	to, ok2 := dst.(*net.TCPConn)
	if !ok1 || !ok2 {
		return 0, nil, false
	}
	s := &splicer{pipes: &e.pipes}
	if s.src, err = from.SyscallConn(); err != nil {
		return reading, err, true
	}
	if s.dst, err = to.SyscallConn(); err != nil {
		return writing, err, true
	}
	at, err = s.run(p)
	if s.held {
		s.pipe.close() // what is in it is lost with the stream
	}
	return at, err, !s.copy
}

func (s *splicer) run(p *progress) (action, error) {
	fill, drain := s.fill, s.drain // once: each use would allocate
	for {
		if err := s.src.Read(fill); err != nil {
			return reading, err
		}
		if s.err != nil || s.n == 0 {
			s.release()
			return reading, s.err
		}
		for left := s.n; left > 0; left -= s.n {
			s.n = left
			if err := s.dst.Write(drain); err != nil {
				return writing, err
			}
			if s.err != nil {
				return writing, s.err
			}
			p.spliced.Add(uint64(s.n))
			p.n.Add(uint64(s.n))
		}
		s.release()
	}
}

// fill moves what there is from the socket to a pipe, which it holds only if
// there is something. It reports false to wait for more.
func (s *splicer) fill(fd uintptr) bool {
	if !s.held {
		if s.pipe, s.err = s.pipes.get(); s.err != nil {
			s.copy = true
			return true
		}
		s.held = true
	}
	n, err := splice(int(fd), s.pipe.w, spliceMax)
	switch {
	case err == unix.EAGAIN:
		s.release()
		return false
	case err == unix.EINVAL:
		s.copy = true // not this kind of socket
	}
	s.n, s.err = n, os.NewSyscallError("splice", err)
	return true
}

// drain moves s.n bytes from the pipe to the socket, or as many as it takes.
func (s *splicer) drain(fd uintptr) bool {
	n, err := splice(s.pipe.r, int(fd), s.n)
	if err == unix.EAGAIN {
		return false
	}
	s.n, s.err = n, os.NewSyscallError("splice", err)
	return true
}

func splice(from, to, most int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, most, spliceFlags)
		if err == unix.EINTR {
			continue
		}
		return int(max(n, 0)), err
	}
}

// release gives the empty pipe back.
func (s *splicer) release() {
	if s.held {
		s.pipes.put(s.pipe)
		s.held = false
	}
}
