package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers"
	"github.com/aovlb/aovlb/radius"

	"github.com/aovlb/aovlb/internal/peers/freeport"
)

// TestRADIUSKilled sends the accounting of 5,000 sessions, 10,000 records, through
// the program, while that is killed and started again and the servers stop and
// come back:
//
//	NAS: 8 ports ── 127.0.0.1 aovlb serve ─┬─ 127.0.9.61
//	                   kill -9             └─ 127.0.9.62
//
// In the end each record that was acknowledged is at a server; what is there more
// than once bears a mark, a raised Acct-Delay-Time; and no session has ended
// before it began.
func TestRADIUSKilled(t *testing.T) {
	for _, store := range []string{"when-down", "always"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			killed(t, store)
		})
	}
}

const (
	killedSessions = 5000
	killedPorts    = 8
	killedWindow   = 12                      // sessions at once, per port
	killedPace     = 1600 * time.Microsecond // between two new sessions, so that there is time to kill
)

var killedSecret = radius.NewSecret([]byte("of everybody"))

func killed(t *testing.T, store string) {
	port, err := freeport.Pick()
	if err != nil {
		t.Skip("no loopback:", err)
	}
	back, err := freeport.Pick()
	if err != nil {
		t.Fatal(err)
	}
	books := &books{records: make(map[string][]booked), seen: make(map[string][]byte)}
	var servers []*bookkeeper
	for i := range 2 {
		s := &bookkeeper{t: t, books: books, at: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 9, byte(61 + i)}), back)}
		s.start()
		t.Cleanup(s.stop)
		servers = append(servers, s)
	}
	p := &killable{t: t, file: killedFile(t, store, port, back)}
	p.start()
	t.Cleanup(p.kill)

	nas := &crowd{t: t, to: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port), acked: make(map[string]bool)}
	over := make(chan struct{})
	go func() {
		defer close(over)
		nas.run()
	}()
	silence := radius.DefaultSilence + time.Second // what isn't answered is stored then
	if store == "always" {
		silence = time.Second / 2
	}
	killedTrouble(p, nas, servers, silence, over)
	<-over
	for _, s := range servers {
		s.mute.Store(false)
	}
	peers.Eventually(t, 60*time.Second, "all that was acknowledged being at servers", func() error { return books.has(nas.acked) })
	if n := len(nas.acked); n != 2*killedSessions {
		t.Errorf("%d of %d records were acknowledged", n, 2*killedSessions)
	}
	twice, unmarked := books.judge(t)
	t.Logf("%s: %d records acknowledged, program killed %d times, %d records at servers more than once, %d without a mark; NAS repeated %d",
		store, len(nas.acked), p.kills, twice, unmarked, nas.repeats.Load())
	if unmarked > 0 {
		t.Errorf("%d records were at a server twice without a mark", unmarked)
	}
	if p.kills < 3 {
		t.Errorf("the program was killed only %d times", p.kills)
	}
	for _, bad := range []string{"DATA RACE", "panic:", "damaged"} {
		if out := p.output(); strings.Contains(out, bad) {
			t.Errorf("%s in the program's output:\n%s", bad, out)
		}
	}
}

