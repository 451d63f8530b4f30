package radius

import (
	"cmp"
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const (
	// DefaultUser is the User-Name that a Prober asks about.
	DefaultUser = "aovlb-probe"
	// DefaultTimeout bounds a probe whose context has no deadline.
	DefaultTimeout = 5 * time.Second
	// DefaultResend is after how long a Prober repeats a request that hasn't
	// been answered.
	DefaultResend = time.Second
)

// ErrNoAnswer says that a server didn't answer. NPS does so on purpose in
// several cases, and says nothing about it to the one who asks.
var ErrNoAnswer = errors.New("no answer: NPS discards silently when this address isn't one of its RADIUS clients, " +
	"the secret is wrong, or its log disk is full")

// Prober asks a RADIUS server whether it serves. It sends a request that a
// server refuses quickly, and takes any answer that bears the secret, Reject
// included, as proof: the port, the registration of the balancer as a RADIUS
// client, the secret and the service's own threads then work. It doesn't prove
// that a directory behind the server does. A Prober may be used from many
// goroutines at once.
//
// On NPS, put User into the registry as "ping user-name" (a REG_SZ under
// HKLM\System\CurrentControlSet\Services\IAS\Parameters). NPS then rejects it
// without asking the directory, and logs nothing. No account of that name should
// exist: the password is random, and would count as a wrong one.
type Prober struct {
	// Secret is what is shared with the server. It must be set.
	Secret Secret
	// SecretOf, if not nil, returns the secret that is shared with the server at
	// an address, where that isn't Secret; the zero Secret means that it is.
	SecretOf func(server netip.Addr) Secret
	// User is the User-Name to ask about; empty means DefaultUser.
	User string
	// Accounting asks the accounting port, usually 1813, with the end of a
	// session of User that never was: Acct-Status-Type Stop, no time, no
	// bytes, and always the same Acct-Session-Id. A Start would leave an open
	// session behind, and Accounting-On may make a server close the sessions
	// of a NAS. A server that keeps records keeps one of each probe, unless
	// told otherwise by User, as NPS is.
	Accounting bool
	// NASAddr is the NAS-IP-Address or NAS-IPv6-Address to give; if invalid,
	// it is the address that the probe is sent from.
	NASAddr netip.Addr
	// LocalAddr is the address to send from; if invalid, the system chooses.
	// A server knows its clients by this address.
	LocalAddr netip.Addr
	// RequireMessageAuthenticator makes an answer without a
	// Message-Authenticator a failure. Servers add one to every answer since
	// CVE-2024-3596 was mended in them.
	RequireMessageAuthenticator bool
	// Resend is after how long an unanswered request is repeated, as it is:
	// datagrams get lost. 0 means DefaultResend, less than 0 never.
	Resend time.Duration
	// Timeout bounds a probe whose context has no deadline; 0 means
	// DefaultTimeout.
	Timeout time.Duration
	// StatusServer asks by a Status-Server request (RFC 5997), for servers
	// that have it. NPS isn't known to.
	StatusServer bool

	// login is the password of a real account; see LoginProber.
	login Secret
}

// A Result says what a probe has found.
type Result struct {
	// Code is that of the answer; 0 if none came.
	Code Code
	// Message is the answer's first Reply-Message, if any.
	Message string
	// MessageAuthenticator says that the answer bore one.
	MessageAuthenticator bool
	// Took is from the first sending to the answer.
	Took time.Duration
	// Sent is how often the request was sent.
	Sent int
	// Forged counts answers that didn't bear the secret.
	Forged int
}

// Probe asks target. It returns nil only if an answer came that bears the
// secret.
func (p *Prober) Probe(ctx context.Context, target netip.AddrPort) error {
	_, err := p.Ask(ctx, target)
	return err
}

// Ask is like Probe, and returns what it has found as well, with an error too.
// It ends with ctx.
func (p *Prober) Ask(ctx context.Context, target netip.AddrPort) (Result, error) {
	if p.SecretOf != nil {
		if own := p.SecretOf(target.Addr().Unmap()); !own.IsZero() {
			q := *p
			q.Secret = own
			p = &q
		}
	}
	if p.Secret.IsZero() {
		return Result{}, errors.New("radius: the probe has no secret")
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cmp.Or(p.Timeout, DefaultTimeout))
		defer cancel()
	}
	conn, err := p.dial(target)
	if err != nil {
		return Result{}, fmt.Errorf("radius: open a socket: %w", err)
	}
	defer func() { _ = conn.Close() }() // nothing is lost with it
	a := asking{p: p, conn: conn, request: p.request(conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr())}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = a.run(ctx)
	return a.res, err
}

