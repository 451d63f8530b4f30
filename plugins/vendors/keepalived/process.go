package keepalived

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aovlb/aovlb/plugins/vendors/ownfile"
)

// process is a keepalived of this machine.
type process struct {
	settings Settings
	proc     string // where the kernel tells of processes and of IPVS
	exec     func(ctx context.Context, name string, args ...string) (string, error)
}

// patience is how long a program may take to check a file, or keepalived to load it.
const patience = 30 * time.Second

func (p *process) read() (files, error) {
	var f files
	var err error
	if f.conf, err = ownfile.Read(p.settings.File); err != nil {
		return f, err
	}
	if f.marks, err = ownfile.Read(p.settings.Marks); err != nil {
		return f, err
	}
	if p.settings.Script != "" {
		f.script, err = ownfile.Read(p.settings.Script)
	}
	return f, err
}

func (p *process) write(ctx context.Context, f files) error {
	for _, x := range []struct {
		name    string
		content []byte
		mode    fs.FileMode
	}{{p.settings.Script, f.script, 0o755}, {p.settings.Marks, f.marks, 0o644}, {p.settings.File, f.conf, 0o644}} {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if x.name == "" {
			continue
		}
		if err := writeFile(x.name, x.content, x.mode); err != nil {
			return err
		}
	}
	return nil
}

// writeFile replaces a file at once if it differs, and removes it if b is nil.
func writeFile(name string, b []byte, mode fs.FileMode) error {
	was, err := ownfile.Read(name)
	switch {
	case err != nil:
		return err
	case b == nil && was == nil:
		return nil
	case b == nil:
		return os.Remove(name)
	case was != nil && bytes.Equal(was, b):
		return nil
	}
	if info, err := os.Stat(name); err == nil {
		mode = info.Mode().Perm()
	}
	// keepalived may load all files of a folder that end in .conf.
	dir, base := filepath.Split(name)
	f, err := os.CreateTemp(filepath.Clean(dir+"."), "."+base+".*.new")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // nothing is left of it if it was renamed
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	return os.Rename(f.Name(), name)
}

// check has keepalived and nft read the files. Where the driver's file isn't the main
// one, that one is read, with all that it includes.
func (p *process) check(ctx context.Context, f files) error {
	if f.marks != nil {
		if out, err := p.exec(ctx, p.settings.NFT, "-c", "-f", p.settings.Marks); err != nil {
			return fmt.Errorf("nft refuses %s: %w: %.1000s", p.settings.Marks, err, out)
		}
	}
	out, err := p.exec(ctx, p.settings.Program, "-t", "-f", p.settings.Main)
	if err != nil && ctx.Err() == nil && harmless(out, err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("keepalived refuses the configuration: %w: %.2000s", err, strings.ReplaceAll(out, "\n", "; "))
	}
	return nil
}

// allDrained is what keepalived says of a virtual server whose backends all have the
// weight 0.
var allDrained = regexp.MustCompile(`^(Warning - quorum 1 for .* exceeds total weight of real servers 0, reducing quorum to 0|Virtual server .*: hysteresis 0 >= quorum 0; setting hysteresis to \d+)$`)

// harmless reports whether keepalived only remarks that all backends are drained.
func harmless(out string, err error) bool {
	var exit interface{ ExitCode() int }
	if !errors.As(err, &exit) || exit.ExitCode() != 5 {
		return false
	}
	for line := range strings.Lines(strings.TrimSpace(out)) {
		if !allDrained.MatchString(strings.TrimSpace(line)) {
			return false
		}
	}
	return out != ""
}

// run runs a program and returns what it says.
func run(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append(os.Environ(), "LC_ALL=C")
	c.WaitDelay = 5 * time.Second
	out, err := c.CombinedOutput()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return strings.TrimSpace(string(out)), err
}

