package f5

import (
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
)

// icontrol is iControl REST, below /mgmt/tm.
func (b *Box) icontrol(r *http.Request, at string) (int, any, *fault) {
	switch {
	case at == "ltm/virtual" && r.Method == http.MethodGet:
		return b.listVirtuals(r)
	case at == "ltm/pool" && r.Method == http.MethodGet:
		return b.listPools(r)
	case at == "sys/connection" && r.Method == http.MethodDelete:
		return b.deleteFlows(r)
	case at == "ltm/persistence/persist-records" && r.Method == http.MethodDelete:
		return b.deletePersistence(r)
	case at == "sys/config" && r.Method == http.MethodPost:
		in, f := read(r, "command", "options")
		if f != nil || in["command"] != "save" {
			return 0, nil, refuse(400, "unknown command")
		}
		b.write(func() { b.saved = true })
		return 200, map[string]any{"kind": "tm:sys:config:savestate", "command": "save"}, nil
	}
	part := strings.Split(at, "/")
	if part[0] == "gtm" && r.Method == http.MethodGet {
		return b.listNames(r, part[1:])
	}
	switch {
	case len(part) == 4 && part[0] == "ltm" && part[1] == "virtual" && part[3] == "stats" && r.Method == http.MethodGet:
		return b.virtualStats(tildes(part[2]))
	case len(part) == 5 && part[0] == "ltm" && part[1] == "pool" && part[3] == "members" && part[4] == "stats" && r.Method == http.MethodGet:
		return b.memberStats(tildes(part[2]))
	case len(part) == 5 && part[0] == "ltm" && part[1] == "pool" && part[3] == "members" && r.Method == http.MethodPatch:
		return b.patchMember(r, tildes(part[2]), tildes(part[4]))
	}
	return 0, nil, refuse(404, "01020036:3: The requested object (%s) was not found.", at)
}

func tildes(s string) string { return strings.ReplaceAll(s, "~", "/") }

// partition returns the one that a filter asks for.
func partition(r *http.Request, allowed ...string) (string, *fault) {
	if f := query(r, append(allowed, "$filter")...); f != nil {
		return "", f
	}
	p, ok := strings.CutPrefix(r.URL.Query().Get("$filter"), "partition eq ")
	if !ok {
		return "", refuse(400, "this one wants a filter by partition")
	}
	return p, nil
}

// place divides a path into partition, folder and name.
func place(p string) map[string]any {
	part := strings.Split(strings.Trim(p, "/"), "/")
	out := map[string]any{"name": part[len(part)-1], "partition": part[0], "fullPath": p}
	if len(part) > 2 {
		out["subPath"] = path.Join(part[1 : len(part)-1]...)
	}
	return out
}

func (b *Box) listVirtuals(r *http.Request) (int, any, *fault) {
	p, f := partition(r)
	if f != nil {
		return 0, nil, f
	}
	items := []any{}
	for _, k := range slices.Sorted(maps.Keys(b.virtuals)) {
		v := b.virtuals[k]
		if !strings.HasPrefix(k, "/"+p+"/") {
			continue
		}
		x := place(k)
		x["destination"], x["ipProtocol"], x["connectionLimit"] = v.Destination, v.Protocol, v.Limit
		x["sourceAddressTranslation"] = map[string]any{"type": v.Snat}
		if v.Pool != "" {
			x["pool"] = v.Pool
		}
		if v.Persist != "" {
			x["persist"] = []any{map[string]any{"name": v.Persist, "partition": p, "tmDefault": "yes"}}
		}
		if v.Disabled {
			x["disabled"] = true
		} else {
			x["enabled"] = true
		}
		items = append(items, x)
	}
	return 200, map[string]any{"kind": "tm:ltm:virtual:virtualcollectionstate", "items": items}, nil
}

func (b *Box) listPools(r *http.Request) (int, any, *fault) {
	p, f := partition(r, "expandSubcollections")
	if f != nil {
		return 0, nil, f
	}
	out := map[string]any{"kind": "tm:ltm:pool:poolcollectionstate"}
	var items []any
	for _, k := range slices.Sorted(maps.Keys(b.pools)) {
		v := b.pools[k]
		if !strings.HasPrefix(k, "/"+p+"/") {
			continue
		}
		x := place(k)
		x["loadBalancingMode"], x["minActiveMembers"], x["slowRampTime"] = v.Method, v.Active, v.Ramp
		ref := map[string]any{"link": "https://localhost/mgmt/tm/ltm/pool/x/members", "isSubcollection": true}
		if r.URL.Query().Get("expandSubcollections") == "true" {
			list := []any{}
			for _, m := range v.Members {
				list = append(list, map[string]any{
					"name": m.Name, "partition": "Common", "fullPath": "/Common/" + m.Name, "address": m.Address, "ratio": m.Ratio, "priorityGroup": m.Priority,
					"connectionLimit": m.Limit, "session": m.Session, "state": m.State,
				})
			}
			ref["items"] = list
		}
		x["membersReference"] = ref
		items = append(items, x)
	}
	if items != nil { // a real one leaves out an empty list
		out["items"] = items
	}
	return 200, out, nil
}

