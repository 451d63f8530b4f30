package sstp_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/tcp"
	"github.com/aovlb/aovlb/sstp"
)

// In these tests Debian's sstpc speaks SSTP. What it takes for pppd is a PPP of
// ours, since pppd needs the kernel's PPP: this test program itself, which sstpc
// finds at pppd's place in a mount namespace of its own.
//
//	this program ── HDLC ── terminal ── sstpc ── TLS ── balancer ── gateway

// pppdEnv says that the program is to be pppd, and which file is to be told of it.
const pppdEnv = "AOVLB_TEST_PPPD"

func TestMain(m *testing.M) {
	if file := os.Getenv(pppdEnv); file != "" {
		if err := pppd(file); err != nil {
			fmt.Fprintln(os.Stderr, "pppd of ours:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if spec := os.Getenv(childEnv); spec != "" {
		if err := child(spec); err != nil {
			fmt.Fprintln(os.Stderr, "balancer:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// pppd logs in on its terminal, which is its input. Each time a packet comes back
// it says so in file.
func pppd(file string) error {
	if err := unix.SetNonblock(0, true); err != nil { // so that a Read ends with Close
		return err
	}
	tty := os.NewFile(0, "terminal")
	if err := makeRaw(tty); err != nil {
		return err
	}
	h := &standin.HDLC{Stream: tty}
	p := &standin.PPP{User: "alice", Password: os.Getenv("AOVLB_TEST_PASSWORD"), Send: h.Send}
	p.Data = func([]byte) error { return os.WriteFile(file, []byte("up"), 0o600) }
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, func() { tty.Close() })
	err := ping(ctx, h, p)
	if p.Failed {
		os.WriteFile(file, []byte("failed"), 0o600)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// makeRaw has a terminal pass bytes as they are.
func makeRaw(tty *os.File) error {
	raw, err := tty.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		tio, terr := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		if terr != nil {
			err = terr
			return
		}
		tio.Iflag, tio.Oflag, tio.Lflag = 0, 0, 0
		tio.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
		err = unix.IoctlSetTermios(int(fd), unix.TCSETS, tio)
	})
	return errors.Join(err, cerr)
}

// needSSTPC skips the test unless a real client can be run.
func needSSTPC(t *testing.T) {
	t.Helper()
	if os.Getenv("AOVLB_PEERS") != "1" {
		t.Skip("needs real peers: set AOVLB_PEERS=1 and run as root")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, as sstpc does")
	}
	if _, err := exec.LookPath("sstpc"); err != nil {
		t.Skip("needs sstpc, of Debian's package sstp-client")
	}
}

// sstpc runs the client against w until its tunnel carries packets, or it ends. It
// returns whether it did, and what it said.
func sstpc(t *testing.T, w *world, password string) (up bool, log string) {
	t.Helper()
	dir := t.TempDir()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := w.leaves.Leaf("", nil)
	if err != nil {
		t.Fatal(err)
	}
	ca, status, script := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "status"), filepath.Join(dir, "pppd")
	for name, content := range map[string]string{
		ca:     string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]})),
		script: fmt.Sprintf("#!/bin/sh\nexec env %s='%s' AOVLB_TEST_PASSWORD='%s' '%s' \"$@\"\n", pppdEnv, status, password, program),
	} {
		if err := os.WriteFile(name, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	const inside = `mount --bind "$1" "$(readlink -f /usr/sbin/pppd)" && shift && exec sstpc "$@"`
	cmd := exec.CommandContext(ctx, "unshare", "-m", "sh", "-c", inside, "sh", script, "--ca-cert", ca, "--cert-warn",
		"--user", "alice", "--password", password, "--log-level", "4", "--log-stderr",
		"--ipparam", fmt.Sprintf("aovlb%d-%d", os.Getpid(), time.Now().UnixNano()%1e6), w.addr.String())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // it ends with ctx
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
			if b, _ := os.ReadFile(status); len(b) > 0 {
				cancel()
			}
		}
	}()
	_ = cmd.Wait() // sstpc has no status to go by
	b, _ := os.ReadFile(status)
	return string(b) == "up", out.String()
}

// behindLatency has what the balancer sends take a while, as over any network:
// sstpc loses a race with itself without.
func behindLatency(w *world) {
	w.term.Gateway.ServerName = "vpn.example" // sstpc sends no SNI
	w.wrap = func(l net.Listener) net.Listener { return slowListener{l} }
}

type slowListener struct{ net.Listener }

func (l slowListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return slowConn{c}, err
}

type slowConn struct{ net.Conn }

func (c slowConn) Write(b []byte) (int, error) {
	<-time.After(20 * time.Millisecond)
	return c.Conn.Write(b)
}