func killedFile(t *testing.T, store string, port, back uint16) string {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("of everybody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "aovlb.yaml")
	text := fmt.Sprintf(`sites:
  - name: hq
    pools:
      - name: nps
        backends: [{name: nps1, address: 127.0.9.61}, {name: nps2, address: 127.0.9.62}]
        panic: false
        checks: [{type: radius, accounting: true, port: %d, interval: 1s, rise: 1, fall: 1, secret_file: %s}]
    groups:
      - name: nps
        pool: nps
        radius:
          mode: proxy
          secret_file: %[2]s
          accounting: {store: %[3]s}
          clients: [{name: nas, addresses: [127.0.0.0/8], secret_file: %[2]s}]
        listeners: [{name: acct, protocol: radius, address: "127.0.0.1:%[4]d", backend_port: %[1]d}]
state: %[5]s
log: {level: warn, format: text}
`, back, secret, store, port, filepath.Join(dir, "state"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// killedTrouble kills the program each time so many records more are acknowledged,
// by turns while all is well and while servers have been silent for a time, until
// over is closed.
func killedTrouble(p *killable, nas *crowd, servers []*bookkeeper, silence time.Duration, over chan struct{}) {
	const each = 2 * killedSessions / 12
	next := each
	for n := 0; ; {
		select {
		case <-over:
			return
		case <-time.After(20 * time.Millisecond):
		}
		if nas.count() < next {
			continue
		}
		if n%2 == 1 {
			servers[0].mute.Store(true)
			servers[1].mute.Store(n%4 == 1)
			time.Sleep(silence)
		}
		p.kill()
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
		p.start()
		time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
		servers[0].mute.Store(false)
		servers[1].mute.Store(false)
		next = nas.count() + each
		n++
	}
}

// killable is the program.
type killable struct {
	t     *testing.T
	file  string
	cmd   *exec.Cmd
	kills int
	log   strings.Builder
	mu    sync.Mutex
}

func (p *killable) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *killable) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// start runs this test's own program as if it were aovlb: see TestMain.
func (p *killable) start() {
	exe, err := os.Executable()
	if err != nil {
		p.t.Error(err)
		return
	}
	c := exec.Command(exe)
	c.Args = []string{"aovlb", "serve", p.file}
	c.Stderr = p
	if err := c.Start(); err != nil {
		p.t.Error(err)
		return
	}
	p.cmd = c
}

func (p *killable) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it was killed
	p.cmd = nil
	p.kills++
}

// books are what the servers have taken.
type books struct {
	mu      sync.Mutex
	records map[string][]booked // by session and status
	seen    map[string][]byte   // answers by request, as RFC 5080 §2.2.2 has it
	n       int
}

type booked struct {
	delay uint32
	n     int // of all, in the order they came
}

// has says what of acked isn't at a server.
func (b *books) has(acked map[string]bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	missing := 0
	for k := range acked {
		if len(b.records[k]) == 0 {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d aren't", missing, len(acked))
	}
	return nil
}

// judge counts the records that came more than once, and those of them that say so
// nowhere.
func (b *books) judge(t *testing.T) (twice, unmarked int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, all := range b.records {
		if len(all) > 1 {
			twice++
		}
		bare := 0
		for _, r := range all {
			if r.delay == 0 {
				bare++
			}
		}
		if bare > 1 {
			unmarked++
			t.Logf("%s came with these delays: %v", k, all)
		}
		session, stop := strings.CutSuffix(k, " 2")
		if starts := b.records[session+" 1"]; stop && (len(starts) == 0 || starts[0].n > all[0].n) {
			t.Errorf("session %s ended before it began", session)
		}
	}
	return twice, unmarked
}

// bookkeeper is a server. It forgets to answer now and then.
type bookkeeper struct {
	t     *testing.T
	books *books
	at    netip.AddrPort
	mute  atomic.Bool // takes nothing
	conn  *net.UDPConn
	wg    sync.WaitGroup
}

func (s *bookkeeper) start() {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(s.at))
	if err != nil {
		s.t.Skip("loopback has but one address here:", err)
	}
	_ = c.SetReadBuffer(4 << 20)
	s.conn = c
	s.wg.Go(func() {
		b := make([]byte, radius.MaxLen)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if a := s.take(b[:n], from); a != nil {
				_, _ = c.WriteToUDPAddrPort(a, from)
			}
		}
	})
}

func (s *bookkeeper) stop() {
	_ = s.conn.Close()
	s.wg.Wait()
}

func (s *bookkeeper) take(b []byte, from netip.AddrPort) []byte {
	p, err := radius.Parse(b)
	if s.mute.Load() || err != nil {
		return nil
	}
	if err := p.CheckRequest(killedSecret); err != nil {
		s.t.Errorf("a server was sent a request: %v", err)
		return nil
	}
	session, _ := p.Lookup(radius.AcctSessionID)
	status, _ := p.Lookup(radius.AcctStatusType)
	delay, _ := p.Lookup(radius.AcctDelayTime)
	probe := string(session) == "aovlb-probe"
	if !probe && (len(status) != 4 || len(delay) != 4) {
		s.t.Errorf("a server was sent a record with %x and %x", status, delay)
		return nil
	}
	id := fmt.Sprint(s.at, from, p.Identifier(), p.Authenticator())
	s.books.mu.Lock()
	defer s.books.mu.Unlock()
	a, ok := s.books.seen[id]
	if !ok {
		a = answerTo(p)
		s.books.seen[id] = a
		if !probe {
			k := fmt.Sprintf("%s %d", session, status[3])
			s.books.n++
			s.books.records[k] = append(s.books.records[k], booked{binary.BigEndian.Uint32(delay), s.books.n})
		}
	}
	if !probe && rand.IntN(20) == 0 {
		return nil // the answer is lost
	}
	return a
}

func answerTo(p radius.Packet) []byte {
	b := make([]byte, radius.HeaderLen)
	b[0], b[1], b[3] = byte(radius.AccountingResponse), p.Identifier(), radius.HeaderLen
	a, _ := radius.Parse(b)
	sum := a.ResponseAuthenticator(killedSecret, p.Authenticator())
	copy(b[4:], sum[:])
	return b
}

// crowd is a NAS with many users. Each port keeps to RFC 2866: what isn't answered
// is sent again with a raised Acct-Delay-Time, and a new Identifier.
type crowd struct {
	t       *testing.T
	to      netip.AddrPort
	next    atomic.Int64
	repeats atomic.Int64

	mu    sync.Mutex
	acked map[string]bool
}

func (c *crowd) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acked)
}

