package eaptls

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aovlb/aovlb/radius"
)

const (
	// DefaultUser is the name that a Client gives.
	DefaultUser = "aovlb-probe"
	// DefaultFramedMTU is how long an EAP packet may be, in bytes. Microsoft
	// advises it, so that RADIUS packets aren't fragmented on their way.
	DefaultFramedMTU = 1344
	// DefaultResend is after how long a request is repeated.
	DefaultResend = 2 * time.Second
	// DefaultTimeout bounds a look whose context has no deadline.
	DefaultTimeout = 15 * time.Second
)

// A Method is how a client would log in.
type Method byte

// The methods that show a certificate.
const (
	// PEAP is what Windows uses for passwords, and for certificates in PEAP.
	PEAP = Method(radius.EAPPEAP)
	// TLS is EAP-TLS: smart cards and other certificates.
	TLS = Method(radius.EAPTLS)
)

func (m Method) String() string {
	switch m {
	case PEAP:
		return "PEAP"
	case TLS:
		return "EAP-TLS"
	}
	return fmt.Sprintf("EAP type %d", byte(m))
}

// An Attribute is put into each request.
type Attribute struct {
	Type  radius.Type
	Value []byte // up to 253 bytes
}

// A Client looks at the certificates of RADIUS servers. It may be used from many
// goroutines at once.
type Client struct {
	// Secret is what is shared with the server. It must be set.
	Secret radius.Secret
	// Method is PEAP or TLS; 0 means PEAP. If the server begins with another
	// one, it is asked for this one.
	Method Method
	// User is the name to give, User-Name and EAP identity, up to 253 bytes;
	// empty means DefaultUser. NPS looks the account up before it shows its
	// certificate, and needs one that a policy lets in, such as "CORP\probe" or
	// "probe@corp.example". No password is asked for.
	User string
	// NASAddr is the NAS-IP-Address or NAS-IPv6-Address; if invalid, it is the
	// address that is sent from.
	NASAddr netip.Addr
	// LocalAddr is the address to send from; if invalid, the system chooses.
	// A server knows its clients by this address.
	LocalAddr netip.Addr
	// Attributes are put into each request: what the server's policies look
	// for. NAS-Port-Type Virtual and Service-Type Framed are there already, as
	// from RRAS.
	Attributes []Attribute
	// FramedMTU is how long an EAP packet may be, in bytes, 100 to 4000; 0
	// means DefaultFramedMTU.
	FramedMTU int
	// MaxVersion is the newest version of TLS to offer; 0 means TLS 1.2, which
	// is what Windows clients use unless told otherwise.
	MaxVersion uint16
	// Resend is after how long an unanswered request is repeated; 0 means
	// DefaultResend.
	Resend time.Duration
}

func (c *Client) user() string {
	u := cmp.Or(c.User, DefaultUser)
	return u[:min(len(u), 253)]
}

// A Result is what was seen.
type Result struct {
	// Chain is what the server has sent, its own certificate first. It is set
	// whenever there is one, with an error too.
	Chain []*x509.Certificate
	// Proved says that the server has the key of its certificate.
	Proved bool
	// Method is what was spoken.
	Method Method
	// Version and CipherSuite are those of TLS; 0 if it didn't come so far.
	Version, CipherSuite uint16
	// WantsCertificate says that the server asked for one of the client.
	WantsCertificate bool
	// Rounds is how many requests were answered, Largest how long the longest
	// answer was, in bytes.
	Rounds, Largest int
	// Took is how long it all took.
	Took time.Duration
}

var (
	// ErrRejected says that the server refuses the user before it shows its
	// certificate.
	ErrRejected = errors.New("refused before it showed its certificate")
	// ErrMethod says that the server doesn't do the method, or not for this
	// user.
	ErrMethod = errors.New("it doesn't do this method for this user")

	errSeen = errors.New("eaptls: seen")
)

