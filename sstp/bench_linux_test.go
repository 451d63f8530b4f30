package sstp_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/tcp"
	"github.com/aovlb/aovlb/sstp"
)

// childEnv makes the test program a balancer in a process of its own: its value is
// the mode, the address and port of the gateway, and a file with certificate and
// key. It prints where it listens. At a line of its input it says how many bytes of
// memory it uses, after collecting garbage; at the input's end it ends. Without an
// address it is that gateway, which keeps every call until the end.
const childEnv = "AOVLB_SSTP_CHILD"

func child(spec string) error {
	words := strings.Fields(spec)
	if words[1] == "-" {
		return childGateway(words[0], words[2])
	}
	gateway, err1 := netip.ParseAddrPort(words[1])
	cert, err2 := tls.LoadX509KeyPair(words[2], words[2])
	l, err3 := net.Listen("tcp", "127.0.0.1:0")
	pool := new(lb.Pool)
	err4 := pool.Set(lb.Backend{Name: "ras1", Addr: gateway.Addr()})
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	t := &sstp.Terminator{
		Leaves: &sstp.OneLeaf{Certificate: cert}, Gateway: sstp.GatewayTLS{Insecure: true}, Sessions: new(sstp.Sessions), HandshakeRate: -1, MaxHandshakes: 1 << 16,
	}
	if words[0] == sstp.ModeReencrypt.String() {
		t.Mode = sstp.ModeReencrypt
	}
	e := &tcp.Engine{Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table), MaxHinted: -1}, Sniffer: sstp.Sniffer{}, Terminator: t, Port: gateway.Port()}
	fmt.Println(l.Addr())
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			var m runtime.MemStats
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&m)
			fmt.Println(m.HeapAlloc+m.StackInuse, t.Sessions.Live())
		}
	}()
	if err := e.Serve(ctx, l); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func childGateway(mode, file string) error {
	cert, err1 := tls.LoadX509KeyPair(file, file)
	l, err2 := net.Listen("tcp", "127.0.0.1:0")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	fmt.Println(l.Addr())
	var wg sync.WaitGroup
	wg.Go(func() { (&bench{reencrypt: mode == sstp.ModeReencrypt.String()}).serve(l, &cert, &wg) })
	_, err := io.Copy(io.Discard, os.Stdin) // until the parent ends
	l.Close()
	return err
}

// A rival is a balancer in a process of its own.
type rival struct {
	name string
	addr string
	pid  int
	in   io.Writer
	out  *bufio.Reader
}

// bench is what rivals stand before: a gateway that accepts any call, and then
// sends what it is told.
type bench struct {
	t     *testing.T
	mode  sstp.Mode
	file  string // certificate and key
	back  net.Addr
	calls chan net.Conn // that have begun; nil if the gateway keeps them
	// reencrypt says that the gateway speaks TLS.
	reencrypt bool
}

func newBench(t *testing.T, mode sstp.Mode) *bench {
	t.Helper()
	b, cert := benchFor(t, mode)
	b.calls = make(chan net.Conn, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.back = l.Addr()
	var wg sync.WaitGroup
	wg.Go(func() { b.serve(l, &cert, &wg) })
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return b
}

// newApartBench is newBench with the gateway in a process of its own, so that its
// files count for nobody else.
func newApartBench(t *testing.T, mode sstp.Mode) *bench {
	t.Helper()
	b, _ := benchFor(t, mode)
	addr, err := net.ResolveTCPAddr("tcp", b.spawn("-").addr)
	if err != nil {
		t.Fatal(err)
	}
	b.back = addr
	return b
}

// benchFor makes the certificate.
func benchFor(t *testing.T, mode sstp.Mode) (*bench, tls.Certificate) {
	t.Helper()
	cert, _, err := standin.SelfSigned("vpn.example")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, mode: mode, reencrypt: mode == sstp.ModeReencrypt, file: filepath.Join(t.TempDir(), "vpn.pem")}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := os.WriteFile(b.file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return b, cert
}

func (b *bench) serve(l net.Listener, cert *tls.Certificate, wg *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() { b.accept(c, cert) })
	}
}

// accept answers a request, and hands the call over.
func (b *bench) accept(c net.Conn, cert *tls.Certificate) {
	if b.reencrypt {
		c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}, SessionTicketsDisabled: true})
	}
	head := make([]byte, 0, 512)
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		n, err := c.Read(head[len(head):cap(head)])
		if head = head[:len(head)+n]; err != nil || len(head) == cap(head) {
			c.Close()
			return
		}
	}
	if _, err := c.Write((&sstp.Response{Status: 200, Length: sstp.ContentLength}).Append(nil)); err != nil {
		c.Close()
		return
	}
	if b.calls != nil {
		b.calls <- c
		return
	}
	_, _ = io.Copy(io.Discard, c)
	c.Close()
}

