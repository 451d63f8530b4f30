package standin

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/aovlb/aovlb/sstp"
)

// A sstpPacket is a packet of SSTP: a message, or data.
type sstpPacket struct {
	sstp.Message
	control bool
	data    []byte // the PPP frame of a data packet
	whole   []byte
}

// readSSTP reads one packet.
func readSSTP(r io.Reader) (sstpPacket, error) {
	b := make([]byte, sstp.HeaderLen, 128)
	if _, err := io.ReadFull(r, b); err != nil {
		return sstpPacket{}, err
	}
	h, err := sstp.ParseHeader(b)
	if err != nil {
		return sstpPacket{}, err
	}
	b = append(b, make([]byte, h.Length-sstp.HeaderLen)...)
	if _, err := io.ReadFull(r, b[sstp.HeaderLen:]); err != nil {
		return sstpPacket{}, err
	}
	p := sstpPacket{control: h.Control, whole: b, data: b[sstp.HeaderLen:]}
	if h.Control {
		p.data = nil
		p.Message, _, err = sstp.ParseMessage(b)
	}
	return p, err
}

// readHead reads the head of an HTTP message, up to its empty line.
func readHead(r *bufio.Reader) ([]byte, error) {
	var b []byte
	for {
		line, err := r.ReadSlice('\n')
		if b = append(b, line...); err != nil {
			return b, err
		}
		if len(b) > sstp.MaxHead {
			return b, errors.New("standin: HTTP head over 8 KiB")
		}
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return b, nil
		}
	}
}

// lcp builds a data packet with a packet of LCP that has a magic number.
func lcp(code, id uint8, data []byte) []byte {
	frame := []byte{0xff, 0x03, 0xc0, 0x21, code, id}
	frame = binary.BigEndian.AppendUint16(frame, uint16(8+len(data)))
	frame = append(append(frame, 0x61, 0x6f, 0x76, 0x6c), data...)
	b, err := sstp.AppendData(nil, frame)
	if err != nil {
		panic(err) // nobody here sends as much
	}
	return b
}

func parseLCP(b []byte) (code, id uint8, data []byte, ok bool) {
	if len(b) < 12 || !bytes.HasPrefix(b, []byte{0xff, 0x03, 0xc0, 0x21}) || int(binary.BigEndian.Uint16(b[6:])) != len(b)-4 {
		return 0, 0, nil, false
	}
	return b[4], b[5], b[12:], true
}

// SelfSigned makes a certificate for a server of that name, and the pool of
// roots by which a client trusts it.
func SelfSigned(name string) (tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("standin: certificate for %s: %w", name, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots, nil
}
