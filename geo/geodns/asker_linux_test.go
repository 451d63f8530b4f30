package geodns_test

import (
	"encoding/binary"
	"encoding/json"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// asker asks a server one question, at a rate of its own that no answer slows
// down, and takes the time of each answer. It is one thread that looks at its
// sockets every askerRest and not when something comes, so that the server
// doesn't pay for waking it up.
type asker struct {
	ports  []*askerPort
	query  []byte
	window int // how many may be under way; 0 is any number

	waiting  int
	whole    []time.Duration // from when a query was due until its answer was read
	server   []time.Duration // from when it was sent until the kernel had its answer
	done     int
	wrong    int
	lost     int
	behind   time.Duration // the longest that the asker itself was late
	lateOver int           // how many queries were sent more than 0.5 ms late
}

const (
	askerPorts = 8
	askerRest  = 20 * time.Microsecond
	askerTrain = 16 // queries at most that one message carries
	askerBatch = 64
	askerLost  = 500 * time.Millisecond
	askerRoom  = 512
)

// askerPort is a socket, and what is under way by it.
type askerPort struct {
	fd   int
	next uint16
	due  [1 << 16]int64 // ns since 1970; 0: nothing is under way
	sent [1 << 16]int64

	hdr     [askerBatch]askerHeader
	vec     [askerBatch]unix.Iovec
	control [askerBatch][64]byte
	answers [askerBatch][askerRoom]byte
}

// askerHeader is struct mmsghdr.
type askerHeader struct {
	unix.Msghdr
	n uint32
}

// askerReport is what is measured, in µs where it is a time.
type askerReport struct {
	QPS                  float64
	Whole50, Whole99     float64
	Server50, Server99   float64
	Server999, ServerMax float64
	Lost, Wrong, Late    int
	Behind               float64
}

func newAsker(t *testing.T, addr string, do bool) *asker {
	to, err := net.ResolveUDPAddr("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	m.SetQuestion("vpn.example.com.", dns.TypeA)
	m.SetEdns0(1232, do)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(2, 125, 160, 0).To4()})
	a := new(asker)
	if a.query, err = m.Pack(); err != nil {
		t.Fatal(err)
	}
	for range askerPorts {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}); err != nil {
			t.Fatal(err)
		}
		p := &askerPort{fd: fd}
		for i := range p.hdr {
			p.vec[i].Base = &p.answers[i][0]
			p.vec[i].SetLen(askerRoom)
			p.hdr[i].Iov = &p.vec[i]
			p.hdr[i].SetIovlen(1)
			p.hdr[i].Control = &p.control[i][0]
		}
		a.ports = append(a.ports, p)
	}
	return a
}

// read takes in the answers that are there.
func (a *asker) read(p *askerPort, now int64) {
	for {
		for i := range p.hdr {
			p.hdr[i].SetControllen(len(p.control[i]))
		}
		n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(p.fd), uintptr(unsafe.Pointer(&p.hdr[0])), askerBatch, unix.MSG_DONTWAIT, 0, 0)
		if e != 0 {
			return
		}
		for i := range int(n) {
			a.answer(p, p.answers[i][:p.hdr[i].n], p.control[i][:p.hdr[i].Controllen], now)
		}
		if n < askerBatch {
			return
		}
	}
}

func (a *asker) answer(p *askerPort, b, control []byte, now int64) {
	if len(b) < 12 || binary.BigEndian.Uint16(b[6:]) == 0 || b[3]&15 != 0 {
		a.wrong++
		return
	}
	id := binary.BigEndian.Uint16(b)
	if p.due[id] == 0 {
		return // it seemed lost
	}
	if len(control) >= unix.CmsgLen(16) {
		ts := (*unix.Timespec)(unsafe.Pointer(&control[unix.CmsgLen(0)]))
		a.server = append(a.server, time.Duration(ts.Nano()-p.sent[id]))
	}
	a.whole = append(a.whole, time.Duration(now-p.due[id]))
	p.due[id] = 0
	a.done++
	a.waiting--
}

