package peers

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A Proc is a program that runs in a Host until the test ends.
type Proc struct {
	// Name is what messages call it.
	Name string

	t    testing.TB
	cmd  *exec.Cmd
	out  buffer
	done chan struct{}
	err  error // valid when done is closed
}

// Start runs a program in the namespace, with env besides the environment of the
// test. The program is stopped when the test ends, and killed by the kernel if
// the test program dies first. What it wrote is logged if the test failed.
func (h *Host) Start(name string, env []string, argv ...string) *Proc {
	t := h.net.t
	t.Helper()
	p := &Proc{Name: h.Name + "/" + name, t: t, done: make(chan struct{})}
	p.cmd = exec.CommandContext(context.Background(), argv[0], argv[1:]...) // ended by Stop
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Dir = h.net.Dir
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p.cmd.WaitDelay = 10 * time.Second
	if err := h.Do(p.cmd.Start); err != nil {
		t.Fatalf("peers: starting %s: %v", p.Name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("%s wrote:\n%s", p.Name, tail(p.Output(), 80))
		}
	})
	return p
}

// Output returns what the program has written so far.
func (p *Proc) Output() string { return p.out.String() }

// Done is closed when the program has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Signal sends a signal to the program.
func (p *Proc) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Errorf("peers: signal %v to %s: %v", s, p.Name, err)
	}
}

// Stop ends the program by SIGTERM, and by SIGKILL if it takes over 10 seconds,
// and returns how it ended.
func (p *Proc) Stop() error {
	select {
	case <-p.done:
		return p.err
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended meanwhile
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.t.Logf("peers: %s did not end within 10 s of SIGTERM: killed", p.Name)
		p.Kill()
	}
	return p.err
}

// Kill ends the program by SIGKILL, and waits until it is gone.
func (p *Proc) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended meanwhile
	<-p.done
}

// Run runs a program in the namespace to its end, for 60 seconds at most, and
// returns what it wrote. The error holds the end of that too.
func (h *Host) Run(argv ...string) (string, error) { return h.RunEnv(nil, "", argv...) }

// RunEnv is Run with more environment and with input.
func (h *Host) RunEnv(env []string, stdin string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := h.Do(cmd.Start); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%s: %s: %w: %s", h.Name, argv[0], err, tail(out.String(), 8))
	}
	return out.String(), nil
}

// tail returns the last n lines of s.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = append([]string{fmt.Sprintf("… %d lines more …", len(lines)-n)}, lines[len(lines)-n:]...)
	}
	return strings.Join(lines, "\n")
}

// buffer is a bytes.Buffer that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Counter returns a counter of the namespace, of /proc/net/snmp: group "Ip" and
// name "ReasmOKs", say.
func (h *Host) Counter(group, name string) (int, error) {
	out, err := h.Run("cat", "/proc/net/snmp")
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range strings.Lines(out) {
		rest, ok := strings.CutPrefix(line, group+":")
		if !ok {
			continue
		}
		if names == nil {
			names = strings.Fields(rest)
			continue
		}
		i := slices.Index(names, name)
		if values := strings.Fields(rest); i >= 0 && i < len(values) {
			return strconv.Atoi(values[i])
		}
	}
	return 0, fmt.Errorf("peers: %s has no counter %s of %s", h.Name, name, group)
}
