package haproxy

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// tables holds the statistics of HAProxy's processes, the newest first, by section
// and server.
type tables []map[[2]string]row

func readTables(ctx context.Context, b box) (tables, error) {
	list, err := b.workers(ctx)
	if err != nil {
		return nil, err
	}
	var out tables
	for i, w := range list {
		rows, err := b.table(ctx, w)
		if err != nil {
			if i > 0 && ctx.Err() == nil {
				continue // an earlier process has ended meanwhile
			}
			return nil, err
		}
		t := make(map[[2]string]row, len(rows))
		for _, r := range rows {
			t[[2]string{r["pxname"], r["svname"]}] = r
		}
		out = append(out, t)
	}
	return out, nil
}

// sum adds up a column over all processes.
func (t tables) sum(proxies []string, server, column string) uint64 {
	var n uint64
	for _, one := range t {
		for _, p := range proxies {
			n += number(one[[2]string{p, server}][column])
		}
	}
	return n
}

func number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0 // an empty column
	}
	return n
}

// Stats returns what HAProxy counts. Clients are connections, also those of
// processes that only end theirs.
func (d *Driver) Stats(ctx context.Context) (*plugins.Stats, error) {
	c, s, b, err := d.setup(ctx)
	if err != nil {
		return nil, err
	}
	f, err := find(ctx, c, s, b, nil)
	if err != nil {
		return nil, err
	}
	out := &plugins.Stats{At: time.Now(), Site: f.site}
	site := f.memory.Deployment.Site(f.site)
	if site == nil {
		return out, nil
	}
	t, err := readTables(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("haproxy: %w", err)
	}
	for i := range site.Pools {
		out.Pools = append(out.Pools, poolStats(c, site, &site.Pools[i], t, f.memory.Drained))
	}
	for i := range site.Groups {
		g := &site.Groups[i]
		out.Groups = append(out.Groups, plugins.GroupStats{Name: g.Name, Pool: g.Pool})
		for k := range g.Listeners {
			out.Listeners = append(out.Listeners, listenerStats(c, site, g, &g.Listeners[k], t))
		}
	}
	return out, nil
}

func listenerStats(c plugins.Config, s *plugins.Site, g *plugins.Group, l *plugins.Listener, t tables) plugins.ListenerStats {
	name := []string{c.Owner.Name(s.Name, 0, g.Name, l.Name)}
	out := plugins.ListenerStats{Name: l.Name, Group: g.Name, Protocol: l.Protocol, Address: l.Address, State: "failed"}
	r, ok := t[0][[2]string{name[0], "FRONTEND"}]
	switch {
	case !ok:
		out.Error = "HAProxy doesn't serve it"
	case r["status"] == "OPEN":
		out.State = "open"
	default:
		out.Error = "HAProxy says " + r["status"]
	}
	out.Active, out.Total = new(int64(t.sum(name, "FRONTEND", "scur"))), new(t.sum(name, "FRONTEND", "stot"))
	out.In, out.Out = &plugins.Traffic{Bytes: t.sum(name, "FRONTEND", "bin")}, &plugins.Traffic{Bytes: t.sum(name, "FRONTEND", "bout")}
	out.Dropped = map[string]uint64{"denied": t.sum(name, "FRONTEND", "dcon")}
	return out
}

func poolStats(c plugins.Config, s *plugins.Site, p *plugins.Pool, t tables, drained []plugins.DrainRequest) plugins.PoolStats {
	out := plugins.PoolStats{Name: p.Name, Priority: lowest(p)}
	proxies := proxiesOf(c, s, p)
	var weights []float64
	up := 0
	for i := range p.Backends {
		b := &p.Backends[i]
		var r row
		if len(proxies) > 0 {
			r = t[0][[2]string{proxies[0], b.Name}]
		}
		x := backendStats(p, b, r)
		x.Active, x.Total = new(int64(t.sum(proxies, b.Name, "scur"))), new(t.sum(proxies, b.Name, "stot"))
		x.In, x.Out = &plugins.Traffic{Bytes: t.sum(proxies, b.Name, "bin")}, &plugins.Traffic{Bytes: t.sum(proxies, b.Name, "bout")}
		for _, d := range drained {
			if d.Pool != p.Name || d.Backend != b.Name {
				continue
			}
			x.DrainDeadline = d.Deadline
			if x.State == "up" {
				x.State = "draining"
			}
		}
		w := 0.0
		if x.State == "up" {
			w = float64(number(r["weight"]))
			up++
		}
		weights = append(weights, w)
		out.Backends = append(out.Backends, x)
	}
	share(out.Backends, weights)
	out.Panic = up == 0 && len(checksOf(p)) > 0 && disbelieves(p)
	return out
}

// share divides new clients among those of the first priority that is up.
func share(list []plugins.BackendStats, weights []float64) {
	first, found := 0, false
	for i := range list {
		if weights[i] > 0 && (!found || list[i].Priority < first) {
			first, found = list[i].Priority, true
		}
	}
	total := 0.0
	for i := range list {
		if list[i].Priority == first {
			total += weights[i]
		}
	}
	for i := range list {
		if total > 0 && list[i].Priority == first {
			list[i].Share = weights[i] / total
		}
	}
}

func backendStats(p *plugins.Pool, b *plugins.Backend, r row) plugins.BackendStats {
	x := plugins.BackendStats{Name: b.Name, Address: b.Address, Priority: b.Priority, MaxClients: b.MaxClients, State: "down"}
	status := r["status"]
	switch {
	case r == nil:
		x.Cause = "no listener uses it, or HAProxy doesn't serve it"
	case strings.HasPrefix(status, "UP"), status == "no check":
		x.State = "up"
	case strings.HasPrefix(status, "DRAIN"), strings.HasPrefix(status, "NOLB"):
		x.State = "draining"
	case strings.HasPrefix(status, "MAINT"):
		x.Cause = "taken out of service"
	default:
		x.Cause = strings.TrimSpace(r["check_desc"] + " " + r["last_chk"])
	}
	if n := number(r["lastchg"]); n > 0 {
		x.Since = time.Now().Add(-time.Duration(n) * time.Second)
	}
	status = r["check_status"]
	for _, c := range checksOf(p) {
		k := plugins.CheckStats{Name: c.Name, Known: status != "" && status != "INI", Passing: strings.HasSuffix(status, "OK")}
		k.Took, k.Failures = plugins.Duration(number(r["check_duration"]))*plugins.Duration(time.Millisecond), number(r["chkfail"])
		if k.Known && !k.Passing {
			k.LastError = strings.TrimSpace(status + " " + r["last_chk"])
		}
		x.Checks = append(x.Checks, k)
	}
	return x
}
