package kemp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// order puts changes in the order in which the LoadMaster takes them, and says what
// clients notice. A virtual service takes what is within it along when it goes, and
// must be gone before its certificate can go; the memory goes last.
func order(list []plugins.Change) []plugins.Change {
	var made, removed []plugins.Change
	gone := map[string]bool{}
	for _, c := range list {
		if c.Action == plugins.ActionRemove && (c.Kind == kindService || c.Kind == kindName || c.Kind == kindAddress) {
			gone[c.Name] = true
		}
	}
	for _, c := range list {
		c.Effect = effect(c)
		switch {
		case c.Action != plugins.ActionRemove:
			made = append(made, c)
		case (c.Kind == kindServer || c.Kind == kindTLS) && gone[parent(c)]:
		case c.Kind == kindAddress && gone[strings.Fields(c.Name)[0]], c.Kind == kindPlace && (gone[strings.Fields(c.Name)[0]] || gone[strings.Join(strings.Fields(c.Name)[:2], " ")]):
		default:
			removed = append(removed, c)
		}
	}
	rank := func(c plugins.Change) int {
		return slices.Index([]string{kindPlace, kindAddress, kindName, kindServer, kindTLS, kindService, kindACME, kindCertificate, kindMemory}, c.Kind)
	}
	slices.SortStableFunc(removed, func(a, b plugins.Change) int { return rank(a) - rank(b) })
	// The memory is kept once all else is done.
	last := slices.IndexFunc(made, func(c plugins.Change) bool { return c.Kind == kindMemory })
	if last >= 0 {
		removed = append(removed, made[last])
		made = slices.Delete(made, last, last+1)
	}
	return append(made, removed...)
}

// parent returns the name of the virtual service that a change is within.
func parent(c plugins.Change) string {
	if c.Kind == kindServer {
		return c.Name[:max(strings.LastIndexByte(c.Name, ' '), 0)]
	}
	return c.Name
}

// effect says what clients notice.
func effect(c plugins.Change) string {
	changed := func(names ...string) bool {
		return c.Action == plugins.ActionChange && slices.ContainsFunc(c.Fields, func(f plugins.FieldChange) bool { return slices.Contains(names, f.Name) })
	}
	switch c.Kind {
	case kindService:
		switch {
		case c.Action == plugins.ActionRemove:
			return "its clients are cut off"
		case changed("Transparent", "ForceL7"):
			return "clients may have to connect anew"
		case changed("Persist", "FollowVSID"):
			return "clients may move to another backend when they come again"
		}
	case kindName:
		if c.Action == plugins.ActionRemove {
			return "the name isn't answered any more"
		}
	case kindServer:
		if c.Action == plugins.ActionRemove {
			return "its clients move to other backends"
		}
	case kindCertificate, kindACME:
		if c.Action == plugins.ActionChange {
			return "new connections are shown the new certificate"
		}
	case kindTLS:
		return "new connections only"
	}
	return ""
}

// change makes one change.
func (d *Driver) change(ctx context.Context, box *client, w *work, x plugins.Change) error {
	remove := x.Action == plugins.ActionRemove
	switch x.Kind {
	case kindCertificate:
		return w.certificate(ctx, box, x, remove)
	case kindACME:
		return w.acme(ctx, box, x, remove)
	case kindService:
		return w.service(ctx, box, x, remove)
	case kindTLS:
		at, network, err := whereOf(x.Name)
		if err != nil {
			return err
		}
		p := where(at, network)
		if fieldParams(p, x.Fields); remove {
			p["SSLAcceleration"], p["SSLReencrypt"], p["CertFile"] = flag(false), flag(false), ""
		}
		_, err = box.do(ctx, "modvs", p)
		return err
	case kindServer:
		return w.server(ctx, box, x, remove)
	case kindName, kindAddress, kindPlace:
		return w.name(ctx, box, x, remove)
	case kindMemory:
		if remove {
			return d.forget(ctx, box, w.rules)
		}
		return d.remember(ctx, box, w.found, &memory{Revision: w.dep.Revision(), Site: remembered(w.renderer.site), Drained: w.drained, Geo: rememberedGeo(w.renderer.geo), Names: ourNames(w.renderer.geo)})
	}
	return errors.New("nobody knows what this is")
}

// whereOf reads the address from the name of a virtual service.
func whereOf(name string) (netip.AddrPort, string, error) {
	addr, network, ok := strings.Cut(name, "/")
	at, err := netip.ParseAddrPort(addr)
	if err != nil || !ok {
		return at, "", fmt.Errorf("%q has no address", name)
	}
	return at, network, nil
}

// fieldParams adds fields to a command.
func fieldParams(p params, fields []plugins.FieldChange) {
	for _, f := range fields {
		switch {
		case slices.Contains(flags, f.Name):
			p[f.Name] = flag(isYes(f.After))
		case f.Name == "MaxConnsLimit" && f.After == "":
			p[f.Name] = "0"
		default:
			p[f.Name] = f.After
		}
	}
}

