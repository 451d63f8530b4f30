package fastpath_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/internal/peers/netns"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/fastpath"
	"github.com/aovlb/aovlb/lb/udp"
)

// The tests in network namespaces run the engine in a process of its own, since a
// namespace belongs to a thread and an engine has several.

const childEnv = "AOVLB_FASTPATH_TEST_CHILD"

type childConfig struct {
	Listen        []netip.AddrPort
	Backends      []netip.Addr
	Transparent   bool
	Hook          fastpath.Hook
	Interfaces    []string
	MaxFlows      int
	Pin           string
	Lease         time.Duration
	Restore       []udp.FlowState
	Idle          time.Duration
	Off           bool // no fast path
	FirstMessages int
	Fill          int    // so many flows are carried from the start, which the engine doesn't know
	Log           string // a file for all that the fast path says
}

// report is what a child tells when asked.
type report struct {
	Engine udp.Stats
	Path   fastpath.Stats
	// Control counts datagrams about sessions, Unreachable reports of the network.
	Control, Unreachable int
	Flows                []udp.FlowState
	Goroutines, Files    int
}

type child struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    *json.Encoder
	lines *bufio.Scanner
	ended bool
}

// command is what a child is told: to report, to mark a backend, or to end.
type command struct {
	Mark   string // a backend's name
	Down   bool   // how
	Detach bool   // the programs, while the engine goes on
	End    bool   // and leave what is pinned, if Keep
	Keep   bool
}

