package netscaler

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/aovlb/aovlb/plugins"
)

// take makes one change.
func (c *client) take(ctx context.Context, s *step) error {
	switch s.Action {
	case plugins.ActionAdd:
		return c.add(ctx, s.want)
	case plugins.ActionRemove:
		return c.remove(ctx, s.found)
	case plugins.ActionReplace:
		if s.found != nil {
			if err := c.remove(ctx, s.found); err != nil {
				return err
			}
		}
		return c.add(ctx, s.want)
	case plugins.ActionChange:
	}
	return c.change(ctx, s)
}

// body returns the fields of an item as NITRO takes them, without those that are
// not set.
func body(it *item, only func(prop) bool) map[string]any {
	out := make(map[string]any)
	for i, k := range it.kind.keys {
		if k == "ca" && it.keys[i] == false {
			continue
		}
		out[k] = it.keys[i]
	}
	for _, p := range it.props {
		if p.value != nil && p.value != "" && only(p) {
			out[p.name] = p.value
		}
	}
	return out
}

func (c *client) send(ctx context.Context, method, path string, it *item, fields map[string]any) error {
	name := it.kind.name
	verb := map[string]string{http.MethodPost: "make", http.MethodPut: "change"}[method]
	err := c.do(ctx, method, "config/"+path, fmt.Sprintf("%s %s %s", verb, name, it.name()), map[string]any{name: fields}, nil)
	var secrets []string
	for _, p := range it.props {
		if p.secret {
			secrets = append(secrets, plain(p.value))
		}
	}
	return hide(err, secrets)
}

func (c *client) add(ctx context.Context, it *item) error {
	name := it.kind.name
	switch {
	case it.kind.attached:
		return c.send(ctx, http.MethodPut, name, it, body(it, func(prop) bool { return true }))
	case it.kind.isBinding():
		return c.send(ctx, http.MethodPost, name, it, body(it, func(p prop) bool { return p.name != "graceful" }))
	}
	if err := c.send(ctx, http.MethodPost, name, it, body(it, func(p prop) bool { return p.name != "linkcertkeyname" })); err != nil {
		return err
	}
	if to := it.get("linkcertkeyname"); to != "" {
		return c.link(ctx, it, to)
	}
	return nil
}

// link has a certificate followed by its issuer's; nothing ends that.
func (c *client) link(ctx context.Context, it *item, to string) error {
	fields := map[string]any{"certkey": it.keys[0], "linkcertkeyname": to}
	if to == "" {
		delete(fields, "linkcertkeyname")
		return c.send(ctx, http.MethodPost, "sslcertkey?action=unlink", it, fields)
	}
	return c.send(ctx, http.MethodPost, "sslcertkey?action=link", it, fields)
}

func (c *client) remove(ctx context.Context, it *item) error {
	var args []string
	for i, k := range it.kind.keys {
		if slices.Contains(it.kind.args, k) && it.keys[i] != false {
			args = append(args, k, plain(it.keys[i]))
		}
	}
	path := "config/" + it.kind.name + "/" + url.PathEscape(plain(it.keys[0])) + query(args)
	err := c.do(ctx, http.MethodDelete, path, "remove "+it.kind.name+" "+it.name(), nil, nil)
	if hasCode(err, codeMissing) {
		return nil
	}
	return err
}

// change changes what differs.
func (c *client) change(ctx context.Context, s *step) error {
	differs := make(map[string]bool)
	for _, f := range s.Fields {
		differs[f.Name] = true
	}
	switch s.Kind {
	case "sslcertkey":
		return c.renew(ctx, s, differs)
	case "servicegroup_servicegroupmember_binding":
		return c.member(ctx, s.want, differs)
	case "gslbvserver_gslbservice_binding", "gslbvserver_domain_binding":
		return c.rebind(ctx, s, differs)
	}
	changed := body(s.want, func(p prop) bool { return differs[p.name] })
	for _, k := range s.want.kind.keys {
		delete(differs, k)
	}
	if len(changed) > len(s.want.kind.keys) {
		if err := c.send(ctx, http.MethodPut, s.Kind+"/"+url.PathEscape(plain(s.want.keys[0])), s.want, changed); err != nil {
			return err
		}
	}
	unset := map[string]any{s.want.kind.keys[0]: s.want.keys[0]}
	if s.Kind == "lbmonitor" {
		unset["type"] = s.want.keys[1]
	}
	n := len(unset)
	for _, name := range slices.Sorted(maps.Keys(differs)) {
		if s.want.get(name) == "" {
			unset[name] = true
		}
	}
	if len(unset) == n {
		return nil
	}
	return c.send(ctx, http.MethodPost, s.Kind+"?action=unset", s.want, unset)
}

// rebind changes what is said of a site's service, or of a name: that belongs to the
// virtual server. An address of last resort goes only with the name.
func (c *client) rebind(ctx context.Context, s *step, differs map[string]bool) error {
	if differs["backupip"] && s.want.get("backupip") == "" {
		if err := c.remove(ctx, s.found); err != nil {
			return err
		}
		return c.add(ctx, s.want)
	}
	fields := body(s.want, func(prop) bool { return true })
	path := "config/gslbvserver/" + url.PathEscape(s.want.parent())
	return c.do(ctx, http.MethodPut, path, "change "+s.Kind+" "+s.want.name(), map[string]any{"gslbvserver": fields}, nil)
}

// renew puts new files behind a certificate's name, which keeps what it is bound to.
func (c *client) renew(ctx context.Context, s *step, differs map[string]bool) error {
	if differs["linkcertkeyname"] && s.found.get("linkcertkeyname") != "" {
		if err := c.link(ctx, s.want, ""); err != nil {
			return err
		}
	}
	if differs["cert"] || differs["key"] {
		fields := body(s.want, func(p prop) bool { return p.name != "linkcertkeyname" })
		fields["nodomaincheck"] = true
		if err := c.send(ctx, http.MethodPost, "sslcertkey?action=update", s.want, fields); err != nil {
			return err
		}
	}
	if to := s.want.get("linkcertkeyname"); differs["linkcertkeyname"] && to != "" {
		return c.link(ctx, s.want, to)
	}
	return nil
}

// member changes a member of a servicegroup.
func (c *client) member(ctx context.Context, m *item, differs map[string]bool) error {
	if differs["weight"] {
		fields := body(m, func(p prop) bool { return p.name == "weight" })
		err := c.do(ctx, http.MethodPut, "config/servicegroup/"+url.PathEscape(m.parent()), "weigh "+m.name(), map[string]any{"servicegroup": fields}, nil)
		if err != nil {
			return err
		}
	}
	switch {
	case !differs["state"] && !differs["graceful"]:
		return nil
	case m.get("state") == "ENABLED":
		return c.enable(ctx, m)
	}
	return c.disable(ctx, m, m.get("graceful") != "NO", 0)
}

func (c *client) enable(ctx context.Context, m *item) error {
	fields := body(m, func(prop) bool { return false })
	return c.do(ctx, http.MethodPost, "config/servicegroup?action=enable", "enable "+m.name(), map[string]any{"servicegroup": fields}, nil)
}

// disable takes a member out of service: gracefully, when its clients have left or
// after delay seconds, if that isn't 0, and else now.
func (c *client) disable(ctx context.Context, m *item, graceful bool, delay int) error {
	fields := body(m, func(prop) bool { return false })
	fields["graceful"] = yesNo(graceful)
	if delay > 0 {
		fields["delay"] = delay
	}
	return c.do(ctx, http.MethodPost, "config/servicegroup?action=disable", "disable "+m.name(), map[string]any{"servicegroup": fields}, nil)
}
