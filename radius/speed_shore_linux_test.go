//go:build linux && (amd64 || arm64)

package radius

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// shore is both ends of what TestSpeed measures, clients and servers, in one
// thread. It looks at its sockets every 50 µs and not when something comes, as
// network cards that collect packets do, so that nobody who sends to it pays for
// waking it up.
type shore struct {
	t       *testing.T
	key     *key
	sign    *signer
	servers []*shoreSocket
	clients []*shoreClient
	users   [2][2000][]byte // all of one length, and of many
	serial  uint64
	mixed   bool // packets are of many lengths
	apart   bool // it receives each packet by itself

	shelf  shelf
	arena  []byte
	now    []shoreAnswer
	trains trains

	// Answers that are kept back: wheel[i] are due when tick i comes.
	early, late int // in ticks
	wheel       [shoreTicks][]shoreAnswer
	tick        int64
}

const (
	shoreRest  = 50 * time.Microsecond
	shoreTick  = 100 * time.Microsecond
	shoreTicks = 256
	// shoreLost is after how long a request counts as lost.
	shoreLost = 2 * time.Second
)

// shoreSocket is a UDP socket that is read without waiting.
type shoreSocket struct {
	conn  *net.UDPConn
	fd    uintptr
	batch *batch
	in    *mmsgInbox
}

type shoreAnswer struct {
	from *shoreSocket
	to   dest
	n    int
	b    [64]byte
}

// shoreClient is a client's port.
type shoreClient struct {
	*shoreSocket
	sent    [256]shoreRequest
	next    byte
	waiting int
}

type shoreRequest struct {
	auth [16]byte
	at   time.Time
	busy bool
}

func (s *shore) socket(c *net.UDPConn, named bool) *shoreSocket {
	prepare(c)
	k := &shoreSocket{conn: c, batch: newBatch(c)}
	k.in = k.batch.inbox(s.shelf, named).(*mmsgInbox)
	if err := k.batch.raw.Control(func(fd uintptr) { k.fd = fd }); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return k
}

// apart has the kernel cut up trains before they are received, or not: where it does,
// that is the work of who sends them, on one machine.
func (k *shoreSocket) apart(yes bool) error {
	whole := 1
	if yes {
		whole = 0
	}
	return syscall.SetsockoptInt(int(k.fd), syscall.IPPROTO_UDP, udpGRO, whole)
}

// read returns how many packets were there.
func (k *shoreSocket) read() int {
	if !k.in.receive(k.fd) || k.in.errno != 0 {
		return 0
	}
	return k.in.s.split(k.in.n, k.in.named)
}

func newShore(t *testing.T, port string, hosts ...string) *shore {
	s := &shore{t: t, key: newKey(NewSecret([]byte(speedSecret))), sign: newSigner(), shelf: newShelf(64)}
	for _, h := range hosts {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(h+":"+port)))
		if err != nil {
			t.Fatal(err)
		}
		s.servers = append(s.servers, s.socket(c, true))
	}
	for i := range s.users[0] {
		station := fmt.Appendf(nil, "02-00-00-00-%02X-%02X", i/256, i%256)
		for k, domain := range []string{"example.com", strings.Repeat("x", i*7919%25) + ".example.com"} {
			b := appendAttribute(nil, UserName, fmt.Appendf(nil, "user%04d@%s", i, domain))
			s.users[k][i] = appendAttribute(b, CallingStationID, station)
		}
	}
	return s
}

// trains are messages of several packets of one size, which the kernel cuts up
// after most of its work.
type trains struct {
	out post
	n   int
}

const trainMax = 32

// add adds a train of packets of size bytes.
func (t *trains) add(k *shoreSocket, b []byte, size int, to *dest) {
	if t.n == len(t.out.hdrs) {
		t.send(k)
	}
	t.out.put(t.n, t.n, b)
	if to != nil {
		t.out.address(t.n, k.batch, *to)
	}
	if len(b) > size {
		t.out.segment(t.n, size)
	}
	t.n++
}

