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
	// spliceMax is how much is moved at once, and the size of a big pipe: with
	// it, a byte costs half of what it does with the usual 64 KiB.
	spliceMax   = 1 << 20
	spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK
	// maxBig is how many pipes are made big. An unprivileged user may have
	// 64 MiB in pipes (fs.pipe-user-pages-soft); beyond, the kernel makes them
	// tiny. Half of that leaves room for hundreds of usual ones.
	maxBig = 32
	// maxSmall is how many empty pipes of the usual size are kept for use.
	maxSmall = 64
)

// pipes keeps empty pipes for use. A pipe is used only while bytes are in it, so
// there are as many as streams that move bytes at one moment.
type pipes struct {
	mu    sync.Mutex // below
	big   []pipe
	small []pipe
	made  int // big ones, in use or not, and those the kernel refused to make big
}

type pipe struct {
	r, w int
	big  bool
}

// get returns an empty pipe, a big one if possible.
func (p *pipes) get() (pipe, error) {
	p.mu.Lock()
	for _, list := range []*[]pipe{&p.big, &p.small} {
		if list == &p.small && p.made < maxBig {
			break
		}
		if n := len(*list); n > 0 {
			x := (*list)[n-1]
			*list = (*list)[:n-1]
			p.mu.Unlock()
			return x, nil
		}
	}
	big := p.made < maxBig
	if big {
		p.made++
	}
	p.mu.Unlock()
	x, err := openPipe(big)
	if big && err != nil {
		p.mu.Lock()
		p.made--
		p.mu.Unlock()
	}
	return x, err
}

func openPipe(big bool) (pipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return pipe{}, os.NewSyscallError("pipe2", err)
	}
	if big {
		_, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, spliceMax)
		big = err == nil
	}
	return pipe{fds[0], fds[1], big}, nil
}

// put takes an empty pipe back.
func (p *pipes) put(x pipe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case x.big:
		p.big = append(p.big, x)
	case len(p.small) < maxSmall:
		p.small = append(p.small, x)
	default:
		x.close()
	}
}

// drop closes a pipe, with whatever is in it.
func (p *pipes) drop(x pipe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x.big {
		p.made--
	}
	x.close()
}

// close closes the pipes that are kept.
func (p *pipes) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range append(p.big, p.small...) {
		x.close()
	}
	p.made -= len(p.big)
	p.big, p.small = nil, nil
}

func (x pipe) close() {
	unix.Close(x.r)
	unix.Close(x.w)
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
		s.pipes.drop(s.pipe) // what is in it is lost with the stream
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
			p.add(s.n)
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