// startChild starts an engine in a namespace, and waits until it listens.
func startChild(t testing.TB, ns string, cfg childConfig) *child {
	t.Helper()
	c, err := tryChild(t, ns, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryChild(t testing.TB, ns string, cfg childConfig, prefix ...string) (*child, error) {
	t.Helper()
	b, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	// nsenter leaves the file systems as they are, the one for BPF too.
	args := append([]string{"--net=/run/netns/" + ns}, prefix...)
	cmd := exec.Command("nsenter", append(args, os.Args[0], "-test.run=^TestChild$", "-test.timeout=0")...)
	cmd.Env = append(os.Environ(), childEnv+"="+string(b))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: cmd, in: json.NewEncoder(in), lines: bufio.NewScanner(out)}
	c.lines.Buffer(nil, 64<<20)
	t.Cleanup(func() {
		if !c.ended {
			c.ended = true
			_ = in.Close()
			_ = cmd.Wait()
		}
	})
	for c.lines.Scan() {
		if c.lines.Text() == "ready" {
			return c, nil
		}
		if why, ok := strings.CutPrefix(c.lines.Text(), "refused: "); ok {
			return nil, errors.New(why)
		}
	}
	t.Fatal("the engine's process didn't start")
	return nil, nil
}

// tell has the child do something, and returns its report.
func (c *child) tell(do command) (r report) {
	c.t.Helper()
	if err := c.in.Encode(do); err != nil {
		c.t.Fatal(err)
	}
	for c.lines.Scan() {
		if rest, ok := strings.CutPrefix(c.lines.Text(), "report "); ok {
			if err := json.Unmarshal([]byte(rest), &r); err != nil {
				c.t.Fatal(err)
			}
			break
		}
	}
	if do.End {
		c.ended = true
		if err := c.cmd.Wait(); err != nil {
			c.t.Errorf("the engine's process: %v", err)
		}
	}
	return r
}

func (c *child) report() report { return c.tell(command{}) }

// TestChild is the engine's process in other tests.
func TestChild(t *testing.T) {
	env := os.Getenv(childEnv)
	if env == "" {
		t.Skip("it is what other tests start as a process of its own")
	}
	var cfg childConfig
	if err := json.Unmarshal([]byte(env), &cfg); err != nil {
		t.Fatal(err)
	}
	b := &lb.Balancer{Pool: new(lb.Pool), Table: &lb.Table{Idle: cfg.Idle}}
	var backends []lb.Backend
	for i, a := range cfg.Backends {
		backends = append(backends, lb.Backend{Name: fmt.Sprintf("g%d", i+1), Addr: a})
	}
	if err := b.Pool.Set(backends...); err != nil {
		t.Fatal(err)
	}
	var path *fastpath.Path
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	over := make(chan struct{})
	if !cfg.Off {
		logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		var err error
		if cfg.Log != "" {
			f, err := os.Create(cfg.Log)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			logger = slog.New(slog.NewTextHandler(f, nil))
		}
		path, err = fastpath.Open(fastpath.Config{
			Hook: cfg.Hook, Interfaces: cfg.Interfaces, At: cfg.Listen, Toward: cfg.Backends, MaxFlows: cfg.MaxFlows, Pin: cfg.Pin,
			FirstMessages: cfg.FirstMessages,
			Lease:         cfg.Lease, Logger: logger,
		})
		if err != nil {
			fmt.Printf("refused: %v\n", err)
			return
		}
		go func() {
			defer close(over)
			_ = path.Run(ctx)
		}()
	}
	serveChild(ctx, t, cfg, b, path)
	cancel()
	if path != nil {
		<-over
	}
}

func serveChild(ctx context.Context, t *testing.T, cfg childConfig, b *lb.Balancer, path *fastpath.Path) {
	var conns []net.PacketConn
	for _, a := range cfg.Listen {
		c, err := udp.Listen(ctx, a, udp.ListenConfig{Transparent: cfg.Transparent})
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c...)
	}
	var control, unreachable atomic.Int64
	e := &udp.Engine{
		Balancer: b, Classifier: ikev2.Classifier{}, Transparent: cfg.Transparent, Workers: 1,
		Trace: &udp.Trace{
			Control:     func(lb.Flow, *lb.Member, []byte, bool) { control.Add(1) },
			Unreachable: func(*lb.Member, error) { unreachable.Add(1) },
		},
	}
	var carrier *fastpath.Carrier
	if path != nil {
		carrier = path.Carrier()
		e.FastPath = carrier
		for i := range cfg.Fill {
			carry(t, path, carrier, i)
		}
	}
	e.Restore(cfg.Restore)
	served := make(chan error, 1)
	go func() { served <- e.Serve(ctx, conns...) }()
	fmt.Println("ready")
	for d, end := json.NewDecoder(os.Stdin), false; !end; {
		var c command
		if d.Decode(&c) != nil {
			c.End = true // whoever told us what to do has gone
		}
		end = c.End
		c.obey(ctx, t, b.Pool, e, path)
		if end {
			<-served
		}
		r := reportOf(e, path)
		r.Control, r.Unreachable = int(control.Load()), int(unreachable.Load())
		if end && path != nil {
			carrier.Close()
			if err := path.Close(c.Keep); err != nil {
				t.Error(err)
			}
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Error(err)
		}
		fmt.Printf("report %s\n", b)
	}
}

// obey does what c says.
func (c *command) obey(ctx context.Context, t *testing.T, pool *lb.Pool, e *udp.Engine, path *fastpath.Path) {
	if c.Mark != "" {
		state := lb.Up
		if c.Down {
			state = lb.Down
		}
		if err := pool.Mark(c.Mark, state, "told so"); err != nil {
			t.Error(err)
		}
	}
	if c.Detach {
		if err := path.Close(false); err != nil {
			t.Error(err)
		}
	}
	if c.End {
		now, cancel := context.WithCancel(ctx)
		cancel()
		_ = e.Shutdown(now)
	}
}

func reportOf(e *udp.Engine, path *fastpath.Path) (r report) {
	// Flows has the engine ask what has been carried.
	r.Flows = slices.Collect(e.Flows())
	r.Engine = e.Stats()
	r.Goroutines = runtime.NumGoroutine()
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		r.Files = len(files)
	}
	if path != nil {
		r.Path = path.Stats()
	}
	return r
}

