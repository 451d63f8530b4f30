package standin

import (
	"bufio"
	"errors"
	"io"
	"sync"
)

// PPP on a terminal is framed as in RFC 1662: a flag, 0x7e, between frames, bytes
// that could be taken for something else escaped by 0x7d, and a checksum at the
// end of each frame.

const (
	hdlcFlag   = 0x7e
	hdlcEscape = 0x7d
)

// HDLC sends and receives PPP frames over a stream, such as a terminal. Its methods
// may be called from two goroutines, one for each direction.
type HDLC struct {
	// Stream carries the bytes.
	Stream io.ReadWriter

	mu sync.Mutex // of writing
	r  *bufio.Reader
}

// fcs16 is the checksum of RFC 1662 §C.2.
func fcs16(b []byte) uint16 {
	fcs := uint16(0xffff)
	for _, c := range b {
		fcs ^= uint16(c)
		for range 8 {
			if fcs&1 != 0 {
				fcs = fcs>>1 ^ 0x8408
			} else {
				fcs >>= 1
			}
		}
	}
	return fcs
}

// Send sends a frame, which begins with ff 03.
func (h *HDLC) Send(frame []byte) error {
	sum := fcs16(frame) ^ 0xffff
	out := []byte{hdlcFlag}
	for _, c := range append(frame[:len(frame):len(frame)], byte(sum), byte(sum>>8)) {
		if c < 0x20 || c == hdlcFlag || c == hdlcEscape {
			out = append(out, hdlcEscape, c^0x20)
			continue
		}
		out = append(out, c)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.Stream.Write(append(out, hdlcFlag))
	return err
}

// Receive returns the next frame whose checksum is right, without it.
func (h *HDLC) Receive() ([]byte, error) {
	const most = 4096
	if h.r == nil {
		h.r = bufio.NewReader(h.Stream)
	}
	var frame []byte
	escaped := false
	for {
		c, err := h.r.ReadByte()
		switch {
		case err != nil:
			return nil, err
		case len(frame) > most:
			return nil, errors.New("standin: HDLC frame over 4096 bytes")
		case c == hdlcFlag:
			if n := len(frame); n > 4 && fcs16(frame) == 0xf0b8 {
				return frame[:n-2], nil
			}
			frame, escaped = nil, false
		case c == hdlcEscape:
			escaped = true
		case escaped:
			frame, escaped = append(frame, c^0x20), false
		default:
			frame = append(frame, c)
		}
	}
}
