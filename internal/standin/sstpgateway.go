package standin

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aovlb/aovlb/sstp"
)

// sstpLength is the Content-Length by which both sides of SSTP say "for ever".
const sstpLength = "18446744073709551615"

// An SSTPGateway answers SSTP clients as RRAS behind HTTP.sys does, and keeps
// books. Serve may be called again after it has returned.
type SSTPGateway struct {
	// Name is written into the answers to LCP Echo.
	Name string
	// Certificate is what it shows; it must not be empty.
	Certificate tls.Certificate
	// Hello is how long the peer may be silent before it is asked, and again
	// before the call is given up; 0 means 60 s.
	Hello time.Duration
	// Logger, if not nil, hears why calls end.
	Logger *slog.Logger

	book book

	mu     sync.Mutex
	counts SSTPCounts
}

// SSTPCounts are what an SSTPGateway was asked and what it refused.
type SSTPCounts struct {
	// Probes counts HEAD requests for the SSTP resource, Calls the calls that
	// were set up, Aborted those refused for their crypto binding, Bad the
	// connections that spoke neither HTTP nor SSTP.
	Probes, Calls, Aborted, Bad uint64
}

// Counts returns what has been counted over all lives.
func (g *SSTPGateway) Counts() SSTPCounts {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.counts
}

func (g *SSTPGateway) count(c *uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	*c++
}

// Sessions returns all calls, of all lives.
func (g *SSTPGateway) Sessions() []Session { return g.book.list() }

// Serve answers on ln until ctx is done, and then closes it and all connections.
func (g *SSTPGateway) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer g.book.newLife()
	var wg sync.WaitGroup
	defer wg.Wait()
	context.AfterFunc(ctx, func() { ln.Close() })
	for {
		c, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			err = fmt.Errorf("standin: SSTP gateway %s: %w", g.Name, err)
			cancel(err)
			return err
		}
		wg.Go(func() {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			defer c.Close()
			if err := g.connection(ctx, c); err != nil && g.Logger != nil && ctx.Err() == nil {
				g.Logger.Info("SSTP connection ended", "gateway", g.Name, "client", c.RemoteAddr(), "error", err)
			}
		})
	}
}

// connection serves HTTP requests until one of them becomes an SSTP call.
func (g *SSTPGateway) connection(ctx context.Context, raw net.Conn) error {
	c := tls.Server(raw, &tls.Config{
		Certificates: []tls.Certificate{g.Certificate}, MinVersion: tls.VersionTLS12,
		// A resumed session would bind the call to an older certificate.
		SessionTicketsDisabled: true,
	})
	c.SetDeadline(time.Now().Add(g.hello()))
	if err := c.HandshakeContext(ctx); err != nil {
		g.count(&g.counts.Bad)
		return err
	}
	r := bufio.NewReader(c)
	for answered := false; ; answered = true {
		first, _, err := readHead(r)
		switch {
		case err != nil && answered: // that was all the client wanted
			return nil
		case err != nil:
			g.count(&g.counts.Bad)
			return err
		}
		method, rest, _ := strings.Cut(first, " ")
		target, version, _ := strings.Cut(rest, " ")
		path, _, _ := strings.Cut(target, "?")
		switch {
		case version != "HTTP/1.1":
			g.count(&g.counts.Bad)
			return errors.New("standin: not HTTP/1.1")
		case path == sstp.Path && method == "SSTP_DUPLEX_POST":
			return g.call(c, r)
		case path == sstp.Path && method == "HEAD":
			g.count(&g.counts.Probes)
			err = httpAnswer(c, "401 Unauthorized")
		default:
			err = httpAnswer(c, "404 Not Found")
		}
		if err != nil {
			return err
		}
	}
}

func httpAnswer(w io.Writer, status string) error {
	_, err := fmt.Fprintf(w, "HTTP/1.1 %s\r\nContent-Length: 0\r\nServer: Microsoft-HTTPAPI/2.0\r\nDate: %s\r\n\r\n",
		status, httpDate())
	return err
}

