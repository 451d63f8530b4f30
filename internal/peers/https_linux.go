package peers

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// SSTPPath is the resource that SSTP clients ask for.
const SSTPPath = "/sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/"

// A Manner is how an HTTPS server behaves.
type Manner int32

const (
	// Answers has it answer requests with its Status, and an SSTP client's
	// with 200, after which it echoes what the client sends.
	Answers Manner = iota
	// Hangs has it shake hands and then say nothing.
	Hangs
	// Resets has it reset every connection that it accepts.
	Resets
)

// An HTTPS is a server in a Host that does what an SSTP gateway does as long as
// nothing is wrong, and otherwise what gateways do that are up and don't serve.
type HTTPS struct {
	// Name is in the Server header of its answers.
	Name string
	// Sessions counts the SSTP clients that it has had.
	Sessions atomic.Int32
	// Last is the address of the last of them.
	Last atomic.Pointer[netip.AddrPort]

	status, manner atomic.Int32

	mu    sync.Mutex
	conns map[net.Conn]bool
	ended bool
}

// Set changes what the server does from the next connection on.
func (s *HTTPS) Set(m Manner, status int) {
	s.manner.Store(int32(m))
	s.status.Store(int32(status))
}

// HTTPS starts a server on TCP port 443 of the namespace, until the test ends.
func (h *Host) HTTPS(name string, p *PKI, m Manner, status int) *HTTPS {
	t := h.net.t
	t.Helper()
	leaf := p.Issue(t, ServerName)
	cert, err := tls.X509KeyPair(append(leaf.Cert, p.IntermediatePEM()...), leaf.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := h.Listen(":443")
	if err != nil {
		t.Fatal(err)
	}
	s := &HTTPS{Name: name, conns: map[net.Conn]bool{}}
	s.Set(m, status)
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if !s.add(c) {
				return
			}
			wg.Go(func() {
				s.serve(c.(*net.TCPConn), config)
				s.remove(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.closeAll()
		wg.Wait()
	})
	return s
}

func (s *HTTPS) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		c.Close()
		return false
	}
	s.conns[c] = true
	return true
}

func (s *HTTPS) remove(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Close()
	delete(s.conns, c)
}

func (s *HTTPS) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for c := range s.conns {
		c.Close()
	}
}

func (s *HTTPS) serve(tcp *net.TCPConn, config *tls.Config) {
	if Manner(s.manner.Load()) == Resets {
		_ = tcp.SetLinger(0) // then closing resets
		return
	}
	c := tls.Server(tcp, config)
	r := bufio.NewReader(c)
	for {
		method, err := readHead(r)
		if err != nil {
			return
		}
		switch {
		case Manner(s.manner.Load()) == Hangs:
			_, _ = io.Copy(io.Discard, r) // until the other side has had enough
			return
		case method == "SSTP_DUPLEX_POST":
			s.Sessions.Add(1)
			from := tcp.RemoteAddr().(*net.TCPAddr).AddrPort()
			s.Last.Store(&from)
			fmt.Fprintf(c, "HTTP/1.1 200\r\nContent-Length: 18446744073709551615\r\nServer: %s\r\n\r\n", s.Name)
			_, _ = io.Copy(c, r) // until the client has had enough
			return
		}
		status := int(s.status.Load())
		fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\nServer: %s\r\n\r\n", status, http.StatusText(status), s.Name)
	}
}

// readHead reads the head of a request, and returns its method. It isn't
// http.ReadRequest because SSTP's Content-Length is larger than that takes.
func readHead(r *bufio.Reader) (method string, err error) {
	for n := range 100 {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimSpace(line)
		if n == 0 {
			method, _, _ = strings.Cut(line, " ")
		}
		if line == "" {
			return method, nil
		}
	}
	return "", errors.New("head too long")
}

