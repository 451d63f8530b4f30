package haproxy

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
)

// paper is an HAProxy on paper: it loads what is written, without a process.
type paper struct {
	mu     sync.Mutex
	file   []byte
	loaded []byte
	states map[string]string
	proc   int
}

func (p *paper) readFile() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.file), nil
}

func (p *paper) writeFile(ctx context.Context, b []byte, _ bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	p.file = bytes.Clone(b)
	return nil
}

// lines of the sections that are served.
func (p *paper) sections() []section {
	c := new(content)
	for line := range strings.Lines(string(p.loaded)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			c.line("none", "none", line)
		}
	}
	return c.sections
}

func (p *paper) serving(ctx context.Context, prefix string) (edition string, others bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sections() {
		switch {
		case s.kind == "backend" && strings.HasPrefix(s.name, prefix+"edition_"):
			edition = s.name
		case strings.HasPrefix(s.name, prefix):
			others = true
		}
	}
	return edition, others, context.Cause(ctx)
}

func (p *paper) reload(ctx context.Context, _, _ string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	p.loaded, p.states = bytes.Clone(p.file), make(map[string]string)
	p.proc++
	return nil
}

func (p *paper) set(ctx context.Context, commands []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range commands {
		if w := strings.Fields(c); w[0] == "set" && w[1] == "server" {
			p.states[w[2]] = w[4]
		}
	}
	return context.Cause(ctx)
}

func (p *paper) workers(ctx context.Context) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return []string{"@!" + strconv.Itoa(p.proc)}, context.Cause(ctx)
}

func (p *paper) table(ctx context.Context, _ string) ([]row, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []row
	for _, s := range p.sections() {
		if s.kind == "frontend" {
			out = append(out, row{"pxname": s.name, "svname": "FRONTEND", "status": "OPEN"})
		}
		for _, l := range s.lines {
			name, value := keyword(l)
			server, ok := strings.CutPrefix(name, "server ")
			if !ok {
				continue
			}
			r := row{"pxname": s.name, "svname": server, "status": "UP", "weight": "1"}
			switch state := p.states[s.name+"/"+server]; {
			case state == "maint" || state == "" && strings.Contains(value, " disabled"):
				r["status"] = "MAINT"
			case state == "drain" || state == "" && strings.Contains(value, " weight 0"):
				r["status"] = "DRAIN"
			}
			out = append(out, r)
		}
	}
	return out, context.Cause(ctx)
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

func (c *counting) write() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		return errBroken
	}
	c.left--
	c.writes++
	return nil
}

func (c *counting) writeFile(ctx context.Context, b []byte, check bool) error {
	if err := c.write(); err != nil {
		return err
	}
	return c.box.writeFile(ctx, b, check)
}

func (c *counting) reload(ctx context.Context, prefix, edition string) error {
	if err := c.write(); err != nil {
		return err
	}
	return c.box.reload(ctx, prefix, edition)
}

func (c *counting) set(ctx context.Context, commands []string) error {
	if err := c.write(); err != nil {
		return err
	}
	return c.box.set(ctx, commands)
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