func (c *crowd) run() {
	var wg sync.WaitGroup
	for range killedPorts {
		wg.Go(func() {
			if err := c.port(); err != nil {
				c.t.Error(err)
			}
		})
	}
	wg.Wait()
}

// sent is a record that waits for its answer.
type sent struct {
	session string
	status  byte
	first   time.Time
	last    time.Time
	auth    [16]byte
	tries   int
}

// nasPort is one port of a NAS.
type nasPort struct {
	*crowd
	conn    *net.UDPConn
	started time.Time
	waiting map[byte]*sent
	id      byte
}

func (c *crowd) port() error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(c.to))
	if err != nil {
		return err
	}
	defer conn.Close()
	n := &nasPort{crowd: c, conn: conn, started: time.Now(), waiting: make(map[byte]*sent)}
	more := true
	for deadline := n.started.Add(100 * time.Second); more || len(n.waiting) > 0; {
		if more && len(n.waiting) < killedWindow {
			more = n.begin()
		}
		if time.Now().After(deadline) {
			return errors.New("the NAS has waited for its answers for too long")
		}
		n.receive()
		for old, s := range n.waiting {
			if time.Since(s.last) > 1200*time.Millisecond {
				delete(n.waiting, old)
				n.send(s)
			}
		}
	}
	return nil
}

// begin begins a session if it is time, and reports whether there are more.
func (n *nasPort) begin() (more bool) {
	k := n.next.Load()
	if k < killedSessions && time.Since(n.started) >= time.Duration(k)*killedPace {
		if k = n.next.Add(1); k <= killedSessions {
			n.send(&sent{session: fmt.Sprintf("s%05d", k), status: 1, first: time.Now()})
		}
	}
	return k < killedSessions
}

func (n *nasPort) send(s *sent) {
	for n.waiting[n.id] != nil {
		n.id++
	}
	s.last = time.Now()
	n.waiting[n.id] = s
	delay := uint32(0)
	if s.tries > 0 {
		delay = uint32(s.last.Sub(s.first)/time.Second) + uint32(s.tries) // never the same twice
		n.repeats.Add(1)
	}
	s.tries++
	b := recordOf(n.id, s, delay)
	copy(s.auth[:], b[4:20])
	_, _ = n.conn.Write(b) // nobody may listen at this moment
	n.id++
}

// receive takes an answer, if one comes soon.
func (n *nasPort) receive() {
	buf := make([]byte, radius.MaxLen)
	_ = n.conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	k, err := n.conn.Read(buf)
	if err != nil {
		return
	}
	p, err := radius.Parse(buf[:k])
	if err != nil {
		n.t.Errorf("the NAS got %x: %v", buf[:k], err)
		return
	}
	s := n.waiting[p.Identifier()]
	if s == nil || p.CheckAnswer(killedSecret, s.auth) != nil {
		return // to something that was sent again meanwhile
	}
	delete(n.waiting, p.Identifier())
	n.mu.Lock()
	n.acked[fmt.Sprintf("%s %d", s.session, s.status)] = true
	n.mu.Unlock()
	if s.status == 1 {
		n.send(&sent{session: s.session, status: 2, first: time.Now()})
	}
}

func recordOf(id byte, s *sent, delay uint32) []byte {
	b := make([]byte, radius.HeaderLen, 100)
	b[0], b[1] = byte(radius.AccountingRequest), id
	add := func(t radius.Type, v []byte) { b = append(append(b, byte(t), byte(2+len(v))), v...) }
	add(radius.NASIPAddress, []byte{127, 0, 0, 1})
	add(radius.UserName, []byte("user-"+s.session))
	add(radius.AcctStatusType, []byte{0, 0, 0, s.status})
	add(radius.AcctSessionID, []byte(s.session))
	add(radius.AcctDelayTime, binary.BigEndian.AppendUint32(nil, delay))
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	p, _ := radius.Parse(b)
	sum := p.AccountingAuthenticator(killedSecret)
	copy(b[4:20], sum[:])
	return b
}
