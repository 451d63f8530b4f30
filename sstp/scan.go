package sstp

import (
	"cmp"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Which versions and suites a server has can only be found out by asking for each.
// crypto/tls refuses to ask for most of them, so that ClientHellos are written
// here, and of the answer no more is read than the ServerHello. For each version:
//
//	offer all suites ──▶ ServerHello: the server took one ──▶ offer the others ─┐
//	      ▲                                                                     │
//	      └─────────────────────────────────────────────────────────────────────┘
//	  until the server refuses.
//
// So a version costs one connection for each suite that the server has, and one.

const (
	versionSSL30 = 0x0300
	versionTLS10 = 0x0301
	versionTLS11 = 0x0302
	versionTLS12 = 0x0303
	versionTLS13 = 0x0304
)

// A TLSVersion is a version that a server has, and its suites, in the order in
// which the server prefers them, if it has a preference.
type TLSVersion struct {
	// Version is 0x0300 for SSL 3.0 up to 0x0304 for TLS 1.3; see
	// [crypto/tls.VersionName].
	Version uint16 `json:"version"`
	// Name is the version in words.
	Name string `json:"name"`
	// Suites are those that the server takes with it.
	Suites []Suite `json:"suites"`
}

// A Scanner finds out which versions of TLS a server has, and which suites.
type Scanner struct {
	// ServerName is the name to ask for; empty sends none.
	ServerName string
	// Timeout bounds each connection; 0 means DefaultTimeout.
	Timeout time.Duration
	// Pause is the time between two connections; 0 means none.
	Pause time.Duration
	// Dialer opens the connections; nil means a plain one.
	Dialer *net.Dialer
}

// Scan asks target, by one connection after the other, at most some 150. The error
// is nil if the server has any version.
func (s *Scanner) Scan(ctx context.Context, target netip.AddrPort) ([]TLSVersion, error) {
	var out []TLSVersion
	var last error
	for _, v := range []uint16{versionTLS13, versionTLS12, versionTLS11, versionTLS10, versionSSL30} {
		suites, err := s.version(ctx, target, v)
		if err != nil {
			last = err
		}
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		if len(suites) > 0 {
			out = append(out, TLSVersion{Version: v, Name: versionName(v), Suites: suites})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("sstp: no version of TLS is spoken at %v: %w", target, errors.Join(last, errRefusedHello))
	}
	return out, nil
}

func versionName(v uint16) string {
	if v == versionSSL30 {
		return "SSL 3.0"
	}
	return fmt.Sprintf("TLS 1.%d", v-versionTLS10)
}

// version finds the suites of one version.
func (s *Scanner) version(ctx context.Context, target netip.AddrPort, v uint16) ([]Suite, error) {
	left := suitesFor(v)
	var found []Suite
	for len(left) > 0 {
		got, err := s.ask(ctx, target, v, left)
		if errors.Is(err, errRefusedHello) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		i := slices.Index(left, got)
		if i < 0 {
			return found, nil // it takes what wasn't offered; enough is known of it
		}
		found, left = append(found, Suite(got)), slices.Delete(left, i, i+1)
		if s.Pause > 0 {
			if err := sleep(ctx, s.Pause); err != nil {
				return found, err
			}
		}
	}
	return found, nil
}

// errRefusedHello says that a server takes nothing of what was offered.
var errRefusedHello = errors.New("sstp: the server takes none of it")

// ask offers suites in one connection, and returns the one that the server takes.
func (s *Scanner) ask(ctx context.Context, target netip.AddrPort, v uint16, suites []uint16) (uint16, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(s.Timeout, DefaultTimeout))
	defer cancel()
	d := s.Dialer
	if d == nil {
		d = new(net.Dialer)
	}
	c, err := d.DialContext(ctx, "tcp", target.String())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	hello, err := clientHello(v, suites, s.ServerName)
	if err != nil {
		return 0, err
	}
	if _, err := c.Write(hello); err != nil {
		return 0, err
	}
	got, err := readServerHello(c)
	switch {
	case err != nil:
		return 0, err
	case got.version != v:
		return 0, errRefusedHello // it speaks another version only
	}
	return got.suite, nil
}

// clientHello returns a record with a ClientHello (RFC 8446 §4.1.2, RFC 5246
// §7.4.1.2). The handshake isn't meant to go on, so the key shares are random.
func clientHello(v uint16, suites []uint16, name string) ([]byte, error) {
	random := make([]byte, 64)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	b := binary.BigEndian.AppendUint16(nil, min(v, versionTLS12))
	b = append(b, random[:32]...)
	if v == versionTLS13 {
		b = append(append(b, 32), random[32:]...) // as a browser does, for the sake of middleboxes
	} else {
		b = append(b, 0)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(2*len(suites)))
	for _, s := range suites {
		b = binary.BigEndian.AppendUint16(b, s)
	}
	b = append(b, 1, 0) // no compression
	if v != versionSSL30 {
		ext, err := helloExtensions(v, name)
		if err != nil {
			return nil, err
		}
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(ext))), ext...)
	}
	record := []byte{22}
	record = binary.BigEndian.AppendUint16(record, min(v, versionTLS10)) // as everybody does
	record = binary.BigEndian.AppendUint16(record, uint16(len(b)+4))
	record = append(record, 1, byte(len(b)>>16), byte(len(b)>>8), byte(len(b)))
	return append(record, b...), nil
}

