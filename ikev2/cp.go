package ikev2

import (
	"encoding/binary"
	"net/netip"
)

// A ConfigAttribute is one thing that a client asks for or is given (RFC 7296
// §3.15.1):
//
//	0  type (2)   2  length of the value (2)   4  value
type ConfigAttribute struct {
	// Type says what it is.
	Type ConfigAttributeType
	// Value is empty in a request that leaves it to the gateway; part of what
	// was parsed.
	Value []byte
}

// Addr returns the address the value is or, for IPv6 addresses with the length of
// a prefix, starts with.
func (a ConfigAttribute) Addr() (netip.Addr, bool) {
	switch {
	case len(a.Value) == 17 && (a.Type == ConfigIPv6Address || a.Type == ConfigIPv6Subnet):
		return netip.AddrFromSlice(a.Value[:16])
	case len(a.Value) == 8 && a.Type == ConfigIPv4Subnet:
		return netip.AddrFromSlice(a.Value[:4])
	}
	return netip.AddrFromSlice(a.Value)
}

// A ConfigWalker steps through the body of a CP payload without copying or
// allocating; see [ProposalWalker].
type ConfigWalker struct {
	// Type is of the payload as a whole; it is set from the start.
	Type ConfigType
	// Attribute is where the walker is, after Next has returned true.
	Attribute ConfigAttribute

	rest []byte
	at   int
	err  walkError
}

// WalkConfig returns a walker over the attributes of a CP payload: the body is
// its type (1), three reserved octets, and they.
func WalkConfig(body []byte) (w ConfigWalker) {
	if len(body) < 4 {
		w.err.set(len(body), "configuration", "payload ends here, 4 octets are needed")
		return w
	}
	return ConfigWalker{Type: ConfigType(body[0]), rest: body[4:], at: 4}
}

// Next goes to the next attribute. It returns false at the end, and at the first
// fault: Err tells which.
func (w *ConfigWalker) Next() bool {
	b := w.rest
	switch {
	case w.err.problem != "" || len(b) == 0:
		return false
	case len(b) < 4:
		return w.err.set(w.at, "configuration attribute", "payload ends within its header")
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n > len(b)-4 {
		return w.err.set(w.at+2, "configuration attribute length", "is more than what is left of the payload")
	}
	// The highest bit is reserved and ignored.
	w.Attribute = ConfigAttribute{Type: ConfigAttributeType(binary.BigEndian.Uint16(b) & 0x7fff), Value: b[4 : 4+n]}
	w.rest = b[4+n:]
	w.at += 4 + n
	return true
}

// Err returns what stopped the walker, a [*ParseError]: nil at the proper end.
func (w *ConfigWalker) Err() error { return w.err.err() }

// A Config is the body of a CP payload (RFC 7296 §3.15).
type Config struct {
	// Type says whether it asks or gives.
	Type ConfigType
	// Attributes are what it asks for or gives.
	Attributes []ConfigAttribute
}

// ParseConfig reads the body of a CP payload. Values are part of body.
func ParseConfig(body []byte) (Config, error) {
	w := WalkConfig(body)
	c := Config{Type: w.Type}
	for w.Next() {
		c.Attributes = append(c.Attributes, w.Attribute)
	}
	if err := w.Err(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// AppendConfig appends the body of a CP payload.
func AppendConfig(b []byte, c Config) []byte {
	b = append(b, byte(c.Type), 0, 0, 0)
	for _, a := range c.Attributes {
		b = binary.BigEndian.AppendUint16(b, uint16(a.Type))
		b = binary.BigEndian.AppendUint16(b, uint16(len(a.Value)))
		b = append(b, a.Value...)
	}
	return b
}
