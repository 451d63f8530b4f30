package netscaler

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// memory is what the driver must know of what it did. It is a file on the
// appliance, beside its certificates, and holds no secret.
type memory struct {
	Site string `json:"site"`
	// Deployment is what was applied last, and has been saved unless Pending.
	Deployment *plugins.Deployment    `json:"deployment,omitempty"`
	Drained    []plugins.DrainRequest `json:"drained,omitempty"`
	Pending    bool                   `json:"pending,omitempty"`

	number int // of the file
}

// notePrefix is what names of memories of a site begin with.
func notePrefix(owner plugins.Owner, site string) string { return owner.Prefix(site) + "memory_" }

// isNote reports whether a file is a memory of a site, or of any if site is empty.
func isNote(owner plugins.Owner, site, name string) (number int, ok bool) {
	if site == "" {
		anyone := strings.TrimSuffix(owner.Prefix("x"), "x_")
		i := strings.LastIndex(name, "_memory_")
		if !strings.HasPrefix(name, anyone) || i < len(anyone) || strings.Contains(name[len(anyone):i], "_") {
			return 0, false
		}
		name = name[i+len("_memory_"):]
	} else if name, ok = strings.CutPrefix(name, notePrefix(owner, site)); !ok {
		return 0, false
	}
	name, ok = strings.CutSuffix(name, ".json")
	number, err := strconv.Atoi(name)
	return number, ok && err == nil && number > 0
}

// recall reads the latest memory.
func (r *reader) recall(ctx context.Context, files []row) error {
	latest, number := "", 0
	for _, f := range files {
		name := f.text("filename")
		n, ok := isNote(r.owner, r.out.site, name)
		if !ok {
			continue
		}
		r.out.notes = append(r.out.notes, name)
		if n > number {
			latest, number = name, n
		}
	}
	if latest == "" {
		return nil
	}
	rows, err := r.list(ctx, "config", "systemfile", latest, "filelocation", folder)
	if err != nil || len(rows) == 0 {
		return err
	}
	b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(rows[0].text("filecontent")), ""))
	if err != nil {
		return fmt.Errorf("%s/%s: %w", folder, latest, err)
	}
	m := &memory{number: number}
	if err := json.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%s/%s isn't what this driver wrote there: %w; remove it, and apply again", folder, latest, err)
	}
	prefix := notePrefix(r.owner, m.Site)
	if r.out.site == "" && slices.ContainsFunc(r.out.notes, func(n string) bool { return !strings.HasPrefix(n, prefix) }) {
		return errors.New("the appliance serves several sites: name one in the driver's configuration")
	}
	r.out.memory, r.out.site = m, cmp.Or(r.out.site, m.Site)
	return nil
}

// remember writes a memory, and removes those before it. Nil removes all.
func (c *client) remember(ctx context.Context, owner plugins.Owner, f *found, m *memory) error {
	old := f.notes
	if m != nil {
		m.Site, m.number = f.site, int(time.Now().UnixMilli()) // later than all that were there
		if f.memory != nil {
			m.number = max(m.number, f.memory.number+1)
		}
		b, err := json.Marshal(m)
		if err != nil {
			return err
		}
		name := notePrefix(owner, f.site) + strconv.Itoa(m.number) + ".json"
		if err := c.upload(ctx, name, b); err != nil {
			return err
		}
		f.notes = []string{name}
	} else {
		f.notes = nil
	}
	f.memory = m
	for _, name := range old {
		if err := c.removeFile(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) upload(ctx context.Context, name string, content []byte) error {
	body := map[string]any{"systemfile": map[string]any{
		"filename": name, "filelocation": folder, "filecontent": base64.StdEncoding.EncodeToString(content), "fileencoding": "BASE64",
	}}
	return c.do(ctx, http.MethodPost, "config/systemfile", "write "+folder+"/"+name, body, nil)
}

func (c *client) removeFile(ctx context.Context, name string) error {
	path := "config/systemfile/" + url.PathEscape(name) + query([]string{"filelocation", folder})
	err := c.do(ctx, http.MethodDelete, path, "remove "+folder+"/"+name, nil, nil)
	if hasCode(err, codeMissing) {
		return nil
	}
	return err
}