// send sends all trains.
func (t *trains) send(k *shoreSocket) (lost int) {
	for at := 0; at < t.n; {
		n, _, e := syscall.RawSyscall6(sysSendmmsg, k.fd, uintptr(unsafe.Pointer(&t.out.hdrs[at])), uintptr(t.n-at), syscall.MSG_DONTWAIT, 0, 0)
		if at += int(n); e != 0 {
			at, lost = at-int(n)+1, lost+1
		}
	}
	t.n = 0
	return lost
}

// serve answers what has come, now or later.
func (s *shore) serve(now time.Time) {
	for _, k := range s.servers {
		n := k.read()
		s.now = s.now[:0]
		for i := range n {
			p, err := Parse(k.in.at(i))
			if err != nil {
				s.t.Error(err)
				continue
			}
			a := shoreAnswer{from: k, to: dest{to: k.in.from(i)}}
			code := AccessAccept
			if p.Code() == AccountingRequest {
				code = AccountingResponse
			}
			a.n = len(s.answer(a.b[:0], code, p))
			if s.late == 0 {
				s.now = append(s.now, a)
				continue
			}
			s.serial++
			due := s.tick + int64(s.early) + int64(s.serial*0x9e3779b97f4a7c15>>33)%int64(s.late-s.early)
			s.wheel[due%shoreTicks] = append(s.wheel[due%shoreTicks], a)
		}
		s.reply(k, s.now)
	}
	for ; s.late > 0 && time.Duration(s.tick)*shoreTick < time.Duration(now.UnixNano()); s.tick++ {
		if time.Duration(now.UnixNano())-time.Duration(s.tick)*shoreTick > time.Second {
			s.tick = now.UnixNano() / int64(shoreTick)
		}
		due := s.wheel[s.tick%shoreTicks]
		for _, k := range s.servers {
			s.reply(k, due)
		}
		s.wheel[s.tick%shoreTicks] = due[:0]
	}
}

// answer appends an answer to p, with a Class of any length if packets are mixed.
func (s *shore) answer(b []byte, code Code, p Packet) []byte {
	signed := code == AccessAccept
	b = s.sign.short(b, code, p.Identifier(), s.key, p.Authenticator(), signed)
	if !s.mixed || !signed {
		return b
	}
	s.serial++
	b = appendAttribute(b, Class, b[4:5+s.serial*7919%23])
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	clear(b[HeaderLen+2 : HeaderLen+18])
	s.sign.seal(b, s.key, p.Authenticator(), true)
	return b
}

// reply sends those of the answers that are k's.
func (s *shore) reply(k *shoreSocket, all []shoreAnswer) {
	s.arena = slices.Grow(s.arena[:0], len(all)*len(shoreAnswer{}.b))
	for i := range all {
		if all[i].from != k {
			continue
		}
		start, to, size := len(s.arena), all[i].to, all[i].n
		for j := i; j < len(all) && len(s.arena)-start < trainMax*size; j++ {
			if a := &all[j]; a.from == k && a.to == to && a.n == size {
				s.arena = append(s.arena, a.b[:size]...)
				a.from = nil
			}
		}
		s.trains.add(k, s.arena[start:], size, &to)
	}
	s.trains.send(k)
}

