package tcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
)

// The PROXY protocol, by its specification (haproxy.org, proxy-protocol.txt).
//
// Version 1 (§2.1) is one line of at most 107 bytes:
//
//	PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n
//	PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n
//	PROXY UNKNOWN ... \r\n
//
// Version 2 (§2.2) is binary:
//
//	 0  12 bytes  signature: \r\n\r\n\0\r\nQUIT\n
//	12  1 byte    version 2 in the high half; command: 0 LOCAL, 1 PROXY
//	13  1 byte    family in the high half: 0 unspecified, 1 IPv4, 2 IPv6,
//	              3 Unix; transport: 0 unspecified, 1 stream, 2 datagram
//	14  2 bytes   length of what follows
//	16            IPv4: 4 source, 4 destination, 2 source port, 2 destination
//	              port; IPv6: 16, 16, 2, 2; then records (type, length 2,
//	              value), which are skipped

// A ProxyVersion is a version of the PROXY protocol.
type ProxyVersion uint8

const (
	// ProxyNone is no PROXY protocol.
	ProxyNone ProxyVersion = iota
	// ProxyV1 is the line of text.
	ProxyV1
	// ProxyV2 is the binary header.
	ProxyV2
)

// MaxProxyHeader bounds a PROXY header, records included.
const MaxProxyHeader = 4096

const maxProxyV1 = 107

var (
	proxyV1 = []byte("PROXY ")
	proxyV2 = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

// What ParseProxy says.
var (
	// ErrProxyShort says that the header isn't complete.
	ErrProxyShort = errors.New("tcp: PROXY header is incomplete")
	// ErrProxyMissing says that the bytes don't start with one.
	ErrProxyMissing = errors.New("tcp: no PROXY header")
)

// A ProxyHeader is what a PROXY header says.
type ProxyHeader struct {
	// Local says that the proxy connected for itself, to check our health
	// say: the addresses are those of the connection.
	Local bool
	// Source is the client, Destination where it came to. Both are zero if
	// the header doesn't tell.
	Source, Destination netip.AddrPort
}

// ParseProxy reads a header of either version from the start of b, and says how
// many bytes it has. The error is ErrProxyShort as long as more bytes could make
// b right.
func ParseProxy(b []byte) (h ProxyHeader, n int, err error) {
	switch {
	case hasPrefix(b, proxyV2):
		return parseProxyV2(b)
	case hasPrefix(b, proxyV1):
		return parseProxyV1(b)
	}
	return h, 0, ErrProxyMissing
}

// hasPrefix reports whether b starts with prefix, as far as it goes.
func hasPrefix(b, prefix []byte) bool {
	n := min(len(b), len(prefix))
	return bytes.Equal(b[:n], prefix[:n])
}

func parseProxyV1(b []byte) (ProxyHeader, int, error) {
	end := bytes.IndexByte(b[:min(len(b), maxProxyV1)], '\n')
	if end < 0 {
		if len(b) >= maxProxyV1 {
			return ProxyHeader{}, 0, fmt.Errorf("tcp: PROXY line is over %d bytes", maxProxyV1)
		}
		return ProxyHeader{}, 0, ErrProxyShort
	}
	if end < len(proxyV1) || b[end-1] != '\r' {
		return ProxyHeader{}, 0, errors.New("tcp: PROXY line doesn't end in CRLF")
	}
	words := bytes.Split(b[len(proxyV1):end-1], []byte(" "))
	if string(words[0]) == "UNKNOWN" {
		return ProxyHeader{}, end + 1, nil
	}
	four := string(words[0]) == "TCP4"
	if len(words) != 5 || !four && string(words[0]) != "TCP6" {
		return ProxyHeader{}, 0, errors.New("tcp: PROXY line isn't of TCP4, TCP6 or UNKNOWN")
	}
	src, err1 := proxyAddr(words[1], words[3], four)
	dst, err2 := proxyAddr(words[2], words[4], four)
	if err := errors.Join(err1, err2); err != nil {
		return ProxyHeader{}, 0, err
	}
	return ProxyHeader{Source: src, Destination: dst}, end + 1, nil
}

// proxyAddr reads an address and a port of version 1. IPv4-mapped addresses
// become IPv4, as everywhere in this package.
func proxyAddr(addr, port []byte, four bool) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(string(addr))
	if err != nil || a.Is4() != four || a.Zone() != "" {
		return netip.AddrPort{}, errors.New("tcp: PROXY line has a wrong address")
	}
	p, err := strconv.ParseUint(string(port), 10, 16)
	if err != nil || len(port) > 1 && port[0] == '0' || port[0] == '+' {
		return netip.AddrPort{}, errors.New("tcp: PROXY line has a wrong port")
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), nil
}

