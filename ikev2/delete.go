package ikev2

import "encoding/binary"

// A Delete is the body of a Delete payload (RFC 7296 §3.11):
//
//	0  protocol (1)   1  length of an SPI (1)   2  number of SPIs (2)   4  SPIs
type Delete struct {
	// Protocol is what the SAs are of. With ProtocolIKE it is the SA that the
	// message belongs to, and there are no SPIs.
	Protocol ProtocolID
	// SPISize is the length of each SPI: 4 for ESP and AH, 0 for IKE.
	SPISize int
	// SPIs are those the sender receives by, one after the other; part of what
	// was parsed.
	SPIs []byte
}

// ParseDelete reads the body of a Delete payload, copying nothing.
func ParseDelete(body []byte) (Delete, error) {
	if len(body) < 4 {
		return Delete{}, parseError(len(body), "delete", "payload ends here, 4 octets are needed")
	}
	d := Delete{Protocol: ProtocolID(body[0]), SPISize: int(body[1]), SPIs: body[4:]}
	n := int(binary.BigEndian.Uint16(body[2:]))
	switch {
	case n*d.SPISize != len(d.SPIs):
		return Delete{}, parseError(2, "number of SPIs", "%d of %d octets aren't the %d octets left", n, d.SPISize, len(d.SPIs))
	case d.SPISize == 0 && n != 0:
		return Delete{}, parseError(2, "number of SPIs", "%d of no octets", n)
	}
	return d, nil
}

// AppendDelete appends the body of a Delete payload. SPIs over 255 octets can't
// be sent, nor more than 65535 of them.
func AppendDelete(b []byte, d Delete) []byte {
	b = append(b, byte(d.Protocol), byte(d.SPISize))
	b = binary.BigEndian.AppendUint16(b, uint16(d.Len()))
	return append(b, d.SPIs...)
}

// Len returns how many SPIs there are.
func (d Delete) Len() int {
	if d.SPISize == 0 {
		return 0
	}
	return len(d.SPIs) / d.SPISize
}

// SPI returns the SPI at i, from 0 to Len-1.
func (d Delete) SPI(i int) []byte { return d.SPIs[i*d.SPISize : (i+1)*d.SPISize] }