func (w *work) certificate(ctx context.Context, box *client, x plugins.Change, remove bool) error {
	if remove {
		_, err := box.do(ctx, "delcert", params{"cert": x.Name})
		return err
	}
	for i := range w.renderer.site.Certificates {
		c := &w.renderer.site.Certificates[i]
		if w.renderer.certificateName(c) != x.Name {
			continue
		}
		b, err := bundle(c)
		if err != nil {
			return err
		}
		_, err = box.do(ctx, "addcert", params{"cert": x.Name, "replace": flag(x.Action != plugins.ActionAdd), "data": b})
		return err
	}
	return errors.New("the deployment has no such certificate")
}

// acme has the LoadMaster get a certificate. One for another name is made anew: it
// can't be altered, and isn't used by a service while it is away.
func (w *work) acme(ctx context.Context, box *client, x plugins.Change, remove bool) error {
	if remove {
		_, err := box.do(ctx, "delacmecert", params{"cert": x.Name, "acmetype": letsEncrypt})
		return err
	}
	services := w.renderer.services()
	for i := range w.renderer.site.Certificates {
		c := &w.renderer.site.Certificates[i]
		if w.renderer.certificateName(c) != x.Name {
			continue
		}
		index, err := indexOf(ctx, box, w.found, w.renderer.prover(services, c).name())
		if err != nil {
			return err
		}
		if x.Action != plugins.ActionAdd {
			if err := w.release(ctx, box, x.Name); err != nil {
				return err
			}
		}
		size := "2048"
		if c.ACME.KeyType == plugins.KeyRSA4096 {
			size = "4096"
		}
		_, err = box.do(ctx, "addacmecert", params{"cert": x.Name, "cn": c.ACME.Host, "vid": index, "key_size": size, "acmetype": letsEncrypt})
		if err != nil || x.Action == plugins.ActionAdd {
			return err
		}
		return w.show(ctx, box, x.Name, x.Name)
	}
	return errors.New("the deployment has no such certificate")
}

// letsEncrypt is the type of account that certificates come by.
const letsEncrypt = "1"

// release removes a certificate that services use: these show the LoadMaster's own
// until they are given the new one.
func (w *work) release(ctx context.Context, box *client, name string) error {
	if err := w.show(ctx, box, name, ""); err != nil {
		return err
	}
	_, err := box.do(ctx, "delacmecert", params{"cert": name, "acmetype": letsEncrypt})
	return err
}

// show has the services that showed a certificate when the work began show another.
func (w *work) show(ctx context.Context, box *client, name, other string) error {
	for _, s := range w.services {
		if !s.ours || s.node.get("CertFile") != name {
			continue
		}
		p := where(s.at, s.network)
		p["CertFile"] = other
		if _, err := box.do(ctx, "modvs", p); err != nil {
			return err
		}
	}
	return nil
}

// indexOf returns the index that a service has now.
func indexOf(ctx context.Context, box *client, f *found, name string) (string, error) {
	list, err := box.ask(ctx, "listvs", nil)
	if err != nil {
		return "", err
	}
	now := &found{prefix: f.prefix}
	now.readServices(list)
	s := now.byName(name)
	if s == nil {
		return "", fmt.Errorf("there is no virtual service %s", name)
	}
	return s.index, nil
}

func (w *work) service(ctx context.Context, box *client, x plugins.Change, remove bool) error {
	at, network, err := whereOf(x.Name)
	if err != nil {
		return err
	}
	if remove {
		_, err := box.do(ctx, "delvs", where(at, network))
		return err
	}
	if x.Action == plugins.ActionAdd {
		// It bears our mark from the beginning: what is wrong with a later
		// parameter would leave one without.
		p := where(at, network)
		p["VStype"] = "gen"
		fieldParams(p, slices.DeleteFunc(slices.Clone(x.Fields), func(f plugins.FieldChange) bool { return f.Name != "NickName" }))
		if _, err := box.do(ctx, "addvs", p); err != nil {
			return err
		}
	}
	p := where(at, network)
	fieldParams(p, x.Fields)
	if leader, ok := p["FollowVSID"].(string); ok {
		p["FollowVSID"] = "0"
		if leader != "" {
			if p["FollowVSID"], err = indexOf(ctx, box, w.found, leader); err != nil {
				return err
			}
		}
	}
	_, err = box.do(ctx, "modvs", p)
	return err
}

func (w *work) server(ctx context.Context, box *client, x plugins.Change, remove bool) error {
	service := parent(x)
	at, network, err := whereOf(service)
	if err != nil {
		return err
	}
	rs, err := netip.ParseAddrPort(x.Name[len(service)+1:])
	if err != nil {
		return fmt.Errorf("%q has no address", x.Name)
	}
	p := where(at, network)
	p["rs"], p["rsport"] = rs.Addr().String(), fmt.Sprint(rs.Port())
	command := "modrs"
	switch {
	case remove:
		command = "delrs"
	case x.Action == plugins.ActionAdd:
		command = "addrs"
		p["Forward"] = "nat"
		if w.renderer.settings.RemoteServers {
			p["non_local"] = flag(true)
		}
	}
	if !remove {
		for _, f := range x.Fields {
			p[f.Name] = f.After
			if f.Name == "Enable" {
				p[f.Name] = flag(isYes(f.After))
			}
		}
	}
	_, err = box.do(ctx, command, p)
	return err
}