// call begins a call through p, and returns both its ends, or that of the client
// alone if the gateway keeps the other.
func (b *bench) call(p *rival) (client, gateway net.Conn, err error) {
	// The groups are those of Windows' clients. Another than HAProxy's OpenSSL has
	// would be more work for one of both only.
	c, err := tls.Dial("tcp", p.addr, &tls.Config{
		InsecureSkipVerify: true, ServerName: "vpn.example", NextProtos: []string{"http/1.1"},
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384},
	})
	if err != nil {
		return nil, nil, err
	}
	q := sstp.TunnelRequest("vpn.example", "{1}")
	if _, err := c.Write(q.Append(nil)); err != nil {
		return nil, nil, err
	}
	want := (&sstp.Response{Status: 200, Length: sstp.ContentLength}).Append(nil)
	if _, err := io.ReadFull(c, make([]byte, len(want))); err != nil {
		return nil, nil, err
	}
	if b.calls == nil {
		return c, nil, nil
	}
	return c, <-b.calls, nil
}

func (b *bench) ours() *rival { b.t.Helper(); return b.spawn(b.back.String()) }

// spawn starts this program as a balancer, or as the gateway if gateway is "-".
func (b *bench) spawn(gateway string) *rival {
	b.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%v %v %s", childEnv, b.mode, gateway, b.file))
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { in.Close(); cmd.Wait() })
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	if err != nil {
		b.t.Fatal(err)
	}
	return &rival{"aovlb", strings.TrimSpace(line), cmd.Process.Pid, in, r}
}

func (b *bench) haproxy() *rival {
	b.t.Helper()
	bin, err := exec.LookPath("haproxy")
	if err != nil {
		b.t.Skip("haproxy isn't installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	on := ""
	if b.mode == sstp.ModeReencrypt {
		on = " ssl verify none no-tls-tickets no-ssl-reuse"
	}
	conf := filepath.Join(b.t.TempDir(), "haproxy.cfg")
	text := fmt.Sprintf(`global
	maxconn %d
defaults
	mode tcp
	timeout connect 5s
	timeout client 10m
	timeout server 10m
	option splice-auto
listen l
	bind %s ssl crt %s alpn http/1.1 no-tls-tickets
	server s %v%s
`, descriptors(b.t)*3/8, addr, b.file, b.back, on)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(bin, "-db", "-q", "-f", conf)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	until(b.t, "haproxy", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return &rival{name: "haproxy", addr: addr, pid: cmd.Process.Pid}
}

// descriptors returns how many files may be open; a session has two.
func descriptors(t *testing.T) int {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return int(limit.Cur)
}

// cpu returns the time a process has used, all threads.
func (p *rival) cpu(t *testing.T) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// memory returns what a process says of its memory, and of its sessions.
func (p *rival) memory(t *testing.T) (bytes uint64, live int) {
	t.Helper()
	fmt.Fprintln(p.in)
	line, err := p.out.ReadString('\n')
	if _, serr := fmt.Sscan(line, &bytes, &live); err != nil || serr != nil {
		t.Fatal(err, serr)
	}
	return bytes, live
}

// rss returns the memory that the system has given a process, in bytes.
func (p *rival) rss(t *testing.T) uint64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.pid))
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.ParseUint(strings.Fields(string(b))[1], 10, 64)
	return n * uint64(os.Getpagesize())
}

// flood sends packets from gateway to client, or back, over n calls for d, and
// returns how many bytes arrived.
func (b *bench) flood(p *rival, n int, down bool, d time.Duration) uint64 {
	b.t.Helper()
	packet, err := sstp.AppendData(nil, make([]byte, 1400))
	if err != nil {
		b.t.Fatal(err)
	}
	chunk := bytes.Repeat(packet, 11)
	var arrived atomic.Uint64
	var all sync.WaitGroup
	var conns []net.Conn
	for range n {
		c, g, err := b.call(p)
		if err != nil {
			b.t.Fatal(err)
		}
		// A session whose data are looked at no more, as those are that last.
		_, err1 := c.Write(append(sstp.AppendConnected(nil, &sstp.Binding{Hash: sstp.HashSHA256}), packet...))
		_, err2 := g.Write(packet)
		if err := errors.Join(err1, err2); err != nil {
			b.t.Fatal(err)
		}
		from, to := c, g
		if down {
			from, to = g, c
		}
		conns = append(conns, c, g)
		all.Go(func() {
			for {
				if _, err := from.Write(chunk); err != nil {
					return
				}
			}
		})
		all.Go(func() {
			buf := make([]byte, 64<<10)
			for {
				n, err := to.Read(buf)
				arrived.Add(uint64(n))
				if err != nil {
					return
				}
			}
		})
	}
	<-time.After(d / 5) // windows grow
	before := arrived.Load()
	<-time.After(d)
	got := arrived.Load() - before
	for _, c := range conns {
		hangUp(c)
	}
	all.Wait()
	return got
}