// lab is this:
//
//	client                    balancer                     gateways
//	fc 10.82.1.2 ──────────── fa 10.82.1.1
//	   fd82:1::2                 fd82:1::1
//	                          fb 10.82.2.1 ──────────────── fg 10.82.2.2, 10.82.2.3
//	                             fd82:2::1                     fd82:2::2, fd82:2::3, all else via fb
//
// with VLANs, if asked for, in place of fa and fb: fa.5 on fa, fb.6 on fb.
type lab struct {
	t                         testing.TB
	client, balancer, gateway string
	fa, fb, fc, fg            string
}

var labs int

func newLab(t testing.TB, vlan bool) *lab {
	t.Helper()
	labs++
	id := fmt.Sprintf("fastp%d.%d", os.Getpid(), labs)
	l := &lab{t: t, client: id + "c", balancer: id + "l", gateway: id + "g", fa: "fa", fb: "fb", fc: "fc", fg: "fg"}
	t.Cleanup(func() {
		for _, n := range []string{l.client, l.balancer, l.gateway} {
			_ = exec.Command("ip", "netns", "del", n).Run()
		}
	})
	l.sh(`
for n in NC NL NG; do ip netns add $n; ip -n $n link set lo up; done
ip -n NL link add fa type veth peer name fc netns NC
ip -n NL link add fb type veth peer name fg netns NG
# What comes from sockets here has checksums that no device ever finishes.
nsenter --net=/run/netns/NC ethtool -K fc tx off >/dev/null
nsenter --net=/run/netns/NG ethtool -K fg tx off >/dev/null
# XDP sends to a device of this kind only if what is behind it has NAPI.
nsenter --net=/run/netns/NC ethtool -K fc gro on; nsenter --net=/run/netns/NG ethtool -K fg gro on
ip -n NC link set fc up; ip -n NL link set fa up; ip -n NL link set fb up; ip -n NG link set fg up
`)
	if vlan {
		l.sh(`
ip -n NC link add link fc name fc.5 type vlan id 5; ip -n NL link add link fa name fa.5 type vlan id 5
ip -n NL link add link fb name fb.6 type vlan id 6; ip -n NG link add link fg name fg.6 type vlan id 6
ip -n NC link set fc.5 up; ip -n NL link set fa.5 up; ip -n NL link set fb.6 up; ip -n NG link set fg.6 up
`)
		l.fa, l.fb, l.fc, l.fg = "fa.5", "fb.6", "fc.5", "fg.6"
	}
	l.sh(`
ip -n NC addr add 10.82.1.2/24 dev FC; ip -n NC addr add fd82:1::2/64 dev FC nodad
ip -n NL addr add 10.82.1.1/24 dev FA; ip -n NL addr add fd82:1::1/64 dev FA nodad
ip -n NL addr add 10.82.2.1/24 dev FB; ip -n NL addr add fd82:2::1/64 dev FB nodad
for i in 2 3; do ip -n NG addr add 10.82.2.$i/24 dev FG; ip -n NG addr add fd82:2::$i/64 dev FG nodad; done
ip -n NG route add default via 10.82.2.1; ip -n NG -6 route add default via fd82:2::1
for f in -4 -6; do
 ip -n NL $f rule add iif FB lookup 100
 ip -n NL $f route add local default dev lo table 100
done
nsenter --net=/run/netns/NL sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.FB.rp_filter=0
`)
	return l
}

// sh runs a script with the names of the lab in it.
func (l *lab) sh(script string) string {
	l.t.Helper()
	return netns.Sh(l.t, strings.NewReplacer("NC", l.client, "NL", l.balancer, "NG", l.gateway, "FA", l.fa, "FB", l.fb, "FC", l.fc, "FG", l.fg).Replace(script))
}

func (l *lab) listen(ns, addr string) *net.UDPConn {
	l.t.Helper()
	return netns.ListenUDP(l.t, ns, addr)
}