func httpDate() string { return time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT") }

func (g *SSTPGateway) hello() time.Duration { return orDefault(g.Hello, time.Minute) }

// A sstpCall is one call as the gateway sees it.
type sstpCall struct {
	g         *SSTPGateway
	w         io.Writer
	nonce     []byte
	began     time.Time
	client    string
	connected bool
	session   int
}

// call serves an SSTP call until it ends.
func (g *SSTPGateway) call(c net.Conn, r *bufio.Reader) error {
	// Windows sends no reason phrase, and no space for one either.
	_, err := fmt.Fprintf(c, "HTTP/1.1 200\r\nContent-Length: %s\r\nServer: Microsoft-HTTPAPI/2.0\r\nDate: %s\r\n\r\n",
		sstpLength, httpDate())
	if err != nil {
		return err
	}
	s := &sstpCall{g: g, w: c, began: time.Now()}
	defer s.end()
	asked := false
	for {
		c.SetDeadline(time.Now().Add(g.hello()))
		p, err := readSSTP(r)
		if errors.Is(err, os.ErrDeadlineExceeded) && s.connected && !asked {
			// The deadline may have cut a packet in two, but then the next
			// read fails, and so does the call.
			asked = true
			c.SetDeadline(time.Now().Add(g.hello()))
			if _, err = c.Write(control(echoRequest, 0, nil)); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		asked = false
		if done, err := s.packet(p); done || err != nil {
			return err
		}
	}
}

// packet answers one packet; done says that the call is over.
func (s *sstpCall) packet(p sstpPacket) (done bool, err error) {
	if !p.control {
		return false, s.data(p.data)
	}
	var answer []byte
	switch p.kind {
	case callConnectRequest:
		if s.nonce != nil || string(p.attrs[attrProtocol]) != string([]byte{0, protocolPPP}) {
			return true, errSSTP
		}
		s.nonce = randomBytes(32)
		answer = control(callConnectAck, attrBindingReq, append([]byte{0, 0, 0, hashSHA256}, s.nonce...))
	case callConnected:
		if s.nonce == nil || s.connected || s.client == "" {
			return true, errSSTP
		}
		if attr, status := checkBinding(p, s.nonce, s.g.Certificate.Certificate[0]); status != 0 {
			s.g.count(&s.g.counts.Aborted)
			_, err = s.w.Write(control(callAbort, attrStatus, []byte{0, 0, 0, attr, 0, 0, 0, status}))
			return true, err
		}
		s.connect()
		return false, nil
	case echoRequest:
		answer = control(echoResponse, 0, nil)
	case echoResponse:
		return false, nil
	case callDisconnect:
		_, err = s.w.Write(control(callDisconnectAck, 0, nil))
		return true, err
	default:
		return true, nil
	}
	_, err = s.w.Write(answer)
	return false, err
}

func (s *sstpCall) connect() {
	s.connected = true
	now := time.Now()
	s.g.count(&s.g.counts.Calls)
	s.session = s.g.book.open(Session{Client: s.client, Begun: s.began, Established: now, Last: now})
}

func (s *sstpCall) end() {
	if s.connected {
		s.g.book.note(s.session, func(s *Session) {
			if s.Ended.IsZero() {
				s.Ended = time.Now()
			}
		})
	}
}

// data takes a PPP frame. Before the call is connected only the client's name
// counts.
func (s *sstpCall) data(b []byte) error {
	code, id, data, ok := parseLCP(b)
	switch {
	case !ok:
		return nil
	case code == lcpIdentification && !s.connected:
		s.client = string(data)
	case code == lcpEchoRequest && s.connected:
		s.g.book.note(s.session, func(s *Session) { s.Last = time.Now(); s.Packets++ })
		_, err := s.w.Write(lcp(lcpEchoReply, id, []byte(s.g.Name)))
		return err
	}
	return nil
}
