package standin

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"
)

// The packets of SSTP (MS-SSTP 2.2): version 0x10, a byte whose lowest bit says
// control, and the length of the whole packet.
const (
	sstpVersion = 0x10
	sstpMaxLen  = 4095

	callConnectRequest = 1
	callConnectAck     = 2
	callConnectNak     = 3
	callConnected      = 4
	callAbort          = 5
	callDisconnect     = 6
	callDisconnectAck  = 7
	echoRequest        = 8
	echoResponse       = 9

	attrProtocol   = 1
	attrStatus     = 2
	attrBinding    = 3
	attrBindingReq = 4

	statusValueNotSupported = 4
	statusAttrMissing       = 10

	hashSHA256  = 2
	protocolPPP = 1
)

// PPP's Link Control Protocol: the parts that are used (RFC 1661, RFC 1570). A
// frame is ff 03 c0 21, code, identifier, length (2), magic number (4), data.
const (
	lcpEchoRequest    = 9
	lcpEchoReply      = 10
	lcpIdentification = 12
)

var errSSTP = errors.New("standin: malformed SSTP packet")

type sstpPacket struct {
	control bool
	kind    uint16           // of a control packet
	attrs   map[uint8][]byte // of a control packet
	data    []byte           // of a data packet
	whole   []byte           // header included
}

func readSSTP(r io.Reader) (sstpPacket, error) {
	b := make([]byte, 4, 128)
	if _, err := io.ReadFull(r, b); err != nil {
		return sstpPacket{}, err
	}
	n := int(binary.BigEndian.Uint16(b[2:]) & 0xfff)
	if b[0] != sstpVersion || n < 4 {
		return sstpPacket{}, errSSTP
	}
	b = append(b, make([]byte, n-4)...)
	if _, err := io.ReadFull(r, b[4:]); err != nil {
		return sstpPacket{}, err
	}
	p := sstpPacket{control: b[1]&1 != 0, data: b[4:], whole: b}
	if !p.control {
		return p, nil
	}
	if len(b) < 8 {
		return p, errSSTP
	}
	p.kind, p.attrs = binary.BigEndian.Uint16(b[4:]), make(map[uint8][]byte)
	rest := b[8:]
	for range binary.BigEndian.Uint16(b[6:]) {
		if len(rest) < 4 {
			return p, errSSTP
		}
		n := int(binary.BigEndian.Uint16(rest[2:]) & 0xfff)
		if n < 4 || n > len(rest) {
			return p, errSSTP
		}
		p.attrs[rest[1]] = rest[4:n]
		rest = rest[n:]
	}
	return p, nil
}

// control builds a control packet with at most one attribute.
func control(kind uint16, attr uint8, value []byte) []byte {
	b := []byte{sstpVersion, 1, 0, 0}
	b = binary.BigEndian.AppendUint16(b, kind)
	if attr == 0 {
		b = append(b, 0, 0)
	} else {
		b = append(b, 0, 1, 0, attr)
		b = binary.BigEndian.AppendUint16(b, uint16(4+len(value)))
		b = append(b, value...)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func lcp(code, id uint8, data []byte) []byte {
	n := 8 + len(data)
	b := []byte{sstpVersion, 0, 0, 0, 0xff, 0x03, 0xc0, 0x21, code, id}
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, 0x61, 0x6f, 0x76, 0x6c)
	b = append(b, data...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func parseLCP(b []byte) (code, id uint8, data []byte, ok bool) {
	if len(b) < 12 || !bytes.HasPrefix(b, []byte{0xff, 0x03, 0xc0, 0x21}) || int(binary.BigEndian.Uint16(b[6:])) != len(b)-4 {
		return 0, 0, nil, false
	}
	return b[4], b[5], b[12:], true
}

// bindCall makes a CALL_CONNECTED with its crypto binding (MS-SSTP 3.2.5.2.2 and
// 3.2.5.4.2). The key of the inner authentication is 32 zero bytes, as prescribed
// where PPP has authenticated nobody.
func bindCall(nonce, leaf []byte) []byte {
	sum := sha256.Sum256(leaf)
	value := append([]byte{0, 0, 0, hashSHA256}, nonce...)
	value = append(value, sum[:]...)
	b := control(callConnected, attrBinding, append(value, make([]byte, 32)...))
	copy(b[len(b)-32:], compoundMAC(b))
	return b
}

// compoundMAC computes the MAC over a CALL_CONNECTED, whose own MAC field is at
// the end and counts as zero.
func compoundMAC(b []byte) []byte {
	zeroed := bytes.Clone(b)
	clear(zeroed[len(zeroed)-32:])
	key := mac(sha256.New, make([]byte, 32), []byte("SSTP inner method derived CMK"), []byte{32, 0, 1})
	return mac(sha256.New, key, zeroed)
}

// checkBinding returns the attribute that is wrong and its status, or zeros.
func checkBinding(p sstpPacket, nonce, leaf []byte) (attr, status uint8) {
	v := p.attrs[attrBinding]
	sum := sha256.Sum256(leaf)
	switch {
	case len(v) != 100:
		return attrStatus, statusAttrMissing
	case v[3] != hashSHA256, !bytes.Equal(v[4:36], nonce), !bytes.Equal(v[36:68], sum[:]),
		!hmac.Equal(v[68:], compoundMAC(p.whole)):
		return attrBinding, statusValueNotSupported
	}
	return 0, 0
}

// readHead reads the head of an HTTP message: its first line and its fields.
// net/http can't, because of the Content-Length of 2^64-1 that SSTP has.
func readHead(r *bufio.Reader) (first string, fields map[string]string, err error) {
	fields = make(map[string]string)
	for size := 0; ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", nil, err
		}
		if size += len(line); size > 16<<10 {
			return "", nil, errors.New("standin: HTTP head over 16 KiB")
		}
		line = strings.TrimRight(line, "\r\n")
		switch name, value, _ := strings.Cut(line, ":"); {
		case line == "":
			return first, fields, nil
		case first == "":
			first = line
		default:
			fields[strings.ToLower(name)] = strings.TrimSpace(value)
		}
	}
}

// SelfSigned makes a certificate for a server of that name, and the pool of
// roots by which a client trusts it.
func SelfSigned(name string) (tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
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