// hangUp closes a connection by reset, so that no port is left waiting.
func hangUp(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}

// churn begins and ends calls for d, four at a time, and returns how many.
func (b *bench) churn(p *rival, d time.Duration) int {
	b.t.Helper()
	var n atomic.Int64
	var all sync.WaitGroup
	end := time.Now().Add(d)
	for range 4 {
		all.Go(func() {
			for time.Now().Before(end) {
				c, g, err := b.call(p)
				if err != nil {
					b.t.Error(err)
					return
				}
				n.Add(1)
				hangUp(c)
				hangUp(g)
			}
		})
	}
	all.Wait()
	return int(n.Load())
}

// spread is what was measured in several rounds: least, median and most.
type spread []float64

func (s spread) String() string {
	o := slices.Sorted(slices.Values(s))
	return fmt.Sprintf("%.2f/%.2f/%.2f", o[0], o[len(o)/2], o[len(o)-1])
}

func (s spread) median() float64 { return slices.Sorted(slices.Values(s))[len(s)/2] }

func needBench(t *testing.T) {
	t.Helper()
	if os.Getenv("AOVLB_BENCH") != "1" {
		t.Skip("takes a minute and all cores: set AOVLB_BENCH=1")
	}
}

// TestAgainstHAProxy compares what moves through sessions, and how many can be
// begun, with HAProxy, which ends TLS in TCP mode and knows nothing of SSTP. Both
// are processes of their own, and rounds are interleaved in random order.
func TestAgainstHAProxy(t *testing.T) {
	needBench(t)
	const rounds, d = 5, 500 * time.Millisecond
	eachMode(t, func(t *testing.T, mode sstp.Mode) {
		b := newBench(t, mode)
		rivals := []*rival{b.ours(), b.haproxy()}
		for _, load := range []struct {
			name string
			unit string
			cost string
			run  func(p *rival) (rate, work float64)
		}{
			{"4 sessions down", "Gb/s", "CPU s/GB", func(p *rival) (float64, float64) {
				n := float64(b.flood(p, 4, true, d))
				return n * 8 / 1e9 / d.Seconds(), n * 1.2 / 1e9
			}},
			{"4 sessions up", "Gb/s", "CPU s/GB", func(p *rival) (float64, float64) {
				n := float64(b.flood(p, 4, false, d))
				return n * 8 / 1e9 / d.Seconds(), n * 1.2 / 1e9
			}},
			{"new sessions", "/s", "CPU ms each", func(p *rival) (float64, float64) {
				n := float64(b.churn(p, d))
				return n / d.Seconds(), n / 1e3
			}},
		} {
			rate, cost := make(map[string]spread), make(map[string]spread)
			for range rounds {
				for _, i := range rand.Perm(len(rivals)) {
					p := rivals[i]
					before := p.cpu(t)
					r, work := load.run(p)
					rate[p.name] = append(rate[p.name], r)
					cost[p.name] = append(cost[p.name], (p.cpu(t)-before).Seconds()/work)
				}
			}
			var r, c spread
			for i := range rounds {
				r = append(r, rate["aovlb"][i]/rate["haproxy"][i])
				c = append(c, cost["aovlb"][i]/cost["haproxy"][i])
			}
			for _, p := range rivals {
				t.Logf("%-16s %-8s %s %s, %s %s", load.name, p.name, rate[p.name], load.unit, cost[p.name], load.cost)
			}
			t.Logf("%-16s aovlb / haproxy: x%s, CPU x%s", load.name, r, c)
			if r.median() < 0.4 {
				t.Errorf("%s: %.2f of what HAProxy does", load.name, r.median())
			}
		}
	})
}