func (b *Box) patchMember(r *http.Request, pool, member string) (int, any, *fault) {
	in, f := read(r, "session", "state", "ratio", "priorityGroup", "connectionLimit")
	if f != nil {
		return 0, nil, f
	}
	p := b.pools[pool]
	if p == nil {
		return 0, nil, refuse(404, "01020036:3: The requested Pool (%s) was not found.", pool)
	}
	i := slices.IndexFunc(p.Members, func(m *Member) bool { return "/Common/"+m.Name == member })
	if i < 0 {
		return 0, nil, refuse(404, "01020036:3: The requested Pool Member (%s %s) was not found.", pool, member)
	}
	m := p.Members[i]
	session, state := text(in["session"], ""), text(in["state"], "")
	if session != "user-enabled" && session != "user-disabled" || state != "user-up" && state != "user-down" {
		return 0, nil, refuse(400, "invalid property value session:%q state:%q", session, state)
	}
	b.write(func() {
		b.saved = false
		m.Session, m.State = "monitor-enabled", "up"
		if session == "user-disabled" {
			m.Session = session
		}
		if state == "user-down" {
			m.State = state
		}
	})
	return 200, map[string]any{"name": m.Name, "session": m.Session, "state": m.State}, nil
}

// options reads what tmsh would be given: pairs of a word and a value.
func options(r *http.Request, allowed ...string) (map[string]string, *fault) {
	if f := query(r, "options"); f != nil {
		return nil, f
	}
	words := strings.Fields(r.URL.Query().Get("options"))
	if len(words) == 0 || len(words)%2 != 0 {
		return nil, refuse(400, "this would delete everything")
	}
	out := make(map[string]string)
	for i := 0; i < len(words); i += 2 {
		if !slices.Contains(allowed, words[i]) {
			return nil, refuse(400, "Syntax Error: %q unknown property", words[i])
		}
		out[words[i]] = words[i+1]
	}
	return out, nil
}

func (b *Box) deleteFlows(r *http.Request) (int, any, *fault) {
	o, f := options(r, "cs-server-addr", "cs-server-port", "ss-server-addr", "ss-server-port")
	if f != nil {
		return 0, nil, f
	}
	virtual, server := o["cs-server-addr"]+":"+o["cs-server-port"], o["ss-server-addr"]+":"
	b.write(func() {
		b.flows = slices.DeleteFunc(b.flows, func(x Flow) bool { return x.Virtual == virtual && strings.HasPrefix(x.Server, server) })
	})
	return 200, map[string]any{"kind": "tm:sys:connection:connectionstats"}, nil
}

func (b *Box) deletePersistence(r *http.Request) (int, any, *fault) {
	o, f := options(r, "virtual", "node-addr", "node-port", "pool", "key", "mode")
	if f != nil {
		return 0, nil, f
	}
	if b.virtuals[o["virtual"]] == nil {
		return 0, nil, refuse(404, "01020036:3: The requested Virtual Server (%s) was not found.", o["virtual"])
	}
	b.write(func() {})
	return 200, map[string]any{}, nil
}

func entries(list map[string]map[string]any) map[string]any {
	out := make(map[string]any)
	for k, v := range list {
		out["https://localhost/mgmt/tm/ltm/"+k+"/stats"] = map[string]any{"nestedStats": map[string]any{"kind": "stats", "entries": v}}
	}
	return map[string]any{"kind": "stats", "generation": 1, "entries": out}
}

func value(n int) map[string]any    { return map[string]any{"value": n} }
func says(s string) map[string]any  { return map[string]any{"description": s} }
func bits(bytes int) map[string]any { return value(bytes * 8) }
func traffic(x map[string]any, side string, flows int) {
	x[side+".curConns"], x[side+".totConns"], x[side+".maxConns"] = value(flows), value(flows*3), value(flows)
	x[side+".bitsIn"], x[side+".bitsOut"] = bits(flows*1000), bits(flows*4000)
	x[side+".pktsIn"], x[side+".pktsOut"] = value(flows*10), value(flows*20)
}

func (b *Box) virtualStats(at string) (int, any, *fault) {
	v := b.virtuals[at]
	if v == nil {
		return 0, nil, refuse(404, "01020036:3: The requested Virtual Server (%s) was not found.", at)
	}
	n := 0
	for _, f := range b.flows {
		if f.Virtual == tail(v.Destination) {
			n++
		}
	}
	x := map[string]any{"tmName": says(at), "destination": says(tail(v.Destination)), "status.availabilityState": says("available"), "status.enabledState": says("enabled"), "status.statusReason": says("The virtual server is available")}
	if v.Disabled {
		x["status.enabledState"] = says("disabled")
	}
	traffic(x, "clientside", n)
	return 200, entries(map[string]map[string]any{"virtual/" + at: x}), nil
}

// uses reports whether a virtual server at a destination has a pool.
func (b *Box) uses(destination, pool string) bool {
	for _, v := range b.virtuals {
		if tail(v.Destination) == destination && v.Pool == pool {
			return true
		}
	}
	return false
}

func (b *Box) memberStats(at string) (int, any, *fault) {
	p := b.pools[at]
	if p == nil {
		return 0, nil, refuse(404, "01020036:3: The requested Pool (%s) was not found.", at)
	}
	out := make(map[string]map[string]any)
	for _, m := range p.Members {
		n := 0
		for _, f := range b.flows {
			if f.Server == m.Name && b.uses(f.Virtual, at) {
				n++
			}
		}
		x := map[string]any{"addr": says(m.Address), "nodeName": says("/Common/" + m.Address), "poolName": says(at), "monitorStatus": says(m.State), "sessionStatus": says("enabled"), "status.availabilityState": says("available"), "status.enabledState": says("enabled"), "status.statusReason": says("Pool member is available")}
		if m.Session == "user-disabled" {
			x["status.enabledState"] = says("disabled")
		}
		if m.State == "user-down" || m.State == "down" {
			x["status.availabilityState"], x["status.statusReason"] = says("offline"), says("Forced down")
		}
		traffic(x, "serverside", n)
		out["pool/"+at+"/members/"+m.Name] = x
	}
	return 200, entries(out), nil
}
