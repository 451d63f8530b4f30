package ikev2

import (
	"encoding/binary"
	"syscall"
	"testing"
)

// FuzzExtendedError reads what the kernel might hand over of an ICMP error.
func FuzzExtendedError(f *testing.F) {
	e := binary.NativeEndian.AppendUint32(nil, uint32(syscall.EMSGSIZE))
	e = append(e, originICMP, 3, 4, 0)
	e = binary.NativeEndian.AppendUint32(e, 1400)
	e = append(e, 0, 0, 0, 0, 2, 0, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0)
	f.Add(e)
	f.Add(e[:extendedErrLen])
	e[4] = originICMPv6
	f.Add(append(e, make([]byte, 16)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < extendedErrLen {
			return // readError asks for that much
		}
		r, err := extendedError(b)
		if (r == nil) == (err == nil) {
			t.Fatalf("%+v, %v", r, err)
		}
	})
}
