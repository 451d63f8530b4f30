package capture

import (
	"bufio"
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

// magicNG is the type of the block that a pcapng file begins with.
const magicNG = "\x0a\x0d\x0d\x0a"

// NewReader reads the beginning of a capture file: pcap, with times in
// microseconds or nanoseconds, perhaps compressed by gzip, or pcapng.
func NewReader(r io.Reader) (*Reader, error) {
	b := bufio.NewReader(r)
	magic, err := b.Peek(len(magicNG))
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("it has %d octets: %w", len(magic), io.ErrUnexpectedEOF)
		}
		return nil, fmt.Errorf("capture: no capture file: %w", err)
	}
	if string(magic) == magicNG {
		ng, err := pcapgo.NewNgReader(b, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
		if err != nil {
			return nil, fmt.Errorf("capture: pcapng file: %w", err)
		}
		return &Reader{read: ng.ZeroCopyReadPacketData, link: func(ci gopacket.CaptureInfo) LinkType {
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
