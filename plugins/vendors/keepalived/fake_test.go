package keepalived

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain has the test's program be keepalived or nft, where it is called so. What
// they need is in the folder that they were called in.
func TestMain(m *testing.M) {
	dir, name := filepath.Split(os.Args[0])
	switch name {
	case "keepalived":
		os.Exit(fakeKeepalived(dir, os.Args[1:], os.Stderr))
	case "nft":
		os.Exit(fakeNFT(dir, os.Args[1:], os.Stderr))
	}
	os.Exit(m.Run())
}

// exitCode is how a program ended.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }
func (e exitCode) ExitCode() int { return int(e) }

// inside runs the programs in this process, which is much faster. That they run as
// programs too is TestPrograms' to see.
func inside(ctx context.Context, name string, args ...string) (string, error) {
	if err := context.Cause(ctx); err != nil {
		return "", err
	}
	dir, base := filepath.Split(name)
	var out strings.Builder
	code := 127
	switch base {
	case "keepalived":
		code = fakeKeepalived(dir, args, &out)
	case "nft":
		code = fakeNFT(dir, args, &out)
	}
	if code != 0 {
		return strings.TrimSpace(out.String()), exitCode(code)
	}
	return strings.TrimSpace(out.String()), nil
}

// keywords are those that keepalived 2.2 knows and that the driver has a use for, by
// block.
var keywords = map[string][]string{
	"":               {"include"},
	"global_defs":    {"enable_script_security", "script_user", "dynamic_interfaces", "lvs_sync_daemon", "router_id"},
	"virtual_server": {"ip_family", "protocol", "lvs_sched", "mh-fallback", "mh-port", "lvs_method", "persistence_timeout", "sorry_server"},
	"real_server":    {"weight", "uthreshold"},
	"UDP_CHECK":      {"payload", "require_reply", "min_reply_length", "max_reply_length"},
	"TCP_CHECK":      {}, "PING_CHECK": {},
	"SSL_GET":       {"http_protocol", "virtualhost", "enable_sni"},
	"HTTP_GET":      {"http_protocol", "virtualhost"},
	"url":           {"path", "status_code"},
	"MISC_CHECK":    {"misc_path", "misc_timeout", "user", "delay_loop", "retry", "delay_before_retry"},
	"vrrp_instance": {"state", "interface", "virtual_router_id", "priority", "advert_int", "nopreempt", "unicast_src_ip"},
}

// within says which blocks are in which.
var within = map[string][]string{
	"":               {"global_defs", "virtual_server", "vrrp_instance"},
	"virtual_server": {"real_server"},
	"real_server":    {"UDP_CHECK", "TCP_CHECK", "PING_CHECK", "SSL_GET", "HTTP_GET", "MISC_CHECK"},
	"SSL_GET":        {"url"}, "HTTP_GET": {"url"},
	"vrrp_instance": {"unicast_peer", "virtual_ipaddress", "virtual_ipaddress_excluded"},
}

var generic = []string{"connect_port", "connect_timeout", "delay_loop", "retry", "delay_before_retry"}

// fault is what keepalived says, and how it ends.
type fault struct {
	code int
	text string
}

// readAll reads a file with what it includes, and checks it as keepalived -t does.
func readAll(name string) ([]block, []fault) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, []fault{{6, "Config files missing '" + name + "'."}}
	}
	var out []block
	var faults []fault
	for line := range strings.Lines(string(raw)) {
		if len(line) > 1023 {
			faults = append(faults, fault{5, "Unterminated quote: a line has more than 1023 characters"})
		}
		if more, ok := strings.CutPrefix(strings.TrimSpace(line), "include "); ok {
			list, err := filepath.Glob(more)
			if err != nil || len(list) == 0 {
				faults = append(faults, fault{5, "No config files matched '" + more + "'."})
			}
			for _, f := range list {
				b, x := readAll(f)
				out, faults = append(out, b...), append(faults, x...)
			}
		}
	}
	for _, b := range parse(string(raw)) {
		if b.head == "" {
			b.lines = slices.DeleteFunc(b.lines, func(l string) bool { return strings.HasPrefix(l, "include ") })
			if len(b.lines) == 0 {
				continue
			}
		}
		out = append(out, b)
	}
	return out, faults
}