// dial connects a socket, so that the kernel reports a closed port to it, and
// nobody but the server can be read from.
func (p *Prober) dial(target netip.AddrPort) (*net.UDPConn, error) {
	var local *net.UDPAddr
	if p.LocalAddr.IsValid() {
		local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.LocalAddr, 0))
	}
	return net.DialUDP("udp", local, net.UDPAddrFromAddrPort(target))
}

// asking is one probe.
type asking struct {
	p       *Prober
	conn    *net.UDPConn
	request []byte
	res     Result
	begun   time.Time
	bad     error // why the last answer that came wasn't taken
}

func (a *asking) run(ctx context.Context) error {
	a.begun = time.Now()
	buf := make([]byte, MaxLen)
	for {
		if _, err := a.conn.Write(a.request); err != nil {
			return a.failed(ctx, err)
		}
		a.res.Sent++
		next := a.next(ctx)
		if err := a.conn.SetReadDeadline(next); err != nil {
			return a.failed(ctx, err)
		}
		if ctx.Err() != nil { // its own deadline may just have been replaced
			return a.failed(ctx, ctx.Err())
		}
		for {
			n, err := a.conn.Read(buf)
			if err == nil {
				if a.take(buf[:n]) {
					return nil
				}
				continue // a forged answer must not end the wait
			}
			if ctx.Err() != nil || !time.Now().Before(deadline(ctx)) || !isTimeout(err) {
				return a.failed(ctx, err)
			}
			break
		}
	}
}

// next returns until when to wait for an answer before sending again.
func (a *asking) next(ctx context.Context) time.Time {
	end := deadline(ctx)
	resend := cmp.Or(a.p.Resend, DefaultResend)
	if at := time.Now().Add(resend); resend > 0 && at.Before(end) {
		return at
	}
	return end
}

// take judges an answer, and reports whether it is one that proves the server.
func (a *asking) take(b []byte) bool {
	p, err := Parse(b)
	if err != nil {
		a.bad = err
		return false
	}
	if p.Identifier() != a.request[1] || !a.answers(p.Code()) {
		a.bad = fmt.Errorf("radius: %v isn't an answer to the probe", p.Code())
		return false
	}
	if err := p.CheckAnswer(a.p.Secret, [16]byte(a.request[4:20])); err != nil {
		a.bad = err
		a.res.Forged++
		return false
	}
	_, ok := p.Lookup(MessageAuthenticator)
	if !ok && a.p.RequireMessageAuthenticator {
		a.bad = fmt.Errorf("%w in %v", ErrNoMessageAuthenticator, p.Code())
		return false
	}
	text, _ := p.Lookup(ReplyMessage)
	a.res.Code, a.res.Message, a.res.MessageAuthenticator, a.res.Took = p.Code(), string(text), ok, time.Since(a.begun)
	return true
}

func (a *asking) answers(c Code) bool {
	switch {
	case a.p.StatusServer:
		return c == AccessAccept || c == AccountingResponse
	case a.p.Accounting:
		return c == AccountingResponse
	}
	return c == AccessAccept || c == AccessReject || c == AccessChallenge
}

// failed says why there was no answer.
func (a *asking) failed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() == context.Canceled:
		return fmt.Errorf("radius: %w", context.Canceled)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("radius: refused, nothing listens on this port: %w", err)
	case errors.Is(a.bad, ErrAuthenticator):
		return fmt.Errorf("radius: the answer doesn't bear the secret, so the server's differs: %w", a.bad)
	case a.bad != nil:
		return fmt.Errorf("radius: no answer but one that can't be taken: %w", a.bad)
	case isTimeout(err) || ctx.Err() != nil:
		return fmt.Errorf("radius: %w", ErrNoAnswer)
	}
	return fmt.Errorf("radius: %w", err)
}

