package sstp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/sstp"
)

// In these tests the bytes of sessions go through a Terminator in virtual time, so
// that the protocol's minutes can pass:
//
//	client's part ── TLS over a pipe ── Terminator ── pipe ── gateway's part

// pipeIncoming is a connection as an engine hands it over. Its engine knows no
// idle timeout but idle, if that isn't 0.
type pipeIncoming struct {
	client, gateway net.Conn
	reset           chan struct{} // closed: the client's side is reset
}

func (p *pipeIncoming) Client() net.Conn { return p.client }

func (p *pipeIncoming) Flow() lb.Flow {
	return lb.Flow{Client: netip.MustParseAddrPort("203.0.113.7:4711"), Service: 443}
}

func (p *pipeIncoming) Route(avoid ...lb.ID) (lb.Route, error) {
	if len(avoid) > 0 {
		return lb.Route{}, errors.New("there is one gateway")
	}
	return lb.Route{Member: &lb.Member{Backend: lb.Backend{Name: "ras1"}}}, nil
}

func (p *pipeIncoming) Dial(context.Context, lb.Route, uint16) (net.Conn, error) {
	return p.gateway, nil
}

func (p *pipeIncoming) DialAddr(context.Context, netip.AddrPort) (net.Conn, error) {
	return nil, errors.New("there is no web server")
}

// Carry does what the engine of lb/tcp does.
func (p *pipeIncoming) Carry(client, backend net.Conn, first []byte) lb.Carried {
	var mu sync.Mutex
	c := lb.Carried{End: "done"}
	ended := func(who string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if c.First != "" {
			return
		}
		c.First = who
		select {
		case <-p.reset:
			c.First, c.End, c.Err = "client", "reset", syscall.ECONNRESET
		default:
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, os.ErrDeadlineExceeded) {
				c.End, c.Err = "reset", err
			}
		}
	}
	move := func(to, from net.Conn, who string) {
		_, err := io.Copy(to, struct{ io.Reader }{from})
		ended(who, err)
		if h, ok := to.(interface{ CloseWrite() error }); ok {
			h.CloseWrite()
		}
		p.gateway.Close()
		if who == "client" {
			p.client.Close()
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { move(client, backend, "backend") })
	if _, err := backend.Write(first); err == nil {
		move(backend, client, "client")
	}
	wg.Wait()
	p.client.Close()
	return c
}

// A course is one session: each side has a script, and what is read is thrown away.
type course struct {
	t               *testing.T
	client, gateway net.Conn // as both see them
	line            net.Conn // below the client's TLS: as something on the way sees it
	in              *pipeIncoming
	leaf            []byte
}

// say writes what it is given, in one piece, and waits until that has come through.
func say(c net.Conn, parts ...[]byte) {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	c.Write(b)
	synctest.Wait()
}

// ppp is a PPP frame as SSTP carries it.
func ppp(proto uint16, code byte, body string) []byte {
	frame := append([]byte{0xff, 3, byte(proto >> 8), byte(proto), code, 1, 0, byte(4 + len(body))}, body...)
	b, err := sstp.AppendData(nil, frame)
	if err != nil {
		panic(err)
	}
	return b
}

const (
	protoLCP  = 0xc021
	protoCHAP = 0xc223
	protoEAP  = 0xc227
	protoIP   = 0x0021
)

var (
	accepted = (&sstp.Response{Status: 200, Length: sstp.ContentLength}).Append(nil)
	askedFor = sstp.BindingRequest{Hashes: sstp.HashSHA1 | sstp.HashSHA256, Nonce: [32]byte{9}}
)

// connect brings a session up. It ends when data have moved both ways.
func (c *course) connect() {
	say(c.client, sstp.AppendConnectRequest(nil))
	say(c.gateway, accepted, sstp.AppendConnectAck(nil, &askedFor))
	say(c.gateway, ppp(protoLCP, 1, ""))
	say(c.client, ppp(protoLCP, 2, ""))
	say(c.gateway, ppp(protoCHAP, 1, "challenge"))
	say(c.client, ppp(protoCHAP, 2, "response"))
	say(c.gateway, ppp(protoCHAP, 3, "S=0"))
	b, err := sstp.NewBinding(&askedFor, c.leaf, sstp.Key{})
	if err != nil {
		c.t.Error(err)
	}
	say(c.client, sstp.AppendConnected(nil, &b))
	say(c.client, ppp(protoIP, 1, "up"))
	say(c.gateway, ppp(protoIP, 1, "down"))
}

