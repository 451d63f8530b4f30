package capture

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// A Reader reads a capture file.
type Reader struct {
	read   func() ([]byte, gopacket.CaptureInfo, error)
	link   func(gopacket.CaptureInfo) LinkType
	number int
}

// What files begin with: of pcapng the type of the first block.
const (
	magicNG   = "\x0a\x0d\x0d\x0a"
	magicGzip = "\x1f\x8b"
)

// What in a pcapng file is no packet, such as descriptions of interfaces, is kept, and
// takes up to fifty times its room in the file. So there must be no more of it than
// maxOther octets. A packet has roomPerPacket for its own header and options.
const (
	maxOther      = 8 << 20
	roomPerPacket = 256
)

// metered reads only so much.
type metered struct {
	r    io.Reader
	left int
}

func (m *metered) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, fmt.Errorf("more than %d MiB of it are no packets", maxOther>>20)
	}
	n, err := m.r.Read(p[:min(len(p), 64<<10)])
	m.left -= n
	return n, err
}

// NewReader reads the beginning of a capture file: pcap, with times in
// microseconds or nanoseconds, or pcapng; perhaps compressed by gzip.
func NewReader(r io.Reader) (*Reader, error) {
	b := bufio.NewReader(r)
	if magic, err := b.Peek(len(magicGzip)); err == nil && string(magic) == magicGzip {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("capture: no capture file: it begins as gzip does: %w", err)
		}
		b = bufio.NewReader(z)
	}
	magic, err := b.Peek(len(magicNG))
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("it has %d octets: %w", len(magic), io.ErrUnexpectedEOF)
		}
		return nil, fmt.Errorf("capture: no capture file: %w", err)
	}
	if string(magic) == magicNG {
		in := &metered{r: b, left: maxOther}
		ng, err := pcapgo.NewNgReader(in, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("there is no section of version 1 with packets in it: %w", io.ErrUnexpectedEOF)
		}
		if err != nil {
			return nil, fmt.Errorf("capture: pcapng file: %w", err)
		}
		read := func() ([]byte, gopacket.CaptureInfo, error) {
			data, ci, err := ng.ZeroCopyReadPacketData()
			in.left = min(in.left+len(data)+roomPerPacket, maxOther)
			return data, ci, err
		}
		return &Reader{read: read, link: func(ci gopacket.CaptureInfo) LinkType {
			if len(ci.AncillaryData) > 0 {
				if l, ok := ci.AncillaryData[0].(layers.LinkType); ok {
					return LinkType(l)
				}
			}
			return LinkType(ng.LinkType())
		}}, nil
	}
	p, err := pcapgo.NewReader(b)
	if err != nil {
		return nil, fmt.Errorf("capture: neither pcap nor pcapng: %w", err)
	}
	link := LinkType(p.LinkType())
	if !link.known() {
		return nil, fmt.Errorf("capture: packets of link type %d (%v) can't be read, those of Ethernet, Linux cooked, loopback and raw IP can", uint16(link), link)
	}
	return &Reader{read: p.ZeroCopyReadPacketData, link: func(gopacket.CaptureInfo) LinkType { return link }}, nil
}

// Next returns the next packet. The error is io.EOF at the end of the file, and
// another if the file ends within a packet or is damaged.
func (r *Reader) Next() (Packet, error) {
	data, ci, err := r.read()
	if err != nil {
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return Packet{}, io.EOF
		}
		return Packet{}, fmt.Errorf("capture: after packet %d: %w", r.number, err)
	}
	r.number++
	return Packet{Number: r.number, Time: ci.Timestamp, Link: r.link(ci), Data: data, Length: max(ci.Length, len(data))}, nil
}