func lint(list []block) []fault {
	var out []fault
	secure := slices.ContainsFunc(list, func(b block) bool {
		return b.head == "global_defs" && slices.Contains(b.lines, "enable_script_security")
	})
	for i := range list {
		b := &list[i]
		kind, _, _ := strings.Cut(b.head, " ")
		if b.head == "" || !slices.Contains(within[""], kind) {
			out = append(out, fault{5, "Unknown keyword '" + b.head + strings.Join(b.lines, ";") + "'"})
			continue
		}
		out = append(out, lintBlock(b, kind, secure)...)
		if kind != "virtual_server" {
			continue
		}
		total := 0
		for k := range b.blocks {
			for _, l := range b.blocks[k].lines {
				if n, err := strconv.Atoi(strings.TrimPrefix(l, "weight ")); err == nil {
					total += n
				}
			}
		}
		switch {
		case len(b.blocks) == 0:
			out = append(out, fault{5, "Virtual server " + b.head + " has no real servers - ignoring"})
		case total == 0:
			out = append(out, fault{5, "Warning - quorum 1 for " + b.head + " exceeds total weight of real servers 0, reducing quorum to 0"},
				fault{5, "Virtual server " + b.head + ": hysteresis 0 >= quorum 0; setting hysteresis to 4294967295"})
		}
	}
	return out
}

func lintBlock(b *block, kind string, secure bool) []fault {
	var out []fault
	known := keywords[kind]
	if strings.HasSuffix(kind, "_CHECK") && kind != "MISC_CHECK" || strings.HasSuffix(kind, "_GET") {
		known = append(slices.Clone(known), generic...)
	}
	addresses := kind == "unicast_peer" || strings.HasPrefix(kind, "virtual_ipaddress")
	for _, l := range b.lines {
		word, rest, _ := strings.Cut(l, " ")
		if addresses {
			if _, err := netip.ParseAddr(l); err != nil {
				out = append(out, fault{5, err.Error()})
			}
			continue
		}
		if !slices.Contains(known, word) {
			out = append(out, fault{5, "Unknown keyword '" + word + "' in " + kind})
		}
		if strings.ContainsAny(rest, "{}") && !strings.HasPrefix(rest, `"`) {
			out = append(out, fault{6, "Unexpected '{' in " + l})
		}
	}
	if kind == "MISC_CHECK" && !secure {
		out = append(out, fault{6, "SECURITY VIOLATION - check scripts are being executed but script_security not enabled."})
	}
	for i := range b.blocks {
		inner, _, _ := strings.Cut(b.blocks[i].head, " ")
		if !slices.Contains(within[kind], inner) {
			out = append(out, fault{5, "Unknown keyword '" + inner + "' in " + kind})
			continue
		}
		out = append(out, lintBlock(&b.blocks[i], inner, secure)...)
	}
	return out
}

