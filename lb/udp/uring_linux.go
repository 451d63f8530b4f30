package udp

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ring sends or receives datagrams on several sockets by one system call, by
// io_uring. Going into the kernel and back is a good part of what a small datagram
// costs, and sendmmsg and recvmmsg spare it only for datagrams of one socket, whereas
// here most have a socket each.
//
// Nothing is ever left pending: no operation waits (MSG_DONTWAIT), so each has
// succeeded or failed when the call that submits them returns, and its buffer is the
// caller's again. That also means that no kernel thread works behind a worker's back.
//
// The buffers must lie outside of what Go manages: the kernel has their addresses only.
//
// A ring belongs to the thread that makes it: nobody else may submit
// (IORING_SETUP_SINGLE_ISSUER), which spares the kernel some locking.
type ring struct {
	fd    int
	queue []byte // mapped: both rings
	table []byte // mapped: the submissions

	sqHead, sqTail, cqHead, cqTail *uint32
	sqes                           []sqe
	cqes                           []cqe
	tail                           uint32 // of submissions, as they will be
}

// ringSize is how many operations there may be in one call.
const ringSize = maxRuns

// sqe is struct io_uring_sqe, as far as it is needed here.
type sqe struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	len, msgFlags uint32
	userData      uint64
	_, _, _       uint64
}

// cqe is struct io_uring_cqe.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// Of linux/io_uring.h.
const (
	opSend = 26 // IORING_OP_SEND
	opRecv = 27 // IORING_OP_RECV

	setupSubmitAll    = 1 << 7  // a faulty submission doesn't stop those behind it
	setupSingleIssuer = 1 << 12 // Linux 6.0
	setupDeferTaskrun = 1 << 13 // Linux 6.1

	featSingleMmap = 1 << 0
	offQueue       = 0
	offTable       = 0x10000000
	enterGetevents = 1 << 0
)

// newRing makes a ring for the calling thread. Kernels before 6.1 haven't all it
// takes, and an administrator or a sandbox may not permit it (the sysctl
// kernel.io_uring_disabled, seccomp).
func newRing() (*ring, error) {
	p := ringParams{flags: setupSubmitAll | setupSingleIssuer | setupDeferTaskrun}
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, ringSize, uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return nil, os.NewSyscallError("io_uring_setup", e)
	}
	r := &ring{fd: int(fd)}
	if err := r.mapAll(&p); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *ring) mapAll(p *ringParams) (err error) {
	if p.features&featSingleMmap == 0 || p.sqEntries < ringSize || p.cqEntries < p.sqEntries {
		return fmt.Errorf("udp: a kernel with an odd io_uring: features %#x, %d and %d entries", p.features, p.sqEntries, p.cqEntries)
	}
	const access, how = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	size := max(p.sq.array+4*p.sqEntries, p.cq.cqes+uint32(unsafe.Sizeof(cqe{}))*p.cqEntries)
	if r.queue, err = unix.Mmap(r.fd, offQueue, int(size), access, how); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	if r.table, err = unix.Mmap(r.fd, offTable, int(p.sqEntries)*int(unsafe.Sizeof(sqe{})), access, how); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	at := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.queue[off])) }
	r.sqHead, r.sqTail, r.cqHead, r.cqTail = at(p.sq.head), at(p.sq.tail), at(p.cq.head), at(p.cq.tail)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.table[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.queue[p.cq.cqes])), p.cqEntries)
	for i := range p.sqEntries {
		*at(p.sq.array + 4*i) = i
	}
	return nil
}

func (r *ring) close() error {
	var errs []error
	for _, m := range [][]byte{r.queue, r.table} {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	return errors.Join(append(errs, unix.Close(r.fd))...)
}

// send adds the sending of b on the connected socket fd, and recv the reception of a
// datagram from it into b. id comes back with the result. There must not be more than
// ringSize of both between two calls of submit.
func (r *ring) send(fd int, b []byte, id int) {
	r.add(opSend, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, fd, b, id)
}
func (r *ring) recv(fd int, b []byte, id int) { r.add(opRecv, unix.MSG_DONTWAIT, fd, b, id) }

func (r *ring) add(op uint8, flags uint32, fd int, b []byte, id int) {
	s := &r.sqes[r.tail&uint32(len(r.sqes)-1)]
	r.tail++
	*s = sqe{
		opcode: op, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), len: uint32(len(b)),
		msgFlags: flags, userData: uint64(id),
	}
}

// submit does the n operations that have been added, and returns how many of them the
// kernel has taken: the first ones. Each of those has a result. The others are as if
// they had never been added.
func (r *ring) submit(n int) (int, unix.Errno) {
	atomic.StoreUint32(r.sqTail, r.tail)
	// It doesn't block, see mmsg_linux.go.
	taken, _, e := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n), 0, 0, 0, 0)
	if e != 0 {
		taken = 0
	}
	if int(taken) < n {
		r.tail = atomic.LoadUint32(r.sqHead)
		atomic.StoreUint32(r.sqTail, r.tail)
	}
	return int(taken), e
}

// next returns the next result of those that submit has promised: how many bytes it
// were, or an error. broken says that there won't be more results.
func (r *ring) next() (id, n int, e, broken unix.Errno) {
	head := *r.cqHead
	for atomic.LoadUint32(r.cqTail) == head {
		// It can't be, since nothing waits; but if it were, going on would mean
		// to use buffers that the kernel uses too.
		_, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 0, 1, enterGetevents, 0, 0)
		if e != 0 && e != unix.EINTR {
			return 0, 0, 0, e
		}
	}
	c := &r.cqes[head&uint32(len(r.cqes)-1)]
	id, n = int(c.userData), int(c.res)
	atomic.StoreUint32(r.cqHead, head+1)
	if n < 0 {
		return id, 0, unix.Errno(-n), 0
	}
	return id, n, 0, 0
}