// send sends a train of n queries, the first of which was due at due.
func (a *asker) send(p *askerPort, n int, due, each int64) {
	var train [askerTrain * 128]byte
	var control [24]byte
	now := time.Now().UnixNano()
	for i := range n {
		q := train[i*len(a.query):]
		copy(q, a.query)
		binary.BigEndian.PutUint16(q, p.next)
		if p.due[p.next] != 0 {
			a.lost++
			a.waiting--
		}
		p.due[p.next], p.sent[p.next] = due+int64(i)*each, now
		p.next++
		a.waiting++
		if now-due > int64(500*time.Microsecond) {
			a.lateOver++
		}
	}
	a.behind = max(a.behind, time.Duration(now-due))
	v := unix.Iovec{Base: &train[0]}
	v.SetLen(n * len(a.query))
	h := unix.Msghdr{Iov: &v}
	h.SetIovlen(1)
	if n > 1 {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		c.Level, c.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
		c.SetLen(unix.CmsgLen(2))
		binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], uint16(len(a.query)))
		h.Control = &control[0]
		h.SetControllen(unix.CmsgSpace(2))
	}
	_, _, _ = unix.RawSyscall(unix.SYS_SENDMSG, uintptr(p.fd), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT)
}

// lose gives up what has waited too long.
func (a *asker) lose(now int64) {
	for _, p := range a.ports {
		for id, due := range p.due {
			if due != 0 && now-due > int64(askerLost) {
				p.due[id] = 0
				a.lost++
				a.waiting--
			}
		}
	}
}

// run asks for d: at a rate, or else as much as its window allows.
func (a *asker) run(rate float64, d time.Duration) askerReport {
	rest := unix.NsecToTimespec(int64(askerRest))
	begin := time.Now().UnixNano()
	end := begin + int64(d)
	var each int64
	if rate > 0 {
		each = int64(1e9 / rate)
	}
	due, port, look := begin, 0, begin
	for {
		now := time.Now().UnixNano()
		for _, p := range a.ports {
			a.read(p, now)
		}
		for now < end {
			n := min(a.window-a.waiting, askerTrain)
			if rate > 0 {
				n = min(int((now-due)/each), askerTrain)
			} else {
				due = now
			}
			if n <= 0 {
				break
			}
			a.send(a.ports[port], n, due, each)
			due += int64(n) * each
			port = (port + 1) % len(a.ports)
		}
		if now > look+int64(100*time.Millisecond) && (now > end || rate == 0) {
			look = now
			a.lose(now)
			if now > end && a.waiting == 0 {
				break
			}
		}
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&rest)), 0, 0)
	}
	return a.report(d)
}

func (a *asker) report(d time.Duration) askerReport {
	at := func(list []time.Duration, permille int) float64 {
		if len(list) == 0 {
			return 0
		}
		return float64(list[min(len(list)*permille/1000, len(list)-1)].Nanoseconds()) / 1000
	}
	slices.Sort(a.whole)
	slices.Sort(a.server)
	return askerReport{
		QPS:     float64(a.done) / d.Seconds(),
		Whole50: at(a.whole, 500), Whole99: at(a.whole, 990),
		Server50: at(a.server, 500), Server99: at(a.server, 990), Server999: at(a.server, 999), ServerMax: at(a.server, 1000),
		Lost: a.lost, Wrong: a.wrong, Late: a.lateOver, Behind: float64(a.behind.Microseconds()),
	}
}

// askerWork is what an asker is to do.
type askerWork struct {
	Addr   string
	Do     bool
	Rate   float64 // 0: as fast as the window lets it
	Window int
	For    time.Duration
}

const askerEnv = "AOVLB_GEODNS_ASKER"

// TestAsker is no test: it is the asker, in a process on a processor of its own.
func TestAsker(t *testing.T) {
	text := os.Getenv(askerEnv)
	if text == "" {
		t.Skip("only for TestSpeed: it asks in a process of its own")
	}
	var w askerWork
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		t.Fatal(err)
	}
	runtime.GOMAXPROCS(1)
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	a := newAsker(t, w.Addr, w.Do)
	a.window = w.Window
	n := int(max(w.Rate, 400_000) * w.For.Seconds())
	a.whole, a.server = make([]time.Duration, 0, n), make([]time.Duration, 0, n)
	r := a.run(w.Rate, w.For)
	if err := json.NewEncoder(os.NewFile(3, "report")).Encode(r); err != nil {
		t.Fatal(err)
	}
}
