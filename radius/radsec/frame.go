package radsec

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/aovlb/aovlb/radius"
)

// Port is the port of RadSec (RFC 6614 §2.1).
const Port = 2083

// Secret returns the secret that RADIUS has inside TLS (RFC 6614 §2.3).
func Secret() radius.Secret { return radius.NewSecret([]byte("radsec")) }

// ErrFrame says that what a connection carries can't be divided into packets. It
// has to be closed then, for where the next one begins isn't known.
var ErrFrame = errors.New("radsec: length isn't 20 to 4096")

// A framer reads packets from a stream. Between them it waits as long as idle
// says, but a packet that has begun must be there within whole.
type framer struct {
	conn  net.Conn
	r     *bufio.Reader
	idle  time.Duration
	whole time.Duration
}

func newFramer(c net.Conn, idle, whole time.Duration) *framer {
	return &framer{conn: c, r: bufio.NewReaderSize(c, 2*radius.MaxLen), idle: idle, whole: whole}
}

// next reads a packet into b, which has room for [radius.MaxLen] bytes, and
// returns its length.
func (f *framer) next(b []byte) (int, error) {
	if f.r.Buffered() == 0 {
		if err := f.conn.SetReadDeadline(after(f.idle)); err != nil {
			return 0, err
		}
		if _, err := f.r.Peek(1); err != nil {
			return 0, err
		}
	}
	if f.r.Buffered() < radius.HeaderLen || !f.hasWhole() {
		if err := f.conn.SetReadDeadline(after(f.whole)); err != nil {
			return 0, err
		}
	}
	return readPacket(f.r, b)
}

// hasWhole reports whether the next packet has been received as a whole.
func (f *framer) hasWhole() bool {
	head, err := f.r.Peek(radius.HeaderLen)
	return err == nil && f.r.Buffered() >= int(binary.BigEndian.Uint16(head[2:]))
}

func after(d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return time.Now().Add(d)
}

// readPacket reads one packet from a stream.
func readPacket(r io.Reader, b []byte) (int, error) {
	if _, err := io.ReadFull(r, b[:radius.HeaderLen]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < radius.HeaderLen || n > radius.MaxLen {
		return 0, fmt.Errorf("%w: it is %d", ErrFrame, n)
	}
	if _, err := io.ReadFull(r, b[radius.HeaderLen:n]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	return n, nil
}