func helloExtensions(v uint16, name string) ([]byte, error) {
	var out []byte
	add := func(id uint16, body []byte) {
		out = binary.BigEndian.AppendUint16(out, id)
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(body))), body...)
	}
	vector := func(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }
	if _, err := netip.ParseAddr(name); name != "" && err != nil {
		add(0, vector(append([]byte{0}, vector([]byte(name))...))) // server_name, RFC 6066 §3
	}
	add(10, vector([]byte{0, 29, 0, 23, 0, 24, 0, 25, 1, 0}))                                             // supported_groups: X25519, P-256, P-384, P-521, ffdhe2048
	add(11, []byte{1, 0})                                                                                 // ec_point_formats: uncompressed
	add(13, vector([]byte{4, 3, 5, 3, 6, 3, 8, 4, 8, 5, 8, 6, 8, 7, 4, 1, 5, 1, 6, 1, 2, 3, 2, 1, 2, 2})) // signature_algorithms
	add(0xff01, []byte{0})                                                                                // renegotiation_info
	if v != versionTLS13 {
		return out, nil
	}
	add(43, []byte{2, 3, 4}) // supported_versions: TLS 1.3 alone
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	add(51, vector(append([]byte{0, 29}, vector(key.PublicKey().Bytes())...))) // key_share
	return out, nil
}

// A serverHello is what counts of it here.
type serverHello struct{ version, suite uint16 }

// maxServerHello bounds what is read of an answer.
const maxServerHello = 16 << 10

// readServerHello reads records until the ServerHello is there. An alert, or the
// end of the connection, is errRefusedHello.
func readServerHello(r io.Reader) (serverHello, error) {
	var msg []byte
	for {
		var h [5]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || closed(err) {
				return serverHello{}, errRefusedHello
			}
			return serverHello{}, err
		}
		n := int(binary.BigEndian.Uint16(h[3:]))
		switch {
		case h[0] == 21:
			return serverHello{}, errRefusedHello
		case h[0] != 22 || h[1] != 3 || n == 0 || n > maxServerHello || len(msg)+n > maxServerHello:
			return serverHello{}, errors.New("sstp: the answer isn't TLS")
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return serverHello{}, errRefusedHello
		}
		msg = append(msg, b...)
		if got, whole, err := parseServerHello(msg); whole || err != nil {
			return got, err
		}
	}
}

// parseServerHello reads a ServerHello, or a HelloRetryRequest, which has its form
// (RFC 8446 §4.1.3). whole is false if b doesn't hold all of it.
func parseServerHello(b []byte) (h serverHello, whole bool, err error) {
	bad := errors.New("sstp: malformed ServerHello")
	if len(b) < 4 {
		return h, false, nil
	}
	n := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	switch {
	case b[0] != 2 || n > maxServerHello:
		return h, false, bad
	case len(b) < 4+n:
		return h, false, nil
	}
	b = b[4 : 4+n]
	if len(b) < 2+32+1 || len(b) < 2+32+1+int(b[34])+3 {
		return h, false, bad
	}
	h.version = binary.BigEndian.Uint16(b)
	b = b[35+int(b[34]):]
	h.suite = binary.BigEndian.Uint16(b)
	if b = b[3:]; len(b) < 2 {
		return h, true, nil
	}
	for ext := b[2:]; len(ext) >= 4; {
		id, size := binary.BigEndian.Uint16(ext), int(binary.BigEndian.Uint16(ext[2:]))
		if len(ext) < 4+size {
			return h, false, bad
		}
		if id == 43 && size == 2 {
			h.version = binary.BigEndian.Uint16(ext[4:])
		}
		ext = ext[4+size:]
	}
	return h, true, nil
}