// fakeKeepalived is keepalived: -t checks, and without it IPVS has what the file says.
func fakeKeepalived(dir string, args []string, out io.Writer) int {
	test := slices.Contains(args, "-t")
	name := args[slices.Index(args, "-f")+1]
	if test {
		list, faults := readAll(name)
		faults = append(faults, lint(list)...)
		code := 0
		for _, f := range faults {
			fmt.Fprintln(out, f.text)
			code = max(code, f.code)
		}
		return code
	}
	hup, end := make(chan os.Signal, 8), make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	signal.Notify(end, syscall.SIGTERM)
	pid := strconv.Itoa(os.Getpid())
	folder := filepath.Join(dir, "proc", pid)
	began := strconv.FormatInt(int64(time.Since(time.Unix(1_000_000, 0))/(time.Second/ticks)), 10)
	for _, err := range []error{
		os.MkdirAll(folder, 0o755), os.MkdirAll(filepath.Join(dir, "proc", "net"), 0o755),
		os.WriteFile(filepath.Join(folder, "comm"), []byte("keepalived\n"), 0o600),
		os.WriteFile(filepath.Join(folder, "stat"), []byte(pid+" (keep) alived) S"+strings.Repeat(" 0", 18)+" "+began+" 0\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "proc", "stat"), []byte("cpu 1 2 3\nbtime 1000000\n"), 0o600),
		balance(dir, name),
		os.WriteFile(filepath.Join(dir, "keepalived.pid"), []byte(pid+"\n"), 0o600),
	} {
		if err != nil {
			fmt.Fprintln(out, err)
			return 1
		}
	}
	for {
		select {
		case <-hup:
			if err := balance(dir, name); err != nil {
				fmt.Fprintln(out, err)
			}
		case <-end:
			return 0
		}
	}
}

// balance has the list of IPVS say what the file asks for.
func balance(dir, name string) error {
	list, _ := readAll(name)
	var b strings.Builder
	b.WriteString("IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n")
	for i := range list {
		v := &list[i]
		w := strings.Fields(v.head)
		if w[0] != "virtual_server" || len(v.blocks) == 0 {
			continue
		}
		if w[1] == "fwmark" {
			n, err := strconv.ParseUint(w[2], 10, 32)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "FWM  %08X wlc persistent 2100 FFFFFFFF\n", n)
		} else {
			fmt.Fprintf(&b, "%s  %s wlc\n", strings.Fields(keyOf(v))[0], hexOf(w[1], w[2]))
		}
		for k := range v.blocks {
			s := strings.Fields(v.blocks[k].head)
			weight := "1"
			for _, l := range v.blocks[k].lines {
				if n, ok := strings.CutPrefix(l, "weight "); ok {
					weight = n
				}
			}
			fmt.Fprintf(&b, "  -> %s      Masq    %s      3          4\n", hexOf(s[1], s[2]), weight)
		}
	}
	to := filepath.Join(dir, "proc", "net", "ip_vs")
	if err := os.WriteFile(to+".new", []byte(b.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}

func hexOf(addr, port string) string {
	a, err := netip.ParseAddr(addr)
	n, portErr := strconv.Atoi(port)
	if err != nil || portErr != nil {
		return "FFFFFFFF:0000"
	}
	if a.Is4() {
		return fmt.Sprintf("%X:%04X", a.AsSlice(), n)
	}
	return fmt.Sprintf("[%s]:%04X", a.StringExpanded(), n)
}

// fakeNFT is nft: it keeps the tables that it loads in one file.
func fakeNFT(dir string, args []string, out io.Writer) int {
	kept := filepath.Join(dir, "ruleset")
	was, err := os.ReadFile(kept)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 1
	}
	tables := parse(string(was))
	if args[0] == "list" {
		want := strings.Join(args[1:], " ")
		for i := range tables {
			if tables[i].head == want {
				fmt.Fprintf(out, "%s", body(tables[i:i+1]))
				return 0
			}
		}
		fmt.Fprintln(out, "Error: No such file or directory")
		return 1
	}
	raw, err := os.ReadFile(args[len(args)-1])
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	for _, b := range parse(string(raw)) {
		if b.head != "" {
			tables = append(tables, b)
			continue
		}
		for _, l := range b.lines {
			if gone, ok := strings.CutPrefix(l, "delete "); ok {
				tables = slices.DeleteFunc(tables, func(t block) bool { return t.head == gone })
			} else if !strings.HasPrefix(l, "table inet ") {
				fmt.Fprintln(out, "Error: syntax error, unexpected", l)
				return 1
			}
		}
	}
	if args[0] == "-c" {
		return 0
	}
	if err := os.WriteFile(kept, body(tables), 0o600); err != nil {
		return 1
	}
	return 0
}

// noSleep has programs with the race detector end at once, rather than after 1 s.
const noSleep = "atexit_sleep_ms=0"

// machine is a machine with a keepalived that others use too.
type machine struct {
	*process
	dir, foreign string
	end          func()
}

func startMachine(t *testing.T, runs bool) *machine {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"keepalived", "nft"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	m := &machine{dir: dir, foreign: filepath.Join(dir, "keepalived.conf")}
	s := Settings{
		File: filepath.Join(dir, "conf.d", "aovlb.conf"), Main: m.foreign, PIDFile: filepath.Join(dir, "keepalived.pid"),
		Program: filepath.Join(dir, "keepalived"), NFT: filepath.Join(dir, "nft"), Script: filepath.Join(dir, "aovlb-check"),
	}
	m.process = &process{settings: s.usual(), proc: filepath.Join(dir, "proc"), exec: inside}
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "conf.d"), 0o755),
		os.WriteFile(filepath.Join(dir, "conf.d", "theirs.conf"), []byte("virtual_server 198.51.100.7 80 {\n protocol TCP\n real_server 10.9.9.9 80 {\n weight 1\n }\n}\n"), 0o600),
		os.WriteFile(m.foreign, []byte("global_defs {\n enable_script_security\n script_user root\n}\ninclude "+dir+"/conf.d/*.conf\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "ruleset"), []byte("table inet theirs {\n chain input {\n type filter hook input priority 0;\n }\n}\n"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if runs {
		m.start(t)
	}
	return m
}

// start has keepalived run.
func (m *machine) start(t *testing.T) {
	t.Helper()
	c := exec.Command(m.settings.Program, "-n", "-f", m.foreign)
	c.Stderr, c.Env = os.Stderr, append(os.Environ(), "GORACE="+noSleep)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	m.end = sync.OnceFunc(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait() // it ends by the signal
		_ = os.RemoveAll(filepath.Join(m.proc, strconv.Itoa(c.Process.Pid)))
	})
	t.Cleanup(m.end)
	late := time.After(20 * time.Second)
	for {
		if pid, _, _ := m.running(); pid == c.Process.Pid {
			return
		}
		select {
		case <-late:
			t.Fatal("keepalived doesn't start")
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// others shows what isn't the driver's.
func (m *machine) others(t *testing.T) string {
	var out strings.Builder
	for _, f := range []string{m.foreign, filepath.Join(m.dir, "conf.d", "theirs.conf"), filepath.Join(m.dir, "ruleset")} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Error(err)
		}
		for _, x := range parse(string(b)) {
			if !strings.HasPrefix(x.head, "table inet aovlb_") {
				out.Write(body([]block{x}))
			}
		}
	}
	return out.String()
}

// errBroken is what writes end with that a test forbids.
var errBroken = errors.New("the machine is gone")

// counting counts what is written to a box, and can forbid it.
type counting struct {
	box
	mu     sync.Mutex
	writes int
	left   int // negative: any number
}

func (c *counting) count1() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		return errBroken
	}
	c.left--
	c.writes++
	return nil
}

// write writes the files one after the other, so that it can end between them.
func (c *counting) write(ctx context.Context, f files) error {
	was, err := c.read()
	if err != nil {
		return err
	}
	for _, part := range []func(){func() { was.script = f.script }, func() { was.marks = f.marks }, func() { was.conf = f.conf }} {
		if err := c.count1(); err != nil {
			return err
		}
		part()
		if err := c.box.write(ctx, was); err != nil {
			return err
		}
	}
	return nil
}

func (c *counting) mark(ctx context.Context) error {
	if err := c.count1(); err != nil {
		return err
	}
	return c.box.mark(ctx)
}

func (c *counting) reload(ctx context.Context, edition string, services []string) error {
	if err := c.count1(); err != nil {
		return err
	}
	return c.box.reload(ctx, edition, services)
}

func (c *counting) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

func (c *counting) breakAfter(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = n
}
