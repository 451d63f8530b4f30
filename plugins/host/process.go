package host

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/proto/wire"
)

// process is one start of a plugin.
type process struct {
	client *plugin.Client
	cmd    *exec.Cmd
	kill   context.CancelFunc
	driver plugins.Driver
	pid    int
	dir    *folder
	life   *os.File // its other end ends with us
	gone   <-chan struct{}
	began  time.Time
}

// plainEnv are the variables that every plugin gets.
var plainEnv = []string{
	"PATH", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy",
	"SYSTEMROOT", // nothing starts without it on Windows
}

// environment returns what the plugin gets.
func (p *Plugin) environment(dir string) []string {
	var env []string
	for _, name := range slices.Concat(plainEnv, p.Env) {
		if v, ok := os.LookupEnv(name); ok && !strings.HasPrefix(name, "PLUGIN_") && !strings.HasPrefix(name, "AOVLB_PLUGIN") {
			env = append(env, name+"="+v)
		}
	}
	return append(env, "TMPDIR="+dir, wire.DirKey+"="+dir)
}

// start starts the program and connects to it. p.mu is held.
func (p *Plugin) start(ctx context.Context) (_ *process, err error) {
	sum, err := hex.DecodeString(p.SHA256)
	if err != nil || len(sum) != sha256.Size {
		return nil, fmt.Errorf("its SHA-256 must be known, and %q is none", p.SHA256)
	}
	if err := safe(p.Path); err != nil {
		return nil, err
	}
	dir, err := newFolder(p.Dir)
	if err != nil {
		return nil, err
	}
	// go-plugin can't end a program that isn't ready yet; this can.
	alive, kill := context.WithCancel(context.WithoutCancel(ctx))
	cmd := exec.CommandContext(alive, p.Path, p.Args...) //nolint:gosec // the program is pinned, and compared before it is started
	cmd.Env = p.environment(dir.path)
	cmd.Dir = dir.path
	life, err := tie(cmd)
	if err != nil {
		kill()
		dir.remove()
		return nil, err
	}
	timeout := cmp.Or(p.StartTimeout, DefaultStartTimeout)
	set := &service{host: p.Host}
	log, lines := p.hclog()
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  plugin.HandshakeConfig{MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue},
		VersionedPlugins: map[int]plugin.PluginSet{wire.Version: {wire.Name: set}},
		Cmd:              cmd,
		SecureConfig:     &plugin.SecureConfig{Checksum: sum, Hash: sha256.New()},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: dir.path},
		StartTimeout:     timeout,
		Logger:           log,
		SyncStdout:       io.Discard,
		SyncStderr:       io.Discard,
		GRPCDialOptions:  wire.DialOptions(),
	})
	proc := &process{client: client, cmd: cmd, kill: kill, dir: dir, life: life, began: time.Now()}
	defer func() {
		if err != nil {
			proc.end()
		}
	}()
	type dispensed struct {
		what any
		err  error
	}
	done := make(chan dispensed, 1)
	go func() {
		rpc, err := client.Client()
		if err != nil {
			done <- dispensed{nil, err}
			return
		}
		what, err := rpc.Dispense(wire.Name)
		done <- dispensed{what, err}
	}()
	var got dispensed
	select {
	case got = <-done:
	case <-ctx.Done():
		kill()
		<-done
		return nil, context.Cause(ctx)
	}
	if cmd.Process != nil {
		proc.pid = cmd.Process.Pid
	}
	if got.err != nil {
		return nil, startError(got.err, lines)
	}
	proc.driver, _ = got.what.(plugins.Driver)
	proc.gone = set.gone
	if err := limit(proc.pid, cmp.Or(p.Memory, DefaultMemory), cmp.Or(p.Files, DefaultFiles)); err != nil {
		p.logger().Warn("the plugin has no limits", "error", err)
	}
	p.logger().Info("the plugin runs", "pid", proc.pid, "took", time.Since(proc.began))
	return proc, nil
}

// startError says in fewer words why a start failed.
func startError(err error, lines *sink) error {
	text := err.Error()
	if errors.Is(err, plugin.ErrChecksumsDoNotMatch) {
		return errors.New("its content is not what was pinned: it doesn't run")
	}
	first, _, _ := strings.Cut(text, "\n")
	switch said, odd := strings.CutPrefix(first, "Unrecognized remote plugin message:"); {
	case odd && strings.TrimSpace(said) == "":
		if last := lines.said(); last != "" {
			return fmt.Errorf("it ended before it was ready, and said %q", last)
		}
		return errors.New("it ended before it was ready, and said nothing")
	case odd:
		return fmt.Errorf("it printed %q: it must print nothing to standard output before it serves", strings.TrimSpace(said))
	}
	return errors.New(strings.ReplaceAll(strings.TrimSpace(text), "\n", " "))
}

func (p *process) dead() bool {
	if p.client.Exited() {
		return true
	}
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// awaitDeath waits a moment until a process that doesn't answer counts as dead.
func (p *process) awaitDeath() {
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-p.gone:
	case <-t.C:
		p.client.Kill() // it lives, and doesn't speak: the next one will
	}
}

// end ends the process, its children, and what was made for it.
func (p *process) end() {
	p.client.Kill()
	p.kill()
	killGroup(p.cmd)
	p.life.Close()
	p.dir.remove()
}

// service is the host's end of go-plugin.
type service struct {
	plugin.NetRPCUnsupportedPlugin

	host string
	gone <-chan struct{}
}

func (s *service) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error { return plugins.ErrUnsupported }

// GRPCClient is called with a context that ends with the process.
func (s *service) GRPCClient(ctx context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	s.gone = ctx.Done()
	ctx, cancel := context.WithTimeout(ctx, DefaultStartTimeout)
	defer cancel()
	return wire.Dial(ctx, conn, s.host)
}

// folder is a private folder. It is locked as long as this process lives, so that
// those that were left behind can be told.
type folder struct {
	path string
	lock *os.File
}

// lockName is a file in each folder.
const lockName = "host.lock"

func newFolder(base string) (*folder, error) {
	if base == "" {
		base = os.TempDir()
	}
	sweep(base)
	path, err := os.MkdirTemp(base, wire.DirPrefix)
	if err != nil {
		return nil, fmt.Errorf("a folder for its socket: %w", err)
	}
	f := &folder{path: path}
	if f.lock, err = os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_RDWR, 0o600); err == nil {
		_, err = tryLock(f.lock)
	}
	if err != nil {
		f.remove()
		return nil, fmt.Errorf("a folder for its socket: %w", err)
	}
	return f, nil
}

func (f *folder) remove() {
	if f.lock != nil {
		f.lock.Close()
	}
	_ = os.RemoveAll(f.path)
}

// sweep removes folders whose host is gone, and whose plugin had no time to.
func sweep(base string) {
	list, err := filepath.Glob(filepath.Join(base, wire.DirPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range list {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || !mine(info) || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
		if err != nil {
			continue // it isn't one of ours, or is being made
		}
		if free, err := tryLock(lock); free && err == nil {
			_ = os.RemoveAll(dir)
		}
		lock.Close()
	}
}

// hclog returns a logger for go-plugin whose lines go to p.Logger.
func (p *Plugin) hclog() (hclog.Logger, *sink) {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: p.Name, Output: io.Discard, Level: hclog.Debug})
	s := &sink{log: p.logger()}
	l.RegisterSink(s)
	return l, s
}
