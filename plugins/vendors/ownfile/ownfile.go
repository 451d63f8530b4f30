package ownfile

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// Most is the greatest size of a file that is read, in bytes.
const Most = 16 << 20

// ErrForeign says that a file is somebody else's.
var ErrForeign = errors.New("it wasn't written by this driver for this site: name another file, or empty it")

// memoryMark is what comments begin with that hold a memory.
const memoryMark = "#%"

// Read returns a file; nil if there is none, which an empty one is not. It fails if the file has more than [Most]
// bytes.
func Read(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, Most+1))
	if err != nil {
		return nil, err
	}
	if len(b) > Most {
		return nil, fmt.Errorf("%s has more than %d bytes", name, Most)
	}
	return b, nil
}

// Ours reports whether the line of that number, counted from 0, has the mark of a site.
func Ours(owner plugins.Owner, site string, raw []byte, line int) bool {
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

// Site returns the name of the site that is served: that of the configuration, or of the
// only site of dep, or of the file.
func Site(c plugins.Config, dep *plugins.Deployment, raw []byte) string {
	if c.Site != "" {
		return c.Site
	}
	if s := dep.Site(""); s != nil {
		return s.Name
	}
	first, _, _ := strings.Cut(string(raw), "\n")
	for w := range strings.FieldsSeq(first) {
		if name, ok := strings.CutPrefix(w, "site="); ok {
			return name
		}
	}
	return ""
}

// Head returns what a file begins with: its mark, a note for people, and a memory, which
// is what JSON can hold.
func Head(mark, note string, memory any) ([]byte, error) {
	raw, err := json.Marshal(memory)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n# %s\n", mark, note)
	text := base64.StdEncoding.EncodeToString(raw)
	for len(text) > 0 {
		n := min(len(text), 100)
		b.WriteString(memoryMark + " " + text[:n] + "\n")
		text = text[n:]
	}
	return b.Bytes(), nil
}

// Recall reads the memory that [Head] wrote. Where it fails, memory may hold a part.
func Recall(raw []byte, memory any) error {
	var text strings.Builder
	for line := range strings.Lines(string(raw)) {
		if more, ok := strings.CutPrefix(strings.TrimSpace(line), memoryMark); ok {
			text.WriteString(strings.TrimSpace(more))
		}
	}
	b, err := base64.StdEncoding.DecodeString(text.String())
	if err != nil {
		return err
	}
	return json.Unmarshal(b, memory)
}

// Kept returns the drains of backends that a site of dep still has.
func Kept(list []plugins.DrainRequest, dep *plugins.Deployment, site string) []plugins.DrainRequest {
	if dep == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(list), func(r plugins.DrainRequest) bool { return len(dep.Site(site).Refs(r.BackendRef)) == 0 })
}

// Complete adds to want the fields that only found has, as not set, so that lines which
// were added by hand are differences.
func Complete(want, found []plugins.Object) []plugins.Object {
	for i := range want {
		w := &want[i]
		for k := range found {
			f := &found[k]
			if f.Kind != w.Kind || f.Name != w.Name {
				continue
			}
			for _, field := range f.Fields {
				if !slices.ContainsFunc(w.Fields, func(x plugins.Field) bool { return x.Name == field.Name }) {
					w.Fields = append(w.Fields, plugins.Field{Name: field.Name})
				}
			}
		}
	}
	return want
}