// Nginx starts nginx on TCP port 443 of the namespace. It answers every request
// with status.
func (h *Host) Nginx(p *PKI, status int) {
	t := h.net.t
	t.Helper()
	dir := filepath.Join(h.net.Dir, "nginx-"+h.Name)
	leaf := p.Issue(t, ServerName)
	err := write(dir, map[string][]byte{
		"own.pem": append(leaf.Cert, p.IntermediatePEM()...),
		"own.key": leaf.Key,
		"nginx.conf": fmt.Appendf(nil, `
user root;
daemon off;
worker_processes 1;
pid %[1]s/pid;
error_log stderr;
events {
	worker_connections 256;
}
http {
	access_log off;
	client_body_temp_path %[1]s;
	proxy_temp_path %[1]s;
	fastcgi_temp_path %[1]s;
	uwsgi_temp_path %[1]s;
	scgi_temp_path %[1]s;
	server {
		listen 443 ssl;
		ssl_certificate %[1]s/own.pem;
		ssl_certificate_key %[1]s/own.key;
		return %[2]d;
	}
}
`, dir, status),
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Start("nginx", nil, "nginx", "-c", filepath.Join(dir, "nginx.conf"))
	Eventually(t, 20*time.Second, "nginx of "+h.Name, func() error {
		c, err := h.Dial("tcp", "127.0.0.1:443")
		if err == nil {
			c.Close()
		}
		return err
	})
}

// Head asks server, an address and port, for the SSTP resource, and returns the
// status line of its answer.
func (h *Host) Head(server string) (string, error) {
	tcp, err := h.Dial("tcp", server)
	if err != nil {
		return "", err
	}
	c := tls.Client(tcp, &tls.Config{InsecureSkipVerify: true}) // as in SSTP
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintf(c, "HEAD %s HTTP/1.1\r\nHost: %s\r\n\r\n", SSTPPath, ServerName)
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// An SSTPSession is the HTTPS part of an SSTP client, after its handshake.
type SSTPSession struct {
	// Server is the name of the server.
	Server string

	c *tls.Conn
	r *bufio.Reader
}

// SSTP begins a session with server, which is an address and port.
func (h *Host) SSTP(server string) (*SSTPSession, error) {
	tcp, err := h.Dial("tcp", server)
	if err != nil {
		return nil, err
	}
	// No server is refused: a test asks which one it got.
	c := tls.Client(tcp, &tls.Config{InsecureSkipVerify: true})
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	s := &SSTPSession{c: c, r: bufio.NewReader(c)}
	fmt.Fprintf(c, "SSTP_DUPLEX_POST %s HTTP/1.1\r\nHost: %s\r\nSSTPCORRELATIONID: {6E0E7B8C-0B67-4F5A-B5A1-0D0B6D6E3C1F}\r\nContent-Length: 18446744073709551615\r\n\r\n",
		SSTPPath, ServerName)
	line, err := s.r.ReadString('\n')
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("sstp: %w", err)
	}
	for {
		head, err := s.r.ReadString('\n')
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("sstp: %w", err)
		}
		head = strings.TrimSpace(head)
		if name, ok := strings.CutPrefix(head, "Server: "); ok {
			s.Server = name
		}
		if head == "" {
			break
		}
	}
	if !strings.HasPrefix(line, "HTTP/1.1 200") {
		c.Close()
		return s, fmt.Errorf("sstp: %s answered %q", s.Server, strings.TrimSpace(line))
	}
	return s, nil
}

// Echo sends text and waits for it to come back.
func (s *SSTPSession) Echo(text string) error {
	_ = s.c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := s.c.Write([]byte(text)); err != nil {
		return err
	}
	back := make([]byte, len(text))
	if _, err := io.ReadFull(s.r, back); err != nil {
		return err
	}
	if string(back) != text {
		return fmt.Errorf("sstp: %q came back as %q", text, back)
	}
	return nil
}

// Local returns the client's address.
func (s *SSTPSession) Local() netip.Addr {
	return s.c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}

// Close ends the session.
func (s *SSTPSession) Close() error { return s.c.Close() }