// run plays script and returns what was found.
func (c *course) run(script func(c *course)) sstp.Session {
	cert, roots, err := standin.SelfSigned("vpn.example")
	if err != nil {
		c.t.Fatal(err)
	}
	front, us := net.Pipe()
	gateway, them := net.Pipe()
	c.leaf, c.gateway, c.line = cert.Certificate[0], gateway, front
	c.in = &pipeIncoming{client: us, gateway: them, reset: make(chan struct{})}
	s := new(sstp.Sessions)
	term := &sstp.Terminator{Leaves: &sstp.OneLeaf{Certificate: cert}, Sessions: s, Linger: time.Second}
	var wg sync.WaitGroup
	wg.Go(func() { term.Terminate(c.t.Context(), c.in) })
	client := tls.Client(front, &tls.Config{ServerName: "vpn.example", RootCAs: roots})
	if err := client.HandshakeContext(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	c.client = client
	q := sstp.TunnelRequest("vpn.example", "{C01D}")
	wg.Go(func() { io.Copy(io.Discard, client) })
	wg.Go(func() { io.Copy(io.Discard, gateway) })
	say(client, q.Append(nil))
	script(c)
	synctest.Wait()
	front.Close()
	gateway.Close()
	wg.Wait()
	list := s.List(0, true)
	if len(list) != 1 || list[0].End.IsZero() {
		c.t.Fatalf("sessions %+v", list)
	}
	return list[0]
}

func wait(d time.Duration) { time.Sleep(d) } // in virtual time

func TestCourses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		script func(c *course)
		want   sstp.Finding
		says   string
	}{
		{"all is well", func(c *course) {
			c.connect()
			wait(10 * time.Second)
			say(c.client, sstp.AppendStatus(nil, sstp.CallDisconnect, sstp.StatusInfo{}))
			say(c.gateway, sstp.AppendControl(nil, sstp.CallDisconnectAck))
		}, sstp.FindingNone, "the client disconnected"},
		{"a load balancer's idle timeout of 4 minutes, and no hello", func(c *course) {
			c.connect()
			wait(4 * time.Minute)
			c.line.Close()
		}, sstp.FindingIdle, "ended by the client 4m0s after the last byte"},
		{"an idle timeout of 5 s before the client", func(c *course) {
			c.connect()
			wait(5 * time.Second)
			c.line.Close()
		}, sstp.FindingIdle, "ended by the client 5s after the last byte"},
		{"the client itself closes after 5 s of silence", func(c *course) {
			c.connect()
			wait(5 * time.Second)
			c.client.Close()
		}, sstp.FindingNone, "the client ended it"},
		{"the client itself closes after 4 minutes, and no hello", func(c *course) {
			c.connect()
			wait(4 * time.Minute)
			c.client.Close()
		}, sstp.FindingNone, "the client ended it"},
		{"the client's farewell is only an answer", func(c *course) {
			c.connect()
			wait(10 * time.Second)
			c.gateway.Close()
			synctest.Wait()
			c.client.Close()
		}, sstp.FindingIdle, "ended by the gateway 10s after"},
		{"an idle timeout of 4 s", func(c *course) {
			c.connect()
			wait(4 * time.Second)
			c.gateway.Close()
		}, sstp.FindingIdle, "ended by the gateway 4s after"},
		{"a load balancer that resets what it has forgotten", func(c *course) {
			c.connect()
			wait(4 * time.Minute)
			close(c.in.reset)
			c.in.client.Close()
		}, sstp.FindingIdle, "ended by the client 4m0s after the last byte"},
		{"hello keeps it up, and the client leaves at an odd moment", func(c *course) {
			c.connect()
			for range 10 {
				wait(sstp.HelloTimeout)
				say(c.gateway, sstp.AppendControl(nil, sstp.EchoRequest))
				say(c.client, sstp.AppendControl(nil, sstp.EchoResponse))
			}
			wait(1700 * time.Millisecond)
			c.client.Close()
		}, sstp.FindingNone, "the client ended it"},
		{"the client's computer sleeps", func(c *course) {
			c.connect()
			wait(sstp.HelloTimeout)
			say(c.gateway, sstp.AppendControl(nil, sstp.EchoRequest))
			wait(sstp.HelloTimeout)
			c.gateway.Close()
		}, sstp.FindingPeerLost, "the gateway asked whether"},
		{"the network resets it", func(c *course) {
			c.connect()
			wait(1700 * time.Millisecond)
			close(c.in.reset)
			c.in.client.Close()
		}, sstp.FindingReset, "reset by the client"},
		{"the login gets no answer for a minute", func(c *course) {
			say(c.client, sstp.AppendConnectRequest(nil))
			say(c.gateway, accepted, sstp.AppendConnectAck(nil, &askedFor), ppp(protoEAP, 1, "\x19 "))
			say(c.client, ppp(protoEAP, 2, "\x19 "))
			wait(sstp.NegotiationTimeout)
			say(c.client, sstp.AppendStatus(nil, sstp.CallAbort, sstp.StatusInfo{Status: sstp.StatusNegotiationTimeout}))
		}, sstp.FindingAuthStalled, "EAP Response from client"},
		{"the same, and the gateway closes without a word", func(c *course) {
			say(c.client, sstp.AppendConnectRequest(nil))
			say(c.gateway, accepted, sstp.AppendConnectAck(nil, &askedFor), ppp(protoCHAP, 1, "challenge"))
			wait(sstp.NegotiationTimeout)
			c.gateway.Close()
		}, sstp.FindingAuthStalled, "CHAP Challenge from gateway"},
		{"no common method", func(c *course) {
			say(c.client, sstp.AppendConnectRequest(nil))
			say(c.gateway, accepted, sstp.AppendConnectAck(nil, &askedFor), ppp(protoLCP, 1, ""))
			say(c.client, ppp(protoLCP, 4, ""))
			say(c.gateway, ppp(protoLCP, 5, ""))
			c.gateway.Close()
		}, sstp.FindingNegotiation, "LCP Terminate-Request from gateway"},
		{"PPP never begins", func(c *course) {
			say(c.client, sstp.AppendConnectRequest(nil))
			say(c.gateway, accepted, sstp.AppendConnectAck(nil, &askedFor))
			wait(sstp.NegotiationTimeout)
			say(c.gateway, sstp.AppendStatus(nil, sstp.CallAbort, sstp.StatusInfo{Status: sstp.StatusNegotiationTimeout}))
		}, sstp.FindingNegotiation, "acknowledged"},
		{"the user is refused", func(c *course) {
			say(c.client, sstp.AppendConnectRequest(nil))
			say(c.gateway, accepted, sstp.AppendConnectAck(nil, &askedFor), ppp(protoCHAP, 1, "challenge"))
			say(c.client, ppp(protoCHAP, 2, "response"))
			say(c.gateway, ppp(protoCHAP, 4, "E=649 R=0 V=3 M=no dial-in"), ppp(protoLCP, 5, ""))
			c.gateway.Close()
		}, sstp.FindingAuthFailed, "error 649"},
		{"no answer for a minute", func(c *course) {
			wait(sstp.HTTPTimeout)
			c.client.Close()
		}, sstp.FindingNoAnswer, "didn't answer the request"},
		{"the client sends nonsense", func(c *course) {
			say(c.gateway, accepted)
			say(c.client, []byte("\x20 this is not SSTP"))
			wait(time.Second)
		}, sstp.FindingMalformed, "the client sent what isn't SSTP"},
		{"an abort long after", func(c *course) {
			c.connect()
			wait(17 * time.Second)
			say(c.gateway, sstp.AppendStatus(nil, sstp.CallAbort, sstp.StatusInfo{Status: sstp.StatusUnacceptedFrame}))
			c.gateway.Close()
		}, sstp.FindingAborted, "the gateway aborted the call"},
		{"a closed connection instead of an abort", func(c *course) {
			say(c.client, sstp.AppendConnectRequest(nil))
			say(c.gateway, accepted, sstp.AppendConnectAck(nil, &askedFor))
			b, _ := sstp.NewBinding(&askedFor, c.leaf, sstp.Key{})
			say(c.client, sstp.AppendConnected(nil, &b))
			wait(100 * time.Millisecond)
			c.gateway.Close()
		}, sstp.FindingWrongHash, "gateway ras1 expects another one"},
		{"SoftEther's abort without attributes", func(c *course) {
			say(c.client, sstp.AppendConnectRequest(nil))
			say(c.gateway, accepted, sstp.AppendConnectAck(nil, &askedFor))
			b, _ := sstp.NewBinding(&askedFor, c.leaf, sstp.Key{})
			say(c.client, sstp.AppendConnected(nil, &b))
			say(c.gateway, sstp.AppendControl(nil, sstp.CallAbort))
		}, sstp.FindingWrongHash, "Enable-SstpOffload"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &course{t: t}
				s := c.run(tc.script)
				what, fix := s.Explain()
				if s.Finding != tc.want || !strings.Contains(what+"; "+fix, tc.says) {
					t.Errorf("%v: %s; %s\nwant %v: %s\n%+v", s.Finding, what, fix, tc.want, tc.says, s)
				}
			})
		})
	}
}
