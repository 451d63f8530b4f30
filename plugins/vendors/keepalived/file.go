package keepalived

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// A file of the driver has a mark in its first line, or in its second if the first
// names a program. That of keepalived has, in comments that begin with #%, what the
// driver must know of it: a memory.

// files are those of the driver; nil is none.
type files struct{ conf, marks, script []byte }

// memory is what a file says of itself.
type memory struct {
	// Deployment is what the file is for; nil if for nothing.
	Deployment *plugins.Deployment `json:"deployment"`
	// Drained are the backends that Drain was called for.
	Drained []plugins.DrainRequest `json:"drained,omitempty"`
}

// maxFile bounds what is read, in bytes.
const maxFile = 16 << 20

const memoryMark = "#%"

// errForeign says that a file is somebody else's.
var errForeign = errors.New("it wasn't written by this driver for this site: name another file, or empty it")

// ours reports whether the line of that number has the mark.
func ours(owner plugins.Owner, site string, raw []byte, line int) bool {
	lines := strings.SplitN(string(raw), "\n", line+2)
	if len(lines) <= line {
		return false
	}
	comment, ok := strings.CutPrefix(lines[line], "#")
	if !ok {
		return false
	}
	_, ok = owner.ReadMark(site, comment)
	return ok
}

// content is a file of keepalived's that was read.
type content struct {
	memory memory
	blocks []block
}

// writeConf returns the file for m.
func writeConf(owner plugins.Owner, site string, m memory, list []block) ([]byte, error) {
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n", owner.Mark(site, m.Deployment.Revision()))
	b.WriteString("# Written by aovlb, which undoes what is altered here.\n")
	text := base64.StdEncoding.EncodeToString(raw)
	for len(text) > 0 {
		n := min(len(text), 100)
		b.WriteString(memoryMark + " " + text[:n] + "\n")
		text = text[n:]
	}
	b.Write(body(list))
	return b.Bytes(), nil
}

// readConf reads the file. An empty one, or none, is one for nothing.
func readConf(owner plugins.Owner, site string, b []byte) (*content, error) {
	if len(bytes.TrimSpace(b)) == 0 {
		return &content{}, nil
	}
	if !ours(owner, site, b, 0) {
		return nil, errForeign
	}
	var text strings.Builder
	for line := range strings.Lines(string(b)) {
		if more, ok := strings.CutPrefix(strings.TrimSpace(line), memoryMark); ok {
			text.WriteString(strings.TrimSpace(more))
		}
	}
	c := &content{blocks: parse(string(b))}
	raw, err := base64.StdEncoding.DecodeString(text.String())
	if err == nil {
		err = json.Unmarshal(raw, &c.memory)
	}
	if err != nil {
		// What was served can't be known, but what is to be served can.
		c.memory = memory{}
	}
	return c, nil
}

// writeScript returns the script with a mark.
func writeScript(owner plugins.Owner, site string) []byte {
	first, rest, _ := strings.Cut(script, "\n")
	return []byte(first + "\n# " + owner.Mark(site, "") + "\n" + rest)
}
