package f5

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// Render writes the declaration, and the tmsh commands that do the same by hand.
// Secrets and certificates are placeholders.
func (d *Driver) Render(ctx context.Context, dep *plugins.Deployment) ([]plugins.File, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	c, s, _ := d.setUp.Peek()
	s = d.asked(s).usual()
	list := check(dep, c, s)
	if plugins.HasError(list) || dep == nil {
		return nil, fmt.Errorf("%w for a BIG-IP", plugins.ErrInvalid)
	}
	site := dep.Served(c.Site)
	r := &renderer{dep: dep, site: site, geo: dep.Geo, owner: c.Owner, settings: s, files: paper{}}
	w, err := r.all(tenantName(c.Owner, site.Name))
	if err != nil {
		return nil, fmt.Errorf("f5: %w", err)
	}
	var declaration bytes.Buffer
	enc := json.NewEncoder(&declaration)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(request(w.tenants())); err != nil {
		return nil, fmt.Errorf("f5: %w", err)
	}
	summary := "for AS3: POST it to /mgmt/shared/appsvcs/declare, first with ?controls.dryRun=true"
	if len(w.shared) > 0 {
		summary += "; what is in Common/Shared must be put among what others declared there, or AS3 removes theirs"
	}
	return []plugins.File{
		{Name: "aovlb.tmsh", Summary: "for a BIG-IP without AS3: look it over, then tmsh < aovlb.tmsh", Content: tmsh(w, list)},
		{Name: "aovlb.as3.json", Summary: summary, Content: declaration.Bytes()},
	}, nil
}

// tenants are what is written for AS3. The one that others have a part in holds only
// what is ours: it is to be put in among theirs.
func (w *wanted) tenants() map[string]map[string]any {
	out := map[string]map[string]any{w.name: w.tenant}
	if t := w.withShared(&found{common: new(stored)}, ""); t != nil {
		out[common] = t
	}
	return out
}

// tmsh writes the commands.
func tmsh(w *wanted, list []plugins.Diagnostic) []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# What a BIG-IP needs for Always On VPN, for tmsh. What is in <> is to be replaced.")
	for _, g := range list {
		if g.Severity != plugins.SeverityInfo {
			line("# %s", strings.Join(strings.Fields(g.String()), " "))
		}
	}
	line("")
	line("# A partition of its own keeps these objects apart from others.")
	line("create auth partition %s", w.name)
	if len(w.shared) > 0 {
		line("")
		line("# What names lead to. It takes BIG-IP DNS, which has this in /Common, beside that of others.")
		line("cd /Common")
		for _, p := range w.shared {
			line("# %s", p.note)
			for _, c := range p.tmsh {
				line("%s", c)
			}
		}
	}
	for i := range w.apps {
		a := &w.apps[i]
		line("")
		line("# %s", a.note)
		line("cd /%s", w.name)
		line("create sys folder %s", a.name)
		line("cd /%s/%s", w.name, a.name)
		for _, p := range a.parts {
			line("# %s", p.note)
			for _, c := range p.tmsh {
				line("%s", c)
			}
		}
	}
	line("")
	line("save sys config")
	return b.Bytes()
}
