package standin

import (
	"bytes"
	"testing"
)

func TestHDLC(t *testing.T) {
	var wire bytes.Buffer
	h := &HDLC{Stream: &wire}
	frames := [][]byte{{0xff, 3, 0xc0, 0x21, 1, 1, 0, 4}, append([]byte{0xff, 3}, bytes.Repeat([]byte{0x7e, 0x7d, 0, 0x41}, 300)...)}
	for _, f := range frames {
		if err := h.Send(f); err != nil {
			t.Fatal(err)
		}
		wire.WriteString("noise between frames\x7e")
	}
	for _, want := range frames {
		if got, err := h.Receive(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%x, %v; want %x", got, err, want)
		}
	}
	// RFC 1662's good final FCS.
	sum := fcs16(frames[0]) ^ 0xffff
	if got := fcs16(append(frames[0], byte(sum), byte(sum>>8))); got != 0xf0b8 {
		t.Errorf("final FCS %04x", got)
	}
}

func FuzzHDLC(f *testing.F) {
	f.Add([]byte{0x7e, 0xff, 0x7d, 0x23, 0xc0, 0x7e})
	f.Fuzz(func(t *testing.T, b []byte) {
		h := &HDLC{Stream: bytes.NewBuffer(b)}
		for {
			frame, err := h.Receive()
			if err != nil {
				return
			}
			if len(frame) < 3 || len(frame) > len(b) {
				t.Fatalf("frame of %d bytes from %d", len(frame), len(b))
			}
		}
	})
}