// TestMemoryOfIdleSessions holds 10,000 sessions, which say nothing. Each has two
// files in the balancer, and many systems let a process have 20,000: where they
// don't suffice, as many processes as it takes share the sessions, of each rival, and
// what is told is their sum.
func TestMemoryOfIdleSessions(t *testing.T) {
	needBench(t)
	const sessions, spare = 10_000, 100
	eachMode(t, func(t *testing.T, mode sstp.Mode) {
		for name, start := range map[string]func(*bench) *rival{"aovlb": (*bench).ours, "haproxy": (*bench).haproxy} {
			t.Run(name, func(t *testing.T) {
				b := newApartBench(t, mode)
				room := descriptors(t)/2 - spare
				if name == "haproxy" {
					room = descriptors(t)*3/8 - 10 // it keeps more in reserve
				}
				processes := (sessions + room - 1) / room
				var m idleMemory
				for range processes {
					b.fill(start(b), sessions/processes, &m)
				}
				n := float64(m.sessions) * 1024
				t.Logf("%d sessions in %d processes: %.1f KiB of the system's memory each", m.sessions, processes, float64(m.rss)/n)
				if name == "haproxy" {
					return
				}
				t.Logf("%d live: %.1f KiB of heap and stacks each", m.live, float64(m.heap)/n)
				if most := 32.0; float64(m.heap)/n > most {
					t.Errorf("%.1f KiB each, want at most %v", float64(m.heap)/n, most)
				}
			})
		}
	})
}

// idleMemory is what idle sessions take.
type idleMemory struct {
	sessions, live int
	rss, heap      uint64
}

// fill begins n sessions through p, keeps them until the test ends, and adds to m
// what they take.
func (b *bench) fill(p *rival, n int, m *idleMemory) {
	b.t.Helper()
	first, _, err := b.call(p) // so that what the first one needs is there
	if err != nil {
		b.t.Fatal(err)
	}
	hangUp(first)
	before, heap := p.rss(b.t), uint64(0)
	if p.in != nil {
		heap, _ = p.memory(b.t)
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	var conns []net.Conn
	b.t.Cleanup(func() {
		for _, c := range conns {
			hangUp(c)
		}
	})
	const atOnce = 4
	for i := range atOnce {
		all.Go(func() {
			for range (n + i) / atOnce {
				c, _, err := b.call(p)
				if err != nil {
					b.t.Error(err)
					return
				}
				mu.Lock()
				conns = append(conns, c)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	m.sessions += len(conns)
	if p.in != nil {
		got, live := p.memory(b.t)
		m.heap, m.live = m.heap+got-heap, m.live+live
	}
	m.rss += p.rss(b.t) - before
}

// TestRelayAllocatesNothing of its own: the way of a chunk through TLS to a gateway
// and back costs the 24 bytes that crypto/tls takes for each record it reads, here
// and in the client of the test.
func TestRelayAllocatesNothing(t *testing.T) {
	info, _ := debug.ReadBuildInfo()
	if info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector has sync.Pool, which crypto/tls uses too, lose things at random")
	}
	w := newWorld(t, sstp.ModeOffload, 1, nil)
	rawGateway(t, w, func(c net.Conn) {
		b := make([]byte, 32<<10)
		c.Read(b)
		c.Write((&sstp.Response{Status: 200, Length: sstp.ContentLength}).Append(nil))
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			c.Write(b[:n])
		}
	})
	c, err := w.dial(&tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := sstp.TunnelRequest("vpn.example", "{1}")
	c.Write(q.Append(nil))
	// What the client says comes back: it is of no account that both say it.
	bound := sstp.AppendConnected(nil, &sstp.Binding{Hash: sstp.HashSHA256})
	head := (&sstp.Response{Status: 200, Length: sstp.ContentLength}).Append(nil)
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(c, head); err != nil {
		t.Fatal(err)
	}
	c.Write(bound)
	if _, err := io.ReadFull(c, bound); err != nil {
		t.Fatal(err)
	}
	packet, err := sstp.AppendData(nil, make([]byte, 1396))
	if err != nil {
		t.Fatal(err)
	}
	back := make([]byte, len(packet))
	trip := func() {
		c.Write(packet)
		if _, err := io.ReadFull(c, back); err != nil {
			t.Error(err)
		}
	}
	for range 100 { // buffers grow
		trip()
	}
	const ofTLS = 2
	if n := testing.AllocsPerRun(500, trip); n > ofTLS {
		t.Errorf("%v allocations for a chunk each way, %d are those of crypto/tls", n, ofTLS)
	}
}
