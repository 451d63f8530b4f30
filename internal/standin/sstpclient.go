package standin

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/aovlb/aovlb/sstp"
)

// An SSTPClient keeps one SSTP call up, and calls again a second after it was
// cut.
type SSTPClient struct {
	// Name is what it calls itself.
	Name string
	// Server is the service; ServerName the name in its certificate.
	Server     netip.AddrPort
	ServerName string
	// RootCAs are the roots it trusts.
	RootCAs *x509.CertPool
	// Password, if not empty, has it log in as Name by MS-CHAPv2. The gateway
	// must have Passwords then, and otherwise not.
	Password string
	// Plain speaks plain HTTP, to a gateway that does.
	Plain bool
	// Leaf is the DER that it binds calls to where there is no TLS; nil means the
	// certificate it was shown.
	Leaf []byte
	// Spoil, if not nil, may change its crypto binding.
	Spoil func(*sstp.Binding)
	// Bytewise has it write each byte by itself; Pipelined has it send its
	// CALL_CONNECT_REQUEST together with its HTTP request.
	Bytewise, Pipelined bool
	// Sessions, if not nil, lets it take up TLS sessions.
	Sessions tls.ClientSessionCache
	// Dialer opens connections; nil means a plain one.
	Dialer *net.Dialer
	// Abrupt has it end by closing the connection, without CALL_DISCONNECT, as
	// Debian's sstpc does.
	Abrupt bool
	// Every is the time between LCP Echo requests; 0 means a second.
	Every time.Duration
	// Patience is how long no packet may come before the call is given up; 0
	// means 10 s.
	Patience time.Duration
	// Repeat is how long it waits before it calls again; 0 means a second.
	Repeat time.Duration
	// Logger, if not nil, hears why calls fail.
	Logger *slog.Logger

	mu     sync.Mutex
	status TunnelStatus
}

// Status returns what the client knows now.
func (c *SSTPClient) Status() TunnelStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *SSTPClient) note(f func(*TunnelStatus)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.status)
}

// Run keeps the call up until ctx is done.
func (c *SSTPClient) Run(ctx context.Context) error {
	for {
		err := c.call(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if c.Logger != nil {
			c.Logger.Info("SSTP call ended", "client", c.Name, "error", err)
		}
		c.note(func(s *TunnelStatus) {
			if s.Gateway == "" {
				s.Failed++
				return
			}
			s.Gateway, s.Lost = "", time.Now()
		})
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(orDefault(c.Repeat, time.Second)):
		}
	}
}

// call calls once, and returns when the call is over.
func (c *SSTPClient) call(ctx context.Context) error {
	d := c.Dialer
	if d == nil {
		d = new(net.Dialer)
	}
	raw, err := d.DialContext(ctx, "tcp", c.Server.String())
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(c.patience()))
	conn, leaf := net.Conn(raw), c.Leaf
	if !c.Plain {
		t := tls.Client(raw, &tls.Config{
			ServerName: c.ServerName, RootCAs: c.RootCAs, ClientSessionCache: c.Sessions, NextProtos: []string{"http/1.1"},
		})
		if err := t.HandshakeContext(ctx); err != nil {
			return err
		}
		conn = t
		if leaf == nil {
			leaf = t.ConnectionState().PeerCertificates[0].Raw
		}
	}
	k := &sstpCaller{c: c, conn: conn, raw: raw, leaf: leaf, r: bufio.NewReader(conn)}
	if err := k.setUp(); err != nil {
		return err
	}
	if !c.Abrupt && stop() {
		return k.talk(ctx)
	}
	return k.talk(context.WithoutCancel(ctx)) // closing raw ends it
}

func (c *SSTPClient) patience() time.Duration { return orDefault(c.Patience, 10*time.Second) }

// A sstpCaller is one call of an SSTPClient.
type sstpCaller struct {
	c         *SSTPClient
	conn, raw net.Conn
	leaf      []byte
	r         *bufio.Reader
	ppp       *PPP
	mu        sync.Mutex // one write at a time
}

