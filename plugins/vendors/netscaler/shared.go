package netscaler

import (
	"context"
	"fmt"
	"slices"

	"github.com/aovlb/aovlb/plugins"
)

// spare leaves out the removals of what others use by now: a server that we named for an
// address, which NetScaler takes once, and the appliance's own GSLB site, of which there
// is one. NetScaler would take services of others away with them. They are removed once
// nobody uses them.
func (c *client) spare(ctx context.Context, o plugins.Owner, f *found, list []step) ([]step, error) {
	out := make([]step, 0, len(list))
	for _, s := range list {
		user := ""
		if s.Action == plugins.ActionRemove {
			var err error
			if user, err = c.userOf(ctx, o, f, s.found); err != nil {
				return nil, err
			}
		}
		again := func(x step) bool { return x.Action == plugins.ActionAdd && x.Kind == s.Kind && x.Name == s.Name }
		switch {
		case user == "":
			out = append(out, s)
		case slices.ContainsFunc(list, again):
			return nil, fmt.Errorf("%s %s would have to be made anew, and is used by %s, which isn't ours", s.Kind, s.Name, user)
		default:
			f.spared = append(f.spared, plugins.Diagnostic{
				Severity: plugins.SeverityInfo, Summary: fmt.Sprintf("%s %s stays: %s uses it, which isn't ours", s.Kind, s.Name, user), Detail: "it is removed once nobody does",
			})
		}
	}
	return out, nil
}

// userOf returns the name of something of others that needs an item of ours; empty if
// there is none.
func (c *client) userOf(ctx context.Context, o plugins.Owner, f *found, it *item) (string, error) {
	switch it.kind.name {
	case "gslbsite":
		return f.guests[it.name()], nil
	case "server":
	default:
		return "", nil
	}
	for _, by := range []struct{ kind, key string }{
		{"server_servicegroup_binding", "servicegroupname"}, {"server_service_binding", "servicename"}, {"server_gslbservice_binding", "servicename"},
	} {
		if by.kind == "server_gslbservice_binding" && !f.balances {
			continue // it would be refused
		}
		rows, err := c.list(ctx, "config", by.kind, it.name())
		if err != nil {
			return "", err
		}
		for _, x := range rows {
			if name := x.text(by.key); !o.Owns(f.site, name) {
				return name, nil
			}
		}
	}
	return "", nil
}
