package accounting

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/radius"
)

// A stored request:
//
//	0           1              17       19         21            22…
//	version(1)  address(16)    port(2)  service(2) identifier(1) length(1) client… attributes…

const (
	version  = 1
	fixedLen = 23
	maxName  = 255
)

// Types of attributes that aren't stored (RFC 2865 §5, RFC 2868 §3.5, RFC 2869
// §5), besides those that package radius names.
const (
	chapPassword   radius.Type = 3
	vendorSpecific radius.Type = 26
	chapChallenge  radius.Type = 60
	tunnelPassword radius.Type = 69
)

// microsoft is the vendor of RFC 2548.
const microsoft = 311

// kept reports whether an attribute is stored.
func kept(t radius.Type, v []byte) bool {
	switch t {
	case radius.MessageAuthenticator, radius.ProxyState, radius.UserPassword, radius.EAPMessage, radius.State,
		chapPassword, chapChallenge, tunnelPassword:
		return false
	case vendorSpecific:
		return len(v) < 5 || binary.BigEndian.Uint32(v) != microsoft || !secretMicrosoft(v[4])
	}
	return true
}

// secretMicrosoft reports whether a type of Microsoft's is about passwords and
// keys: MS-CHAP-Response, -CPW-1, -CPW-2, -LM-Enc-PW, -NT-Enc-PW, -Challenge,
// -MPPE-Keys, MS-MPPE-Send-Key, -Recv-Key, MS-CHAP2-Response, -Success, -CPW.
func secretMicrosoft(t byte) bool {
	switch t {
	case 1, 3, 4, 5, 6, 11, 12, 16, 17, 25, 26, 27:
		return true
	}
	return false
}

var (
	errTooLong = errors.New("accounting: with Acct-Delay-Time the request would be longer than RADIUS allows")
	errStored  = errors.New("accounting: what is stored can't be read")
)

// encode makes what is stored of a request.
func encode(r *radius.Record) ([]byte, error) {
	if len(r.Client) > maxName {
		return nil, fmt.Errorf("accounting: the name of a client is longer than %d bytes", maxName)
	}
	a := r.Flow.Client.Addr().As16()
	b := make([]byte, 0, fixedLen+len(r.Client)+len(r.Packet.Bytes()))
	b = append(b, version)
	b = append(b, a[:]...)
	b = binary.BigEndian.AppendUint16(b, r.Flow.Client.Port())
	b = binary.BigEndian.AppendUint16(b, r.Flow.Service)
	b = append(b, r.Packet.Identifier(), byte(len(r.Client)))
	b = append(b, r.Client...)
	at := len(b)
	delay := false
	for t, v := range r.Packet.Attributes() {
		if kept(t, v) {
			b = append(append(b, byte(t), byte(2+len(v))), v...)
			delay = delay || t == radius.AcctDelayTime && len(v) == 4 // one that can be raised
		}
	}
	if n := radius.HeaderLen + len(b) - at; !delay && n+6 > radius.MaxLen {
		return nil, errTooLong
	}
	return b, nil
}

// decode makes a request of what is stored, with Acct-Delay-Time raised by so many
// seconds. Its authenticator is zero.
func decode(b []byte, more uint32) (client string, p radius.Packet, f lb.Flow, err error) {
	if len(b) < fixedLen || b[0] != version || len(b) < fixedLen+int(b[22]) {
		return "", p, f, errStored
	}
	f.Client = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[1:17])).Unmap(), binary.BigEndian.Uint16(b[17:]))
	f.Service = binary.BigEndian.Uint16(b[19:])
	end := fixedLen + int(b[22])
	client = string(b[fixedLen:end])
	out := make([]byte, radius.HeaderLen, radius.HeaderLen+len(b)-end+6)
	out[0], out[1] = byte(radius.AccountingRequest), b[21]
	out = append(out, b[end:]...)
	if len(out) > radius.MaxLen {
		return "", p, f, errStored
	}
	if out, err = raise(out, more); err != nil {
		return "", p, f, err
	}
	p, err = radius.Parse(out)
	return client, p, f, err
}

// raise adds to Acct-Delay-Time, or adds one.
func raise(b []byte, more uint32) ([]byte, error) {
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	p, err := radius.Parse(b)
	if err != nil {
		return nil, errStored
	}
	if v, ok := p.Lookup(radius.AcctDelayTime); ok && len(v) == 4 {
		// It shares the bytes of b.
		sum := uint64(binary.BigEndian.Uint32(v)) + uint64(more)
		binary.BigEndian.PutUint32(v, uint32(min(sum, 1<<32-1)))
		return b, nil
	}
	b = append(b, byte(radius.AcctDelayTime), 6)
	b = binary.BigEndian.AppendUint32(b, more)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b, nil
}

// delay returns for how many seconds longer than its client a record has been
// tried: it came at came, may last have been sent at last, and is sent now. It is
// always more than at any time before, even if the clock was put back.
func delay(came, last, now time.Time) uint32 {
	d := int64(now.Sub(came) / time.Second)
	if !last.IsZero() {
		d = max(d, int64(last.Sub(came)/time.Second)+1)
	}
	return uint32(min(max(d, 0), 1<<32-1))
}

// names returns the key of a request's session, and an ID under which it is known
// again if its NAS repeats it with another Acct-Delay-Time. A NAS that says that
// it begins or ends may say so twice in the same words, and mean it: only the
// same packet is then taken for a repetition.
func names(p radius.Packet) (key uint64, id [16]byte) {
	const on, off = 7, 8 // RFC 2866 §5.1
	status, _ := p.Lookup(radius.AcctStatusType)
	session := len(status) == 4 && status[3] != on && status[3] != off
	all, one := sha256.New(), sha256.New()
	var head [2]byte
	for t, v := range p.Attributes() {
		head = [2]byte{byte(t), byte(len(v))}
		switch t {
		case radius.NASIPAddress, radius.NASIPv6Address, radius.NASIdentifier, radius.AcctSessionID:
			one.Write(head[:])
			one.Write(v)
		}
		if kept(t, v) && !(session && t == radius.AcctDelayTime) {
			all.Write(head[:])
			all.Write(v)
		}
	}
	if !session {
		all.Write([]byte{p.Identifier()})
	}
	return binary.BigEndian.Uint64(one.Sum(nil)), [16]byte(all.Sum(nil))
}