// request appends a new request of c.
func (s *shore) request(b []byte, c *shoreClient, now time.Time) []byte {
	for c.sent[c.next].busy {
		c.next++
	}
	id, start := c.next, len(b)
	c.next++
	s.serial++
	b = append(b, byte(AccessRequest), id, 0, 0)
	b = binary.BigEndian.AppendUint64(b, s.serial*0x9e3779b97f4a7c15)
	b = binary.BigEndian.AppendUint64(b, s.serial)
	b = append(b, byte(MessageAuthenticator), 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	users := &s.users[0]
	if s.mixed {
		users = &s.users[1]
	}
	b = append(b, users[s.serial%uint64(len(users))]...)
	b = append(b, byte(UserPassword), 18)
	b = append(b, b[start+4:start+20]...)
	b = append(b, byte(NASIPAddress), 6, 127, 0, 0, 1)
	q := b[start:]
	binary.BigEndian.PutUint16(q[2:], uint16(len(q)))
	r := &c.sent[id]
	r.auth, r.at, r.busy = [16]byte(q[4:20]), now, true
	mac := s.sign.message(q, HeaderLen, s.key, r.auth)
	copy(q[HeaderLen+2:], mac[:])
	c.waiting++
	return b
}

// send sends n new requests of c, in trains if they are of one size.
func (s *shore) send(c *shoreClient, n int, now time.Time) {
	s.arena = slices.Grow(s.arena[:0], n*256)
	most := trainMax
	if s.mixed {
		most = 1
	}
	for n > 0 {
		start := len(s.arena)
		for range min(n, most) {
			s.arena = s.request(s.arena, c, now)
		}
		k := min(n, most)
		s.trains.add(c.shoreSocket, s.arena[start:], (len(s.arena)-start)/k, nil)
		n -= k
	}
	if lost := s.trains.send(c.shoreSocket); lost > 0 {
		s.t.Errorf("%d trains could not be sent", lost)
	}
}

// ask has the clients keep window requests each under way, until end, and takes in
// the answers.
func (s *shore) ask(res *speedResult, window int, now, end time.Time) {
	for _, c := range s.clients {
		for i := range c.read() {
			p, err := Parse(c.in.at(i))
			if err != nil {
				s.t.Error(err)
				continue
			}
			r := &c.sent[p.Identifier()]
			if !r.busy {
				continue // it was lost, or so it seemed
			}
			if p.Code() != AccessAccept || res.done%16 == 0 && !s.sign.rightAnswer(p, s.key, r.auth) {
				s.t.Errorf("wrong answer %v", p.Code())
			}
			r.busy = false
			c.waiting--
			if res.done%8 == 0 {
				res.latency = append(res.latency, now.Sub(r.at))
			}
			res.done++
		}
		if now.Before(end) {
			s.send(c, window-c.waiting, now)
		}
	}
}

// lose gives up what has waited too long, and returns how much waits.
func (s *shore) lose(res *speedResult, now time.Time) (waiting int) {
	for _, c := range s.clients {
		for i := range c.sent {
			if r := &c.sent[i]; r.busy && now.Sub(r.at) > shoreLost {
				r.busy = false
				c.waiting--
				res.lost++
			}
		}
		waiting += c.waiting
	}
	return waiting
}

// run asks targets for d, calls ended, and then waits for what is under way.
func (s *shore) run(targets []string, at *setting, d time.Duration, ended func()) (res speedResult) {
	for i := range at.ports {
		c, err := net.Dial("udp", targets[i%len(targets)])
		if err != nil {
			s.t.Fatal(err)
		}
		defer c.Close()
		s.clients = append(s.clients, &shoreClient{shoreSocket: s.socket(c.(*net.UDPConn), false)})
	}
	defer func() { s.clients = nil }()
	for _, c := range s.clients {
		if err := c.apart(s.apart); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, k := range s.servers {
		if err := k.apart(s.apart); err != nil {
			s.t.Fatal(err)
		}
	}
	begin := time.Now()
	end := begin.Add(d)
	look := begin
	rest := syscall.NsecToTimespec(int64(shoreRest))
	for {
		now := time.Now()
		s.serve(now)
		s.ask(&res, at.window, now, end)
		if now.After(end) && res.took == 0 {
			res.took = now.Sub(begin)
			res.rps = float64(res.done) / res.took.Seconds()
			ended()
		}
		if now.Sub(look) > 10*time.Millisecond {
			look = now
			if waiting := s.lose(&res, now); waiting == 0 && now.After(end) {
				break
			}
		}
		_ = syscall.Nanosleep(&rest, nil)
	}
	slices.Sort(res.latency)
	return res
}

// idle serves, that the servers answer until done is closed.
func (s *shore) idle(done <-chan struct{}) {
	rest := syscall.NsecToTimespec(int64(time.Millisecond))
	for {
		select {
		case <-done:
			return
		default:
			s.serve(time.Now())
			_ = syscall.Nanosleep(&rest, nil)
		}
	}
}
