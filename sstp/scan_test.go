package sstp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"testing/iotest"
)

// hello is a ServerHello with these extensions.
func hello(version, suite uint16, ext ...byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, version)
	body = append(body, make([]byte, 32)...)
	body = append(body, 0)
	body = binary.BigEndian.AppendUint16(body, suite)
	body = append(body, 0)
	if len(ext) > 0 {
		body = append(binary.BigEndian.AppendUint16(body, uint16(len(ext))), ext...)
	}
	return append([]byte{2, 0, byte(len(body) >> 8), byte(len(body))}, body...)
}

func record(kind byte, b []byte) []byte {
	return append([]byte{kind, 3, 3, byte(len(b) >> 8), byte(len(b))}, b...)
}

func TestReadServerHello(t *testing.T) {
	old := hello(versionTLS10, 0x000a)
	for name, tc := range map[string]struct {
		in   []byte
		want serverHello
		err  error // nil: any, if want is zero
	}{
		"TLS 1.0":        {record(22, old), serverHello{versionTLS10, 0x000a}, nil},
		"TLS 1.3":        {record(22, hello(versionTLS12, 0x1301, 0, 43, 0, 2, 3, 4)), serverHello{versionTLS13, 0x1301}, nil},
		"in two records": {append(record(22, old[:9]), record(22, old[9:])...), serverHello{versionTLS10, 0x000a}, nil},
		"an alert":       {record(21, []byte{2, 40}), serverHello{}, errRefusedHello},
		"nothing":        {nil, serverHello{}, errRefusedHello},
		"cut":            {record(22, old)[:20], serverHello{}, errRefusedHello},
		"a Certificate":  {record(22, []byte{11, 0, 0, 0}), serverHello{}, nil},
		"bad extensions": {record(22, hello(versionTLS12, 1, 0, 43, 0, 9)), serverHello{}, nil},
		"data":           {record(23, []byte("x")), serverHello{}, nil},
	} {
		got, err := readServerHello(bytes.NewReader(tc.in))
		if got != tc.want && err == nil || (err == nil) != (tc.want != serverHello{}) || tc.err != nil && !errors.Is(err, tc.err) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func FuzzServerHello(f *testing.F) {
	f.Add(record(22, hello(versionTLS12, 0x1301, 0, 43, 0, 2, 3, 4)))
	f.Add(record(22, hello(versionSSL30, 0x0005)))
	f.Add(append(record(22, []byte{2}), record(21, []byte{2, 40})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Where there are two ways to cut it into reads, both say the same.
		got, err := readServerHello(bytes.NewReader(b))
		again, err2 := readServerHello(iotest.OneByteReader(bytes.NewReader(b)))
		if got != again || (err == nil) != (err2 == nil) {
			t.Errorf("%+v, %v in one piece, %+v, %v in many", got, err, again, err2)
		}
	})
}