func deadline(ctx context.Context) time.Time {
	t, _ := ctx.Deadline()
	return t
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// request makes the packet to send from local.
func (p *Prober) request(local netip.Addr) []byte {
	switch {
	case p.StatusServer:
		return p.status(local)
	case p.Accounting:
		return p.accounting(local)
	}
	return p.access(local)
}

func (p *Prober) access(local netip.Addr) []byte {
	b := begin(AccessRequest)
	rand.Read(b[4:20])
	// First, where an attacker's prefix can't stand before it.
	b = appendAttribute(b, MessageAuthenticator, make([]byte, 16))
	b = p.appendNames(b, local)
	b = appendAttribute(b, UserPassword, hidePassword(p.Secret, [16]byte(b[4:20]), p.password()))
	return p.signFirst(b)
}

// signFirst completes a request that begins with an empty Message-Authenticator.
func (p *Prober) signFirst(b []byte) []byte {
	finish(b)
	mac, _ := Packet{b: b}.MessageAuthenticator(p.Secret, [16]byte(b[4:20]))
	copy(b[HeaderLen+2:], mac[:])
	return b
}

func (p *Prober) status(local netip.Addr) []byte {
	b := begin(StatusServer)
	rand.Read(b[4:20])
	b = appendAttribute(b, MessageAuthenticator, make([]byte, 16))
	return p.signFirst(p.appendNAS(b, local))
}

// password returns the password to send: without one of its own 16 letters and
// digits at random, since servers warn of others, as signs of a wrong secret.
func (p *Prober) password() []byte {
	if !p.login.IsZero() {
		return p.login.bytes()
	}
	return []byte(rand.Text()[:16])
}

func (p *Prober) accounting(local netip.Addr) []byte {
	const stop = 2 // RFC 2866 §5.1
	b := p.appendNames(begin(AccountingRequest), local)
	b = appendAttribute(b, AcctStatusType, []byte{0, 0, 0, stop})
	b = appendAttribute(b, AcctSessionID, []byte("aovlb-probe"))
	b = appendAttribute(b, AcctSessionTime, make([]byte, 4))
	finish(b)
	sum := Packet{b: b}.AccountingAuthenticator(p.Secret)
	copy(b[4:20], sum[:])
	return b
}

// begin returns a header with a random Identifier.
func begin(c Code) []byte {
	b := make([]byte, HeaderLen, 256)
	b[0] = byte(c)
	rand.Read(b[1:2])
	return b
}

func finish(b []byte) { binary.BigEndian.PutUint16(b[2:], uint16(len(b))) }

func (p *Prober) appendNames(b []byte, local netip.Addr) []byte {
	const longest = 253 // RFC 2865 §5
	user := cmp.Or(p.User, DefaultUser)
	return appendAttribute(p.appendNAS(b, local), UserName, []byte(user[:min(len(user), longest)]))
}

func (p *Prober) appendNAS(b []byte, local netip.Addr) []byte {
	addr := p.NASAddr
	if !addr.IsValid() {
		addr = local
	}
	if addr = addr.Unmap().WithZone(""); addr.Is4() {
		return appendAttribute(b, NASIPAddress, addr.AsSlice())
	}
	return appendAttribute(b, NASIPv6Address, addr.AsSlice())
}

func appendAttribute(b []byte, t Type, v []byte) []byte {
	return append(append(b, byte(t), byte(2+len(v))), v...)
}

// hidePassword hides a password (RFC 2865 §5.2), of which what is over 128 bytes
// has no place.
func hidePassword(s Secret, authenticator [16]byte, password []byte) []byte {
	const most = 128
	password = password[:min(len(password), most)]
	b := make([]byte, max(16, (len(password)+15)/16*16))
	copy(b, password)
	before := authenticator[:]
	for i := 0; i < len(b); i += 16 {
		sum := md5.Sum(append(append([]byte(nil), s.bytes()...), before...))
		for j := range 16 {
			b[i+j] ^= sum[j]
		}
		before = b[i : i+16]
	}
	return b
}