func (k *sstpCaller) write(b []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.c.Bytewise {
		_, err := k.conn.Write(b)
		return err
	}
	for i := range b {
		if _, err := k.conn.Write(b[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// setUp does what comes before data: HTTP, the request for the call, the client's
// name or its login, and the crypto binding (MS-SSTP §3.2).
func (k *sstpCaller) setUp() error {
	id := randomBytes(16)
	q := sstp.TunnelRequest(k.c.ServerName, fmt.Sprintf("{%X-%X-%X-%X-%X}", id[:4], id[4:6], id[6:8], id[8:10], id[10:]))
	hello := q.Append(nil)
	if k.c.Pipelined {
		hello = sstp.AppendConnectRequest(hello)
	}
	if err := k.write(hello); err != nil {
		return err
	}
	b, err := readHead(k.r)
	if err != nil {
		return err
	}
	a, _, err := sstp.ParseResponse(b)
	if err != nil || a.Status != 200 || a.Length != sstp.ContentLength {
		return errors.Join(fmt.Errorf("standin: SSTP_DUPLEX_POST was answered %d", a.Status), err)
	}
	if !k.c.Pipelined {
		if err := k.write(sstp.AppendConnectRequest(nil)); err != nil {
			return err
		}
	}
	p, err := readSSTP(k.r)
	if err != nil {
		return err
	}
	value, _ := p.Value(sstp.AttrBindingRequest)
	ask, err := sstp.ParseBindingRequest(value)
	if !p.control || p.Type != sstp.CallConnectAck || err != nil {
		return errors.Join(fmt.Errorf("standin: the gateway did not accept the call: %v", &p.Message), err)
	}
	key, err := k.login()
	if err != nil {
		return err
	}
	bind, err := sstp.NewBinding(&ask, k.leaf, key)
	if err != nil {
		return err
	}
	if k.c.Spoil != nil {
		k.c.Spoil(&bind)
	}
	if err := k.write(sstp.AppendConnected(nil, &bind)); err != nil || k.ppp == nil {
		return err
	}
	if err := k.ppp.Begin(); err != nil {
		return err
	}
	for !k.ppp.Up {
		if err := k.frame(); err != nil {
			return err
		}
	}
	return nil
}

// login says who the client is, and returns the key that this gives.
func (k *sstpCaller) login() (sstp.Key, error) {
	if k.c.Password == "" {
		return sstp.Key{}, k.write(lcp(lcpIdentification, 1, []byte(k.c.Name)))
	}
	k.ppp = &PPP{User: k.c.Name, Password: k.c.Password, Send: func(frame []byte) error {
		b, err := sstp.AppendData(nil, frame)
		if err != nil {
			return err
		}
		return k.write(b)
	}}
	if err := k.ppp.Begin(); err != nil {
		return sstp.Key{}, err
	}
	for !k.ppp.Authenticated {
		if err := k.frame(); err != nil {
			return sstp.Key{}, err
		}
	}
	return k.ppp.Key, nil
}

// frame takes one packet while the tunnel is set up.
func (k *sstpCaller) frame() error {
	p, err := readSSTP(k.r)
	switch {
	case err != nil:
		return err
	case !p.control:
		return k.ppp.Take(p.data)
	case p.Type == sstp.CallAbort:
		return aborted(&p.Message)
	}
	return nil
}

// aborted says how a gateway aborted a call.
func aborted(m *sstp.Message) error {
	return fmt.Errorf("standin: the gateway aborted the call: %v", m)
}

// talk sends LCP Echo requests and reads what comes until the call is over.
func (k *sstpCaller) talk(ctx context.Context) error {
	done := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(done)
	defer k.raw.Close() // frees a Write that waits
	wg.Go(func() { k.echo(done) })
	wg.Go(func() {
		select {
		case <-done:
		case <-ctx.Done():
			k.hangUp(done)
		}
	})
	for {
		k.conn.SetReadDeadline(time.Now().Add(k.c.patience()))
		p, err := readSSTP(k.r)
		if err != nil {
			return err
		}
		switch {
		case !p.control:
			if err := k.heard(p.data); err != nil {
				return err
			}
		case p.Type == sstp.EchoRequest:
			if err := k.write(sstp.AppendControl(nil, sstp.EchoResponse)); err != nil {
				return err
			}
		case p.Type == sstp.CallAbort:
			return aborted(&p.Message)
		case p.Type == sstp.CallDisconnectAck:
			return k.conn.Close() // TLS says farewell first
		case p.Type == sstp.CallDisconnect:
			return errors.Join(errDeleted, k.write(sstp.AppendControl(nil, sstp.CallDisconnectAck)))
		}
	}
}

// hangUp ends the call as Windows does, by CALL_DISCONNECT, and waits a second at
// most for the answer to that.
func (k *sstpCaller) hangUp(done <-chan struct{}) {
	k.raw.SetWriteDeadline(time.Now().Add(time.Second)) // one that waits already ends too
	if err := k.write(sstp.AppendStatus(nil, sstp.CallDisconnect, sstp.StatusInfo{})); err == nil {
		select {
		case <-done:
		case <-time.After(time.Second):
		}
	}
	k.raw.Close()
}

// echo sends what is to be sent back: LCP Echo requests, or IP packets if there is
// an address.
func (k *sstpCaller) echo(done <-chan struct{}) {
	tick := time.NewTicker(orDefault(k.c.Every, time.Second))
	defer tick.Stop()
	for id := uint8(1); ; id++ {
		k.conn.SetWriteDeadline(time.Now().Add(k.c.patience()))
		b := lcp(lcpEchoRequest, id, []byte(rand.Text()))
		if k.ppp != nil {
			ip := append([]byte{0xff, 0x03, 0, protoIP, 0x45, 0, 0, 20 + 26, 0, id, 0, 0, 64, 253, 0, 0}, k.ppp.Assigned[:]...)
			b, _ = sstp.AppendData(nil, append(append(ip, 192, 0, 2, 1), rand.Text()...)) // it is short
		}
		if err := k.write(b); err != nil {
			return
		}
		k.c.note(func(s *TunnelStatus) { s.Sent++ })
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

// heard takes a frame.
func (k *sstpCaller) heard(frame []byte) error {
	if k.ppp != nil {
		if len(frame) > 4 && frame[2] == 0 && frame[3] == protoIP {
			k.c.heard("gateway")
			return nil
		}
		return k.ppp.Take(frame)
	}
	if code, _, data, ok := parseLCP(frame); ok && code == lcpEchoReply {
		k.c.heard(string(data))
	}
	return nil
}

// heard notes an answer. The first one proves that the call is up.
func (c *SSTPClient) heard(gateway string) {
	c.note(func(s *TunnelStatus) {
		s.Received++
		switch s.Gateway {
		case gateway:
		case "":
			s.Gateway = gateway
			s.Established++
			if !s.Lost.IsZero() {
				s.Back = time.Now()
			}
		default:
			s.Alien++
		}
	})
}
