package keepalived

import (
	"bytes"
	"strings"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/ownfile"
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

// content is a file of keepalived's that was read.
type content struct {
	memory memory
	blocks []block
}

// writeConf returns the file for m.
func writeConf(owner plugins.Owner, site string, m memory, list []block) ([]byte, error) {
	b, err := ownfile.Head(owner.Mark(site, m.Deployment.Revision()), "Written by aovlb, which undoes what is altered here.", m)
	if err != nil {
		return nil, err
	}
	return append(b, body(list)...), nil
}

// readConf reads the file. An empty one, or none, is one for nothing.
func readConf(owner plugins.Owner, site string, b []byte) (*content, error) {
	if len(bytes.TrimSpace(b)) == 0 {
		return &content{}, nil
	}
	if !ownfile.Ours(owner, site, b, 0) {
		return nil, ownfile.ErrForeign
	}
	c := &content{blocks: parse(string(b))}
	if err := ownfile.Recall(b, &c.memory); err != nil {
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