// running returns the process that the pid file names, if it is keepalived, and when
// it began; else it says why there is none.
func (p *process) running() (pid int, began time.Time, why string) {
	raw, err := os.ReadFile(p.settings.PIDFile)
	if err != nil {
		return 0, began, fmt.Sprintf("there is no process in %s", p.settings.PIDFile)
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid <= 1 {
		return 0, began, fmt.Sprintf("%s doesn't hold the id of a process", p.settings.PIDFile)
	}
	// What had the id before may be gone, and somebody else have it now.
	folder := filepath.Join(p.proc, strconv.Itoa(pid))
	name, err := os.ReadFile(filepath.Join(folder, "comm"))
	if err != nil {
		return 0, began, fmt.Sprintf("process %d, which %s names, is gone", pid, p.settings.PIDFile)
	}
	if strings.TrimSpace(string(name)) != "keepalived" {
		return 0, began, fmt.Sprintf("process %d, which %s names, isn't keepalived but %q", pid, p.settings.PIDFile, strings.TrimSpace(string(name)))
	}
	began, err = p.began(folder)
	if err != nil {
		return 0, began, fmt.Sprintf("nothing can be learned of process %d: %v", pid, err)
	}
	return pid, began, ""
}

// ticks is how many the kernel counts in a second, for processes.
const ticks = 100

// began returns when a process began.
func (p *process) began(folder string) (time.Time, error) {
	raw, err := os.ReadFile(filepath.Join(folder, "stat"))
	if err != nil {
		return time.Time{}, err
	}
	// The second field may hold anything, in parentheses.
	_, rest, ok := cutLast(string(raw), ")")
	w := strings.Fields(rest)
	if !ok || len(w) < 20 {
		return time.Time{}, errors.New("its stat can't be read")
	}
	start, err := strconv.ParseInt(w[19], 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	raw, err = os.ReadFile(filepath.Join(p.proc, "stat"))
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(raw)) {
		if boot, ok := strings.CutPrefix(strings.TrimSpace(line), "btime "); ok {
			n, err := strconv.ParseInt(boot, 10, 64)
			return time.Unix(n, 0).Add(time.Duration(start) * (time.Second / ticks)), err
		}
	}
	return time.Time{}, errors.New("the kernel doesn't say when it began")
}

// stamp says what a process has loaded.
type stamp struct {
	Edition string    `json:"edition"`
	PID     int       `json:"pid"`
	Began   time.Time `json:"began"`
}

// stampFile is beside the driver's file, and its name doesn't end in .conf.
func (p *process) stampFile() string {
	dir, base := filepath.Split(p.settings.File)
	return dir + "." + base + ".loaded"
}

func (p *process) state(ctx context.Context, table string) (state, error) {
	if p.settings.ConfigOnly {
		return state{why: "config_only is set"}, nil
	}
	var out state
	pid, began, why := p.running()
	if out.running, out.why = pid != 0, why; out.running {
		raw, err := ownfile.Read(p.stampFile())
		if err != nil {
			return out, err
		}
		var s stamp
		if json.Unmarshal(raw, &s) == nil && s.PID == pid && s.Began.Equal(began) {
			out.edition = s.Edition
		} else if info, err := os.Stat(p.settings.File); err == nil {
			// The kernel counts the seconds of processes, and those of files, not
			// quite alike.
			out.current = began.After(info.ModTime().Add(2 * time.Second))
		}
	} else if _, err := os.Stat(filepath.Join(p.proc, "net", "ip_vs")); err != nil {
		out.why += "; and this kernel has no IPVS, or hasn't loaded it"
	}
	if marks, err := ownfile.Read(p.settings.Marks); err != nil || marks == nil {
		return out, err
	}
	var err error
	out.marks, err = p.marked(ctx, table, out.running)
	return out, err
}

// marked returns the edition of the ruleset in the kernel.
func (p *process) marked(ctx context.Context, table string, must bool) (string, error) {
	text, err := p.exec(ctx, p.settings.NFT, "list", "table", "inet", table)
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err == nil:
	case strings.Contains(text, "No such file or directory"), !must:
		return "", nil
	default:
		return "", fmt.Errorf("nft doesn't say what it has: %w: %.500s", err, text)
	}
	_, rest, ok := strings.Cut(text, "chain "+editionMark)
	if !ok {
		return "none", nil // somebody altered it
	}
	edition, _, _ := strings.Cut(rest, " ")
	return edition, nil
}

func (p *process) mark(ctx context.Context) error {
	if out, err := p.exec(ctx, p.settings.NFT, "-f", p.settings.Marks); err != nil {
		return fmt.Errorf("nft doesn't load %s: %w: %.1000s", p.settings.Marks, err, out)
	}
	return nil
}

func (p *process) reload(ctx context.Context, edition string, services []string) error {
	pid, began, why := p.running()
	if pid == 0 {
		return fmt.Errorf("keepalived is gone: %s", why)
	}
	target, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := target.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("tell keepalived, process %d, to load its files: %w", pid, err)
	}
	if err := p.wait(ctx, services); err != nil {
		return err
	}
	raw, err := json.Marshal(stamp{Edition: edition, PID: pid, Began: began})
	if err != nil {
		return err
	}
	return writeFile(p.stampFile(), raw, 0o644)
}

// wait waits until IPVS has the services.
func (p *process) wait(ctx context.Context, want []string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		list, err := p.services(ctx)
		missing := lacks(list, want)
		if len(missing) == 0 && (err == nil || len(want) == 0) {
			return nil
		}
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
				return cause
			}
			return errors.Join(fmt.Errorf("keepalived did not make %s within %v: see what it logged", strings.Join(missing, ", "), patience), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *process) services(ctx context.Context) ([]service, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(p.proc, "net", "ip_vs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("this kernel has no IPVS, or hasn't loaded it")
	}
	if err != nil {
		return nil, err
	}
	return parseServices(string(raw))
}
