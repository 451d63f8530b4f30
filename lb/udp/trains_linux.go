package udp

import (
	"iter"
	"unsafe"

	"golang.org/x/sys/unix"
)

// trains are messages to be sent by one socket, each of one datagram, or of several
// of one size, of which the last may be smaller: the kernel makes datagrams of them
// again (UDP GSO).
type trains struct {
	n, iovs int
	hdr     [batch]mmsghdr
	iov     [batch]unix.Iovec
	ctl     [batch][txCtlSize]byte
	size    [batch]int  // of the datagrams of each
	count   [batch]int  // how many datagrams each has
	full    [batch]bool // nothing can be added to that one
}

func (t *trains) init() {
	for i := range t.hdr {
		t.hdr[i].Control = &t.ctl[i][0]
	}
}

// crowded reports whether there is no room for another message.
func (t *trains) crowded() bool { return t.n == batch || t.iovs == batch }

// join adds n datagrams of the given size, of which the last may be smaller, to the
// last message, and reports whether they fit. base is the size of its other control
// messages.
func (t *trains) join(b []byte, size, n, base int) bool {
	i := t.n - 1
	if i < 0 || t.full[i] || len(b) == 0 || size > t.size[i] || n > 1 && size != t.size[i] ||
		t.count[i]+n > maxSegments || (t.count[i]+n)*t.size[i] > maxTrain {
		return false
	}
	v := &t.iov[t.iovs-1]
	if unsafe.Add(unsafe.Pointer(v.Base), v.Len) == unsafe.Pointer(unsafe.SliceData(b)) {
		v.SetLen(int(v.Len) + len(b))
	} else {
		if t.iovs == batch {
			return false
		}
		t.put(b)
		t.hdr[i].SetIovlen(int(t.hdr[i].Iovlen) + 1)
	}
	if t.count[i] == 1 {
		t.segment(i, base)
	}
	t.count[i] += n
	t.full[i] = len(b) < n*t.size[i]
	return true
}

// begin adds a message of n datagrams. Nothing will join it if it is alone. Its name,
// and the first base bytes of its control messages, are the caller's.
func (t *trains) begin(b []byte, size, n, base int, alone bool) {
	i := t.n
	t.n++
	h := &t.hdr[i]
	h.Iov = &t.iov[t.iovs]
	h.SetIovlen(1)
	h.SetControllen(base)
	t.put(b)
	t.size[i], t.count[i] = size, n
	t.full[i] = alone || size == 0 || len(b) < n*size
	if n > 1 {
		t.segment(i, base)
	}
}

func (t *trains) put(b []byte) {
	v := &t.iov[t.iovs]
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
	t.iovs++
}

func (t *trains) segment(i, base int) {
	t.hdr[i].SetControllen(base + putSegment(t.ctl[i][base:], uint16(t.size[i])))
}

// sum returns how many datagrams there are in n messages, and how many of these are
// trains.
func (t *trains) sum(at, n int) (datagrams, trains uint64) {
	for _, c := range t.count[at : at+n] {
		datagrams += uint64(c)
		if c > 1 {
			trains++
		}
	}
	return datagrams, trains
}

// datagrams returns the datagrams of a message that is a train.
func (t *trains) datagrams(i int) iter.Seq[[]byte] {
	h := &t.hdr[i]
	return func(yield func([]byte) bool) {
		for _, v := range unsafe.Slice(h.Iov, h.Iovlen) {
			for b := unsafe.Slice(v.Base, v.Len); len(b) > 0; {
				var d []byte
				if d, b = cutOne(b, t.size[i]); !yield(d) {
					return
				}
			}
		}
	}
}
