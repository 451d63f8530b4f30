package sstp_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/sstp"
)

// A transcript is what both sides of a whole session say, by turns: the client
// first. All of it must come out as it went in, whatever the pieces are, and the
// session must be understood.
func transcript(t *testing.T, leaf []byte) [][]byte {
	t.Helper()
	b, err := sstp.NewBinding(&askedFor, leaf, sstp.Key{})
	if err != nil {
		t.Fatal(err)
	}
	q := sstp.TunnelRequest("vpn.example", "{C01D}")
	long, err := sstp.AppendData(nil, bytes.Repeat([]byte{0xff, 3, 0, 0x21}, 350))
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{
		q.Append(nil), accepted,
		sstp.AppendConnectRequest(nil), sstp.AppendConnectAck(nil, &askedFor),
		ppp(protoLCP, 1, ""), slices.Concat(ppp(protoLCP, 2, ""), ppp(protoCHAP, 1, "challenge")),
		ppp(protoCHAP, 2, "response"), ppp(protoCHAP, 3, "S=0"),
		slices.Concat(sstp.AppendConnected(nil, &b), ppp(protoIP, 1, "up")), ppp(protoIP, 1, "down"),
		long, long,
		sstp.AppendControl(nil, sstp.EchoRequest), sstp.AppendControl(nil, sstp.EchoResponse),
		sstp.AppendStatus(nil, sstp.CallDisconnect, sstp.StatusInfo{}), sstp.AppendControl(nil, sstp.CallDisconnectAck),
	}
}

// replay has a client and a gateway play turns, each of which is sent by write, and
// begins when the one before has come through whole.
func replay(t *testing.T, mode sstp.Mode, turns func(leaf []byte) [][]byte, write func(c net.Conn, b []byte)) {
	t.Helper()
	w := newWorld(t, mode, 1, nil)
	leaf, _ := w.leaves.Leaf("", nil)
	script := turns(leaf.Certificate[0])
	play := func(who string, c net.Conn, first int) {
		for i, b := range script {
			if i%2 == first {
				write(c, b)
				continue
			}
			got := make([]byte, len(b))
			if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, b) {
				t.Errorf("turn %d: the %s got %x, %v; want %x", i, who, got[:n], err, b)
				return
			}
		}
	}
	rawGateway(t, w, func(c net.Conn) {
		if mode == sstp.ModeReencrypt {
			c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*leaf}})
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		play("gateway", c, 1)
		io.Copy(io.Discard, c)
	})
	c, err := w.dial(&tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	play("client", c, 0)
	c.Close()
	if s := w.ended(1); s.Finding != sstp.FindingNone || s.Stage != sstp.StageConnected || s.Correlation != "{C01D}" || s.Status != 200 ||
		s.Reported.String() != sstp.FingerprintOf(leaf.Certificate[0]).String() || s.BadNonce || s.Disconnected == nil ||
		s.Auth != (sstp.Auth{Protocol: "CHAP", Result: sstp.AuthSucceeded}) {
		t.Errorf("session %+v", s)
	}
}

func inOnePiece(c net.Conn, b []byte) { c.Write(b) }

// TestSessionInOneByteWrites: each byte of a session is a record of TLS, or at least
// a write, of its own.
func TestSessionInOneByteWrites(t *testing.T) {
	eachMode(t, func(t *testing.T, mode sstp.Mode) {
		replay(t, mode, func(leaf []byte) [][]byte { return transcript(t, leaf) }, func(c net.Conn, b []byte) {
			for i := range b {
				c.Write(b[i : i+1])
			}
		})
	})
}

// TestMessagesCoalesced: what may be sent together is, in one write: from the head of
// the answer to the end of the login, and the CALL_CONNECTED with all that follows.
func TestMessagesCoalesced(t *testing.T) {
	eachMode(t, func(t *testing.T, mode sstp.Mode) {
		replay(t, mode, func(leaf []byte) [][]byte {
			x := transcript(t, leaf)
			return [][]byte{
				x[0], x[1], slices.Concat(x[2], x[4]), slices.Concat(x[3], x[5], x[7]),
				slices.Concat(x[6], x[8], x[10], x[12], x[14]), slices.Concat(x[9], x[11], x[13], x[15]),
			}
		}, inOnePiece)
	})
}

