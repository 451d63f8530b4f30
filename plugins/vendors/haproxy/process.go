package haproxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins/vendors/ownfile"
)

// process is an HAProxy that runs.
type process struct {
	settings Settings
}

// patience is how long HAProxy may take to answer, reload how long to load a file.
const (
	patience = 10 * time.Second
	reloads  = 30 * time.Second
)

// maxAnswer bounds an answer of HAProxy, in bytes.
const maxAnswer = 64 << 20

// readFile returns the driver's file; nothing if there is none.
func (p *process) readFile() ([]byte, error) { return ownfile.Read(p.settings.File) }

// writeFile replaces the driver's file at once, after HAProxy has checked it if
// check is true.
func (p *process) writeFile(ctx context.Context, b []byte, check bool) error {
	// HAProxy loads all files of a folder that end in .cfg.
	dir, name := filepath.Split(p.settings.File)
	f, err := os.CreateTemp(filepath.Clean(dir+"."), "."+name+".*.new")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // nothing is left of it if it was renamed
	mode := fs.FileMode(0o640)
	if info, err := os.Stat(p.settings.File); err == nil {
		mode = info.Mode().Perm()
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	if check {
		if err := p.check(ctx, f.Name()); err != nil {
			return err
		}
	}
	return os.Rename(f.Name(), p.settings.File)
}

// noListener is what HAProxy says of files without a listener. One that runs with a
// master socket loads them, as it must when everything is removed.
const noListener = "Configuration file has no error but will not start (no listener)"

// check has HAProxy read its files with another one in place of the driver's.
func (p *process) check(ctx context.Context, file string) error {
	args := []string{"-c"}
	for _, f := range append(append([]string(nil), p.settings.Beside...), file) {
		args = append(args, "-f", f)
	}
	ctx, cancel := context.WithTimeout(ctx, reloads)
	defer cancel()
	c := exec.CommandContext(ctx, p.settings.Program, args...)
	c.WaitDelay = patience
	out, err := c.CombinedOutput()
	if err == nil || strings.Contains(string(out), noListener) {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var said []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "[ALERT]") {
			said = append(said, strings.TrimSpace(strings.ReplaceAll(line, file, p.settings.File)))
		}
	}
	if len(said) == 0 {
		said = []string{strings.TrimSpace(string(out))}
	}
	return fmt.Errorf("HAProxy refuses the configuration: %w: %.2000s", err, strings.Join(said, "; "))
}

// ask has the master process do a command, and returns what it says.
func (p *process) ask(ctx context.Context, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", p.settings.Master)
	if err != nil {
		return "", fmt.Errorf("reach HAProxy's master process: %w; it must run with -W -S %s", err, p.settings.Master)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err = io.WriteString(c, command+"\n")
	if u, ok := c.(*net.UnixConn); ok && err == nil {
		err = u.CloseWrite() // it answers what was asked, and closes
	}
	if err != nil {
		return "", fmt.Errorf("ask HAProxy: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(bufio.NewReader(c), maxAnswer))
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("ask HAProxy: %w", err)
	}
	return string(b), nil
}

// workers returns the processes that serve: the newest first, then those that only
// end the connections they have.
func (p *process) workers(ctx context.Context) ([]string, error) {
	answer, err := p.ask(ctx, "show proc")
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(answer) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[1] == "worker" {
			if _, err := strconv.Atoi(f[0]); err == nil {
				out = append(out, "@!"+f[0])
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("HAProxy's master process has no worker: see what it logged")
	}
	return out, nil
}

// a row is a line of HAProxy's statistics, by its columns' names.
type row map[string]string

// table returns the statistics of one worker.
func (p *process) table(ctx context.Context, worker string) ([]row, error) {
	answer, err := p.ask(ctx, worker+" show stat")
	if err != nil {
		return nil, err
	}
	return parseTable(answer)
}

func parseTable(answer string) ([]row, error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(answer), "# ")
	if !ok {
		return nil, fmt.Errorf("HAProxy's statistics can't be read: %.200q", answer)
	}
	r := csv.NewReader(strings.NewReader(text))
	r.FieldsPerRecord, r.LazyQuotes = -1, true
	list, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("HAProxy's statistics can't be read: %w", err)
	}
	out := make([]row, 0, len(list))
	for _, f := range list[1:] {
		x := make(row, len(f))
		for i, v := range f {
			if i < len(list[0]) {
				x[list[0][i]] = v
			}
		}
		out = append(out, x)
	}
	return out, nil
}

// serving returns the edition that HAProxy serves; empty if it serves none of ours.
func (p *process) serving(ctx context.Context, prefix string) (edition string, others bool, err error) {
	list, err := p.workers(ctx)
	if err != nil {
		return "", false, err
	}
	answer, err := p.ask(ctx, list[0]+" show backend")
	if err != nil {
		return "", false, err
	}
	for line := range strings.Lines(answer) {
		name := strings.TrimSpace(line)
		if strings.HasPrefix(name, prefix+"edition_") {
			edition = name
		} else if strings.HasPrefix(name, prefix) {
			others = true
		}
	}
	return edition, others, nil
}

// reload has HAProxy load its files, and waits until it serves the edition.
func (p *process) reload(ctx context.Context, prefix, edition string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, reloads, fmt.Errorf("HAProxy did not load the file within %v: see what it logged", reloads))
	defer cancel()
	before, err := p.workers(ctx)
	if err != nil {
		return err
	}
	if _, err := p.ask(ctx, "reload"); err != nil {
		return err
	}
	for {
		now, err := p.workers(ctx)
		if err == nil && now[0] != before[0] {
			got, _, err := p.serving(ctx, prefix)
			if err == nil && got == edition {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// set has every worker do commands, and says which failed.
func (p *process) set(ctx context.Context, commands []string) error {
	list, err := p.workers(ctx)
	if err != nil {
		return err
	}
	for i, w := range list {
		for _, c := range commands {
			answer, err := p.ask(ctx, w+" "+c)
			if err != nil {
				return err
			}
			// An earlier worker needn't know what was added since, or may be gone.
			if text := string(bytes.TrimSpace([]byte(answer))); text != "" && i == 0 {
				return fmt.Errorf("HAProxy says to %q: %.200s", c, text)
			}
		}
	}
	return nil
}