func parseProxyV2(b []byte) (ProxyHeader, int, error) {
	if len(b) < 16 {
		return ProxyHeader{}, 0, ErrProxyShort
	}
	if b[12]>>4 != 2 || b[12]&15 > 1 {
		return ProxyHeader{}, 0, fmt.Errorf("tcp: PROXY header has unknown version or command %#02x", b[12])
	}
	n := 16 + int(binary.BigEndian.Uint16(b[14:]))
	if n > MaxProxyHeader {
		return ProxyHeader{}, 0, fmt.Errorf("tcp: PROXY header is over %d bytes", MaxProxyHeader)
	}
	if len(b) < n {
		return ProxyHeader{}, 0, ErrProxyShort
	}
	h := ProxyHeader{Local: b[12]&15 == 0}
	body := b[16:n]
	size := 0
	switch b[13] {
	case 0x11:
		size = 4
	case 0x21:
		size = 16
	}
	if h.Local || size == 0 {
		return h, n, nil
	}
	if len(body) < 2*size+4 {
		return ProxyHeader{}, 0, errors.New("tcp: PROXY header is too short for its addresses")
	}
	src, _ := netip.AddrFromSlice(body[:size])
	dst, _ := netip.AddrFromSlice(body[size : 2*size])
	ports := body[2*size:]
	h.Source = netip.AddrPortFrom(src.Unmap(), binary.BigEndian.Uint16(ports))
	h.Destination = netip.AddrPortFrom(dst.Unmap(), binary.BigEndian.Uint16(ports[2:]))
	return h, n, nil
}

// Append appends the header in version v to b, and nothing for ProxyNone. If one
// of the addresses is IPv4 and the other IPv6, both are written as IPv6.
func (h ProxyHeader) Append(b []byte, v ProxyVersion) []byte {
	src, dst := h.Source.Addr().Unmap(), h.Destination.Addr().Unmap()
	known := src.IsValid() && dst.IsValid() && !h.Local
	four := known && src.Is4() && dst.Is4()
	switch v {
	case ProxyV1:
		return h.appendV1(b, src, dst, known, four)
	case ProxyV2:
		return h.appendV2(b, src, dst, known, four)
	}
	return b
}

func (h ProxyHeader) appendV1(b []byte, src, dst netip.Addr, known, four bool) []byte {
	b = append(b, proxyV1...)
	switch {
	case !known:
		return append(b, "UNKNOWN\r\n"...)
	case four:
		b = append(b, "TCP4 "...)
	default:
		b = append(b, "TCP6 "...)
		src, dst = netip.AddrFrom16(src.As16()), netip.AddrFrom16(dst.As16())
	}
	b = append(src.AppendTo(b), ' ')
	b = append(dst.AppendTo(b), ' ')
	b = append(strconv.AppendUint(b, uint64(h.Source.Port()), 10), ' ')
	b = strconv.AppendUint(b, uint64(h.Destination.Port()), 10)
	return append(b, "\r\n"...)
}

func (h ProxyHeader) appendV2(b []byte, src, dst netip.Addr, known, four bool) []byte {
	b = append(b, proxyV2...)
	switch {
	case h.Local:
		return append(b, 0x20, 0, 0, 0)
	case !known:
		return append(b, 0x21, 0, 0, 0)
	case four:
		b = append(b, 0x21, 0x11, 0, 12)
		b = append(b, src.AsSlice()...)
		b = append(b, dst.AsSlice()...)
	default:
		b = append(b, 0x21, 0x21, 0, 36)
		s, d := src.As16(), dst.As16()
		b = append(append(b, s[:]...), d[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, h.Source.Port())
	return binary.BigEndian.AppendUint16(b, h.Destination.Port())
}