// TestDataPipelinedWithHead: a client doesn't wait for the answer to its request, nor
// does a gateway write its answer by itself: one write each has it all.
func TestDataPipelinedWithHead(t *testing.T) {
	eachMode(t, func(t *testing.T, mode sstp.Mode) {
		replay(t, mode, func(leaf []byte) [][]byte {
			x := transcript(t, leaf)
			return [][]byte{
				slices.Concat(x[0], x[2], x[4]), slices.Concat(x[1], x[3], x[5], x[7]),
				slices.Concat(x[6], x[8]), slices.Concat(x[9], x[11]), slices.Concat(x[10], x[12], x[14]), slices.Concat(x[13], x[15]),
			}
		}, inOnePiece)
	})
}

// slowLoris opens n connections from each of 4 addresses, which all send a byte every
// 20 ms and never come to an end, and returns how long each of them lasted. Meanwhile
// another client must be served, and memory must be bounded.
func slowLoris(t *testing.T, n int, open func(w *world, raw net.Conn) (net.Conn, error), next func(i int) byte) {
	t.Helper()
	const timeout = 2 * time.Second
	w := newWorld(t, sstp.ModeOffload, 1, func(w *world) {
		w.term.HandshakeTimeout, w.term.HeadTimeout, w.term.MaxHandshakes, w.term.HandshakeRate = timeout, timeout, 8*n, -1
		w.term.PassNull = true // has the ClientHello recorded
	})
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := memory()
	var all []net.Conn
	start := time.Now()
	for i := range 4 * n {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 7, byte(1+i%4))}}
		raw, err := d.Dial("tcp", w.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		c, err := open(w, raw)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	opened := time.Since(start)
	until(t, "all to wait", func() bool { return w.term.Stats().Pending == 4*n })
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() {
			for i := 0; ; i++ {
				if _, err := c.Write([]byte{next(i)}); err != nil {
					return
				}
				<-time.After(20 * time.Millisecond)
			}
		})
	}
	if s := w.run(w.client(), answered(1)); s.Received == 0 {
		t.Errorf("a client that means well: %+v", s)
	}
	during := memory()
	for _, c := range all {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadAll(c); isTimeout(err) {
			t.Fatal("a connection is left open")
		}
	}
	took := time.Since(start)
	until(t, "none to wait", func() bool { return w.term.Stats().Pending == 0 })
	wg.Wait()
	each := (int64(during) - int64(before)) / int64(4*n)
	t.Logf("%d connections, opened in %v, were cut within %v, and took %d bytes each, with their clients", 4*n, opened, took, each)
	if took > opened+timeout+5*time.Second || each > 128<<10 {
		t.Error("that is too much")
	}
	if s := w.run(w.client(), answered(1)); s.Received == 0 {
		t.Errorf("a client afterwards: %+v", s)
	}
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error)
	return ok && n.Timeout()
}

// TestSlowLorisHead: a request whose head never ends.
func TestSlowLorisHead(t *testing.T) {
	slowLoris(t, 10, func(w *world, raw net.Conn) (net.Conn, error) {
		c := tls.Client(raw, &tls.Config{ServerName: "vpn.example", RootCAs: w.roots})
		return c, c.HandshakeContext(t.Context())
	}, func(i int) byte { return ("GET / HTTP/1.1\r\nX: " + strings.Repeat("y", 10000))[i] })
}

// TestSlowLorisClientHello: a ClientHello that never ends, of the largest size that
// there is.
func TestSlowLorisClientHello(t *testing.T) {
	slowLoris(t, 100, func(_ *world, raw net.Conn) (net.Conn, error) { return raw, nil }, func(i int) byte {
		hello := []byte{22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xfc, 3, 3}
		if i < len(hello) {
			return hello[i]
		}
		return 0
	})
}