// Look goes as far with target as it takes to see and verify that the server
// holds the certificate it shows. The error is nil if that is so, whatever the
// certificate is like.
func (c *Client) Look(ctx context.Context, target netip.AddrPort) (Result, error) {
	if c.Secret.IsZero() {
		return Result{}, errors.New("eaptls: there is no secret")
	}
	if n := cmp.Or(c.FramedMTU, DefaultFramedMTU); n < 100 || n > 4000 {
		return Result{}, fmt.Errorf("eaptls: a FramedMTU of %d isn't within 100 to 4000", n)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	e, err := c.open(target)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = e.conn.Close() }() // nothing is lost with it
	stop := context.AfterFunc(ctx, func() { _ = e.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	l := &look{c: c, ctx: ctx, e: e}
	begun := time.Now()
	err = l.run()
	l.res.Method = cmp.Or(c.Method, PEAP)
	l.res.Rounds, l.res.Largest, l.res.Took = e.rounds, e.largest, time.Since(begun)
	return l.res, err
}

// look is one conversation. As a net.Conn of TLS it is synchronous: what TLS
// writes is sent when it wants to read.
type look struct {
	c   *Client
	ctx context.Context
	e   *exchange
	res Result

	request eapRequest // the last one
	out, in []byte
	over    error // why there is nothing more to read
}

func (l *look) run() error {
	if err := l.start(); err != nil {
		return err
	}
	conf := &tls.Config{
		InsecureSkipVerify: true, // whoever looks wants to see, and judges later
		MinVersion:         tls.VersionTLS10,
		MaxVersion:         cmp.Or(l.c.MaxVersion, tls.VersionTLS12),
		CipherSuites:       suites(),
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			return l.saw(raw)
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			// It comes after the server has signed for its key.
			l.res.WantsCertificate, l.res.Proved = true, true
			return nil, errSeen
		},
	}
	conn := tls.Client(l, conf)
	err := conn.HandshakeContext(context.Background()) // l ends with its own context
	state := conn.ConnectionState()
	l.res.Version, l.res.CipherSuite = state.Version, state.CipherSuite
	if err == nil {
		l.res.Proved = true
		_ = conn.Close() // it writes an alert for leave to send
	}
	l.leave()
	switch {
	case l.res.Proved:
		return nil
	case l.over != nil:
		return l.over
	}
	return fmt.Errorf("eaptls: TLS: %w", err)
}

// suites are all that crypto/tls knows: a server that is old is to be seen too.
func suites() (ids []uint16) {
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		ids = append(ids, s.ID)
	}
	return ids
}

func (l *look) saw(raw [][]byte) error {
	const most = 20
	for _, der := range raw[:min(len(raw), most)] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		l.res.Chain = append(l.res.Chain, cert)
	}
	return nil
}

// start goes through EAP until the server begins the method.
func (l *look) start() error {
	method := byte(cmp.Or(l.c.Method, PEAP))
	next := response(0, radius.EAPIdentity, []byte(l.c.user()))
	for range 4 {
		if err := l.round(next); err != nil {
			return err
		}
		switch r := l.request; {
		case r.kind == method && len(r.data) > 0 && r.data[0]&flagStart != 0:
			return nil
		case r.kind == method:
			return errors.New("eaptls: the server begins the method without saying so")
		case r.kind == radius.EAPIdentity:
			next = response(r.id, radius.EAPIdentity, []byte(l.c.user()))
		default:
			next = response(r.id, radius.EAPNak, []byte{method})
		}
	}
	return fmt.Errorf("eaptls: %v: %w", Method(method), ErrMethod)
}

// round sends an EAP packet and takes the server's next request.
func (l *look) round(eap []byte) error {
	nak := len(eap) > eapHeader && eap[eapHeader] == radius.EAPNak
	p, err := l.e.send(l.ctx, eap)
	if err != nil {
		return err
	}
	answer := p.AppendEAP(nil)
	if p.Code() != radius.AccessChallenge {
		why := ErrRejected
		if nak {
			why = ErrMethod
		}
		return fmt.Errorf("eaptls: %v with %v%s: %w", cmp.Or(l.c.Method, PEAP), p.Code(), said(p), why)
	}
	r, code, err := parseRequest(answer)
	if err != nil {
		return err
	}
	if code != radius.EAPRequest {
		return fmt.Errorf("eaptls: Access-Challenge with EAP code %d, which asks nothing", code)
	}
	l.request = r
	return nil
}

// said returns what a server says to people.
func said(p radius.Packet) string {
	v, ok := p.Lookup(radius.ReplyMessage)
	if !ok || !utf8.Valid(v) {
		return ""
	}
	return fmt.Sprintf(" %q", strings.ToValidUTF8(string(v), "?"))
}

// flush sends what TLS has written, and takes the server's whole answer.
func (l *look) flush() error {
	method := byte(cmp.Or(l.c.Method, PEAP))
	most := cmp.Or(l.c.FramedMTU, DefaultFramedMTU) - eapHeader - 1
	var answer assembly
	for i, parts := 0, split(l.out, 0, most); ; i++ {
		data := []byte{0} // an acknowledgement
		if i < len(parts) {
			data = parts[i]
		}
		if err := l.round(response(l.request.id, method, data)); err != nil {
			return err
		}
		if l.request.kind != method {
			return fmt.Errorf("eaptls: the server goes over to EAP type %d", l.request.kind)
		}
		if i < len(parts)-1 {
			if len(l.request.data) > 1 {
				return errors.New("eaptls: the server speaks while it is spoken to")
			}
			continue
		}
		whole, err := answer.add(l.request.data)
		if err != nil {
			return err
		}
		if whole {
			l.out, l.in = nil, answer.b
			return nil
		}
	}
}

// leave sends what TLS has written last, an alert, so that the server doesn't wait.
func (l *look) leave() {
	if l.over != nil || len(l.out) == 0 {
		return
	}
	method := byte(cmp.Or(l.c.Method, PEAP))
	for _, data := range split(l.out, 0, cmp.Or(l.c.FramedMTU, DefaultFramedMTU)-eapHeader-1) {
		if l.round(response(l.request.id, method, data)) != nil {
			return // it is over in any case
		}
	}
}
