package builtin

import (
	"slices"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// What clients notice of a change.
const (
	effectReplaceUDP = "the listener is replaced: its clients go on"
	effectReplaceTCP = "the listener is replaced: open streams stay until they end"
	effectRemoved    = "its clients may stay for a while, new ones are refused"
	effectMoved      = "its clients move to other backends at their next packet"
	effectRADIUS     = "clients, servers and secrets are exchanged while it serves; another mode replaces its listeners"
	effectAddress    = "it is another server: its clients move at their next packet"
)

// groupFields are those that a group is made of; see groupParts.
var groupFields = []string{"pool", "affinity", "client_address", "idle", "half_open", "limits"}

// effects says of each change what clients notice of it here, and adds the
// listeners that have to be replaced because their group is.
func effects(now *plugins.Site, changes []plugins.Change) []plugins.Change {
	var out []plugins.Change
	told := make(map[string]bool)
	for _, c := range changes {
		parent, _, _ := strings.Cut(c.Name, "/")
		switch {
		case c.Kind == "backend" && c.Action == plugins.ActionRemove:
			c.Effect = effectMoved
		case c.Kind == "backend" && c.Action == plugins.ActionChange && has(c, "address"):
			c.Action, c.Effect = plugins.ActionReplace, effectAddress
		case c.Kind == "listener" && c.Action == plugins.ActionRemove:
			c.Effect = effectRemoved
		case c.Kind == "listener" && c.Action == plugins.ActionChange:
			c.Action, c.Effect = plugins.ActionReplace, replaced(now, parent, c.Name)
		case c.Kind == "group" && c.Action == plugins.ActionChange && has(c, groupFields...):
			c.Action = plugins.ActionReplace
		case c.Kind == "group" && c.Action == plugins.ActionChange && has(c, "radius"):
			c.Effect = effectRADIUS
		}
		out = append(out, c)
		told[c.Kind+c.Name] = true
	}
	for _, c := range out {
		if c.Kind != "group" || c.Action != plugins.ActionReplace {
			continue
		}
		for _, l := range listenersOf(now, c.Name) {
			name := c.Name + "/" + l.Name
			if !told["listener"+name] {
				out = append(out, plugins.Change{
					Action: plugins.ActionReplace, Kind: "listener", Name: name, Effect: replaced(now, c.Name, name),
				})
			}
		}
	}
	return out
}

func has(c plugins.Change, fields ...string) bool {
	return slices.ContainsFunc(c.Fields, func(f plugins.FieldChange) bool { return slices.Contains(fields, f.Name) })
}

func listenersOf(s *plugins.Site, group string) []plugins.Listener {
	for i := range s.Groups {
		if s.Groups[i].Name == group {
			return s.Groups[i].Listeners
		}
	}
	return nil
}

func replaced(s *plugins.Site, group, name string) string {
	for _, l := range listenersOf(s, group) {
		if group+"/"+l.Name == name && l.Protocol.Network() == "tcp" {
			return effectReplaceTCP
		}
	}
	return effectReplaceUDP
}
