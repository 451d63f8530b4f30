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
	"strings"
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
	// Dialer opens connections; nil means a plain one.
	Dialer *net.Dialer
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
	t := tls.Client(raw, &tls.Config{ServerName: c.ServerName, RootCAs: c.RootCAs})
	raw.SetDeadline(time.Now().Add(c.patience()))
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	r := bufio.NewReader(t)
	if err := c.setUp(t, r); err != nil {
		return err
	}
	return c.talk(t, r)
}

func (c *SSTPClient) patience() time.Duration { return orDefault(c.Patience, 10*time.Second) }

// setUp does what comes before data: HTTP, the request for the call, the client's
// name, and the crypto binding.
func (c *SSTPClient) setUp(t *tls.Conn, r *bufio.Reader) error {
	id := randomBytes(16)
	_, err := fmt.Fprintf(t, "SSTP_DUPLEX_POST %s HTTP/1.1\r\nContent-Length: %s\r\nHost: %s\r\n"+
		"SSTPCORRELATIONID: {%X-%X-%X-%X-%X}\r\n\r\n", sstp.Path, sstpLength, c.ServerName, id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	if err != nil {
		return err
	}
	first, fields, err := readHead(r)
	if err != nil {
		return err
	}
	if status, _ := strings.CutPrefix(first, "HTTP/1.1 "); !strings.HasPrefix(status, "200") || fields["content-length"] != sstpLength {
		return fmt.Errorf("standin: SSTP_DUPLEX_POST was answered %q", first)
	}
	if _, err := t.Write(control(callConnectRequest, attrProtocol, []byte{0, protocolPPP})); err != nil {
		return err
	}
	p, err := readSSTP(r)
	if err != nil {
		return err
	}
	ask := p.attrs[attrBindingReq]
	if !p.control || p.kind != callConnectAck || len(ask) != 36 || ask[3]&hashSHA256 == 0 {
		return errors.New("standin: the gateway did not accept the call")
	}
	if _, err := t.Write(lcp(lcpIdentification, 1, []byte(c.Name))); err != nil {
		return err
	}
	_, err = t.Write(bindCall(ask[4:], t.ConnectionState().PeerCertificates[0].Raw))
	return err
}

// talk sends LCP Echo requests and reads what comes until the call is over.
func (c *SSTPClient) talk(t *tls.Conn, r *bufio.Reader) error {
	done := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(done)
	defer t.NetConn().Close() // frees a Write that waits
	wg.Go(func() { c.echo(t, done) })
	for {
		t.SetReadDeadline(time.Now().Add(c.patience()))
		p, err := readSSTP(r)
		if err != nil {
			return err
		}
		switch {
		case !p.control:
			if code, _, data, ok := parseLCP(p.data); ok && code == lcpEchoReply {
				c.heard(string(data))
			}
		case p.kind == echoRequest:
			if _, err := t.Write(control(echoResponse, 0, nil)); err != nil {
				return err
			}
		case p.kind == callAbort:
			return fmt.Errorf("standin: the gateway aborted the call: status %x", p.attrs[attrStatus])
		case p.kind == callDisconnect:
			_, err := t.Write(control(callDisconnectAck, 0, nil))
			return errors.Join(errDeleted, err)
		}
	}
}

func (c *SSTPClient) echo(t *tls.Conn, done <-chan struct{}) {
	tick := time.NewTicker(orDefault(c.Every, time.Second))
	defer tick.Stop()
	for id := uint8(1); ; id++ {
		t.SetWriteDeadline(time.Now().Add(c.patience()))
		if _, err := t.Write(lcp(lcpEchoRequest, id, []byte(rand.Text()))); err != nil {
			return
		}
		c.note(func(s *TunnelStatus) { s.Sent++ })
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
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