// ping brings PPP up, and then sends packets until it is told to stop.
func ping(ctx context.Context, h *standin.HDLC, p *standin.PPP) error {
	frames := make(chan []byte)
	var wg sync.WaitGroup
	defer wg.Wait()
	var lost error
	wg.Go(func() {
		defer close(frames)
		for {
			f, err := h.Receive()
			if err != nil {
				lost = err
				return
			}
			select {
			case frames <- f:
			case <-ctx.Done():
				return
			}
		}
	})
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case f, ok := <-frames:
			if !ok {
				return lost
			}
			if err := p.Take(f); err != nil {
				lost = err
			}
		case <-tick.C:
			// sstpc takes no frame before its call is set up.
			switch {
			case p.Up:
				ip := append([]byte{0xff, 3, 0, 0x21, 0x45, 0, 0, 20, 0, 1, 0, 0, 64, 253, 0, 0}, p.Assigned[:]...)
				h.Send(append(ip, 192, 0, 2, 1))
			case !p.Failed:
				p.Begin()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// passthrough puts a balancer that opens nothing before the gateways of w.
func passthrough(t *testing.T, w *world) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &tcp.Engine{
		Balancer: &lb.Balancer{Pool: w.pool, Table: new(lb.Table)}, Sniffer: sstp.Sniffer{}, Port: w.port,
		Trace: &tcp.Trace{Closed: func(s tcp.Summary) {
			w.sessions.Add(sstp.Passed(s.Flow, s.Member.Name, s.Start, s.Took, s.Quiet, lb.Carried{
				End: s.End.String(), First: s.First.String(), Err: s.Err, Sent: s.Sent, Received: s.Received,
			}))
		}},
	}
	w.addr = l.Addr().(*net.TCPAddr).AddrPort()
	w.wg.Go(func() { e.Serve(w.ctx, w.wrap(l)) })
}

// TestRealClient has Debian's sstpc log in by MS-CHAPv2 through each mode.
func TestRealClient(t *testing.T) {
	needSSTPC(t)
	for _, mode := range []sstp.Mode{sstp.ModePassthrough, sstp.ModeOffload, sstp.ModeReencrypt} {
		t.Run(mode.String(), func(t *testing.T) {
			w := newWorld(t, min(mode, sstp.ModeReencrypt), 1, func(w *world) {
				behindLatency(w)
				w.gateways[0].Passwords = map[string]string{"alice": "s3cret"}
				leaf, _ := w.leaves.Leaf("", nil)
				if mode == sstp.ModePassthrough {
					w.gateways[0].Certificate = *leaf
				}
			})
			if mode == sstp.ModePassthrough {
				passthrough(t, w)
			}
			up, log := false, ""
			for try := range 5 { // it may lose a race with itself
				if up, log = sstpc(t, w, "s3cret"); up {
					t.Logf("up at try %d", try+1)
					break
				}
			}
			if !up {
				t.Fatalf("sstpc doesn't come up:\n%s", log)
			}
			s := w.ended(1)
			what, _ := s.Explain()
			t.Logf("session of %s: %v, %v: %s; farewell of %q, silent for %v", s.Correlation, s.Stage, s.Auth, what, s.Farewell, s.Quiet)
			if mode != sstp.ModePassthrough && (s.Stage != sstp.StageConnected || s.Auth.Result != sstp.AuthSucceeded) {
				t.Errorf("session %+v", s)
			}
		})
	}
}

// TestRealClientIsAborted has the gateway expect another certificate than sstpc
// saw.
func TestRealClientIsAborted(t *testing.T) {
	needSSTPC(t)
	eachMode(t, func(t *testing.T, mode sstp.Mode) {
		w := newWorld(t, mode, 1, func(w *world) {
			behindLatency(w)
			w.gateways[0].Passwords = map[string]string{"alice": "s3cret"}
		})
		w.gateways[0].SetFault(standin.SSTPFault{ForeignHash: true})
		w.sessions.Expected = func(string) (sstp.Fingerprint, bool) { return sstp.Fingerprint{1}, true }
		log := ""
		for range 5 {
			var up bool
			if up, log = sstpc(t, w, "s3cret"); up {
				t.Fatal("sstpc came up")
			}
			if w.gateways[0].Counts().Aborted > 0 {
				break
			}
		}
		if !strings.Contains(log, "Value of attribute is incorrect") {
			t.Errorf("sstpc says:\n%s", log)
		}
		until(t, "the session's end", func() bool { return w.sessions.Live() == 0 })
		s := w.sessions.List(1, false)[0]
		what, fix := s.Explain()
		if s.Finding != sstp.FindingWrongHash {
			t.Errorf("session %+v", s)
		}
		t.Logf("%s; %s", what, fix)
	})
}
