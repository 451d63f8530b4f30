package keepalived

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// A block is a part of a configuration in braces, as keepalived and nft both have
// it: a line that begins it, lines, and blocks.
type block struct {
	head   string
	note   string // for people, above it
	lines  []string
	blocks []block
}

func (b *block) add(format string, args ...any) {
	b.lines = append(b.lines, fmt.Sprintf(format, args...))
}

// body writes blocks.
func body(list []block) []byte {
	var out bytes.Buffer
	for i := range list {
		out.WriteByte('\n')
		list[i].write(&out, "")
	}
	return out.Bytes()
}

func (b *block) write(out *bytes.Buffer, indent string) {
	if b.note != "" {
		fmt.Fprintf(out, "%s# %s\n", indent, b.note)
	}
	fmt.Fprintf(out, "%s%s {\n", indent, b.head)
	for _, l := range b.lines {
		fmt.Fprintf(out, "%s    %s\n", indent, l)
	}
	for i := range b.blocks {
		b.blocks[i].write(out, indent+"    ")
	}
	fmt.Fprintf(out, "%s}\n", indent)
}

// parse reads blocks. Lines outside of any are in one without a head.
func parse(text string) []block {
	root := &block{}
	stack := []*block{root}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		top := stack[len(stack)-1]
		switch {
		case line == "" || line[0] == '#':
		case line == "}" && len(stack) > 1:
			stack = stack[:len(stack)-1]
			parent := stack[len(stack)-1]
			parent.blocks = append(parent.blocks, *top)
		case strings.HasSuffix(line, "{"):
			stack = append(stack, &block{head: strings.TrimSpace(strings.TrimSuffix(line, "{"))})
		default:
			top.lines = append(top.lines, line)
		}
	}
	// What isn't closed is there all the same.
	for len(stack) > 1 {
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		parent := stack[len(stack)-1]
		parent.blocks = append(parent.blocks, *top)
	}
	if len(root.lines) > 0 {
		return append([]block{{lines: root.lines}}, root.blocks...)
	}
	return root.blocks
}

// objects returns blocks as they are compared: those of the first level, and the
// servers in them.
func objects(list []block) []plugins.Object {
	var out []plugins.Object
	for i := range list {
		b := &list[i]
		kind, name, _ := strings.Cut(b.head, " ")
		if b.head == "" {
			kind, name = "nothing", "outside of all blocks"
		}
		if name == "" {
			name = kind
		}
		o := plugins.Object{Kind: kind, Name: name}
		f := fields{o: &o, seen: make(map[string]int)}
		f.lines("", b.lines)
		var inner []plugins.Object
		for k := range b.blocks {
			s := &b.blocks[k]
			server, isServer := strings.CutPrefix(s.head, "real_server ")
			if !isServer {
				f.block("", s)
				continue
			}
			x := plugins.Object{Kind: "real_server", Name: name + "/" + server}
			g := fields{o: &x, seen: make(map[string]int)}
			g.lines("", s.lines)
			for n := range s.blocks {
				g.block("", &s.blocks[n])
			}
			inner = append(inner, x)
		}
		out = append(append(out, o), inner...)
	}
	return out
}

// fields collects those of an object. A name that comes again is numbered.
type fields struct {
	o    *plugins.Object
	seen map[string]int
}

func (f *fields) add(name, value string) {
	if f.seen[name]++; f.seen[name] > 1 {
		name += " " + strconv.Itoa(f.seen[name])
	}
	if value == "" {
		value = "on"
	}
	f.o.Fields = append(f.o.Fields, plugins.Field{Name: name, Value: value})
}

func (f *fields) lines(prefix string, list []string) {
	for _, l := range list {
		name, value, _ := strings.Cut(l, " ")
		f.add(prefix+name, strings.TrimSpace(value))
	}
}

func (f *fields) block(prefix string, b *block) {
	f.add(prefix+b.head, "")
	prefix += b.head + " "
	f.lines(prefix, b.lines)
	for i := range b.blocks {
		f.block(prefix, &b.blocks[i])
	}
}
