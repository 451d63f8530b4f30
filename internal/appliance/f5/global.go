package f5

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Name is a wide IP of BIG-IP DNS, or a pool of one.
type Name struct {
	Kind, Record, Path, Mode string
	TTL                      int
	Disabled                 bool
}

// Names has f see, and alter, what answers for names, and how many topology records
// there are.
func (b *Box) Names(f func(names map[string]*Name, topology *int)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b.names, &b.topology)
}

// Share has others have an object in the application of AS3 that all share.
func (b *Box) Share(name string, body map[string]any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tenants["Common"] == nil {
		b.tenants["Common"] = map[string]any{"class": "Tenant", "Shared": map[string]any{"class": "Application", "template": "shared"}}
	}
	b.tenants["Common"]["Shared"].(map[string]any)[name] = body
}

// items tells of all objects of a tenant that have a class.
func items(tenant map[string]any, f func(app, name string, x map[string]any)) {
	for app, a := range tenant {
		list, _ := a.(map[string]any)
		for name, i := range list {
			if x, ok := i.(map[string]any); ok {
				f(app, name, x)
			}
		}
	}
}

// deriveNames makes wide IPs and their pools of a tenant.
func deriveNames(tenant string, want map[string]any) map[string]*Name {
	out := make(map[string]*Name)
	items(want, func(app, name string, x map[string]any) {
		record := text(x["resourceRecordType"], "")
		n := &Name{Record: record, Disabled: x["enabled"] == false}
		switch x["class"] {
		case "GSLB_Domain":
			n.Kind, n.Path, n.Mode = "wideip", "/"+tenant+"/"+app+"/"+text(x["domainName"], ""), text(x["poolLbMode"], "round-robin")
		case "GSLB_Pool":
			n.Kind, n.Path, n.Mode, n.TTL = "pool", "/"+tenant+"/"+app+"/"+name, text(x["lbModePreferred"], "round-robin"), whole(x["ttl"], 30)
		default:
			return
		}
		out[n.Path+" "+n.Kind+" "+record] = n
	})
	return out
}

// records counts the topology records of a tenant.
func records(tenant map[string]any) int {
	n := 0
	items(tenant, func(_, _ string, x map[string]any) {
		if x["class"] == "GSLB_Topology_Records" {
			list, _ := x["records"].([]any)
			n += len(list)
		}
	})
	return n
}

// clash says what BIG-IP DNS can't have beside what it has.
func (b *Box) clash(tenant string, want map[string]any) string {
	why := ""
	for key, n := range deriveNames(tenant, want) {
		for other, o := range b.names {
			if n.Kind == "wideip" && o.Kind == "wideip" && key != other && tail(n.Path) == tail(o.Path) && n.Record == o.Record && !strings.HasPrefix(o.Path, "/"+tenant+"/") {
				why = fmt.Sprintf("01020066:3: The requested Wide IP (%s) already exists.", n.Path)
			}
		}
	}
	if tenant != "Common" {
		return why
	}
	// A server that pools of other tenants have can't go while they have it.
	have := make(map[string]bool)
	items(want, func(app, name string, _ map[string]any) { have["/Common/"+app+"/"+name] = true })
	seen := make(map[string]string)
	items(want, func(_, name string, x map[string]any) {
		devices, _ := x["devices"].([]any)
		for _, d := range devices {
			d, _ := d.(map[string]any)
			at := text(d["address"], "")
			if seen[at] != "" {
				why = fmt.Sprintf("01020056:3: Device address %s of %s is already used by %s.", at, name, seen[at])
			}
			seen[at] = name
		}
	})
	return why
}

// listNames answers for /mgmt/tm/gtm.
func (b *Box) listNames(r *http.Request, at []string) (int, any, *fault) {
	out := map[string]any{"kind": "tm:gtm:collectionstate"}
	var list []any
	if len(at) == 1 && at[0] == "topology" {
		if f := query(r); f != nil {
			return 0, nil, f
		}
		for i := range b.topology {
			list = append(list, map[string]any{"name": fmt.Sprintf("ldns: country DE server: datacenter /Common/Shared/dc%d", i), "order": i + 1, "score": 1})
		}
	} else {
		p, f := partition(r)
		if f != nil {
			return 0, nil, f
		}
		if len(at) != 2 || at[0] != "wideip" && at[0] != "pool" || at[1] != "a" && at[1] != "aaaa" {
			return 0, nil, refuse(404, "01020036:3: The requested object (%s) was not found.", strings.Join(at, "/"))
		}
		for _, k := range slices.Sorted(maps.Keys(b.names)) {
			n := b.names[k]
			if n.Kind != at[0] || strings.ToLower(n.Record) != at[1] || !strings.HasPrefix(n.Path, "/"+p+"/") {
				continue
			}
			x := place(n.Path)
			if n.Kind == "wideip" {
				x["poolLbMode"] = n.Mode
			} else {
				x["loadBalancingMode"], x["ttl"] = n.Mode, n.TTL
			}
			x[map[bool]string{true: "disabled", false: "enabled"}[n.Disabled]] = true
			list = append(list, x)
		}
	}
	if list != nil { // a real one leaves out an empty list
		out["items"] = list
	}
	return 200, out, nil
}

// validateGlobal checks an object of BIG-IP DNS: its properties, values and pointers.
func (b *Box) validateGlobal(at string, x, app, adc map[string]any, bad func(string, ...any)) {
	class, ok := classOf(at, x, bad)
	if !ok {
		return
	}
	inShared := strings.HasPrefix(at, "/Common/Shared/")
	if !inShared && (class == "GSLB_Data_Center" || class == "GSLB_Server" || class == "GSLB_Topology_Records") {
		bad("%s: %s belongs in /Common/Shared", at, class)
	}
	points := func(k string, v any, class string) map[string]any {
		use, _ := v.(map[string]any)
		target := b.resolve(text(use["use"], ""), app, adc)
		if target["class"] != class {
			bad("%s/%s: contains path to non-existent object %v", at, k, use["use"])
		}
		return target
	}
	switch class {
	case "GSLB_Server":
		points("dataCenter", x["dataCenter"], "GSLB_Data_Center")
		devices, _ := x["devices"].([]any)
		if len(devices) == 0 {
			bad("%s/devices: should NOT have fewer than 1 items", at)
		}
		each(x["virtualServers"], func(v map[string]any) {
			strict(at+"/virtualServers", "GSLB virtual server", v, bad)
			if _, err := netip.ParseAddr(text(v["address"], "")); err != nil || v["port"] == nil {
				bad("%s/virtualServers: has no address or port", at)
			}
			each(v["monitors"], func(m map[string]any) { points("monitors", m, "GSLB_Monitor") })
		})
	case "GSLB_Pool":
		if n, ok := x["ttl"].(float64); !ok || n < 0 || n > 4294967295 {
			bad("%s/ttl: is out of range", at)
		}
		each(x["members"], func(m map[string]any) {
			strict(at+"/members", "GSLB member "+text(x["resourceRecordType"], ""), m, bad)
			server := points("members", m["server"], "GSLB_Server")
			found := false
			each(server["virtualServers"], func(v map[string]any) {
				a, err := netip.ParseAddr(text(v["address"], ""))
				found = found || v["name"] == m["virtualServer"] && err == nil && a.Is6() == (x["resourceRecordType"] == "AAAA")
			})
			if !found {
				bad("%s/members: there is no virtual server %v of that family", at, m["virtualServer"])
			}
		})
	default:
		validateName(at, x, points, bad)
	}
}

// validateName checks a wide IP, or topology records.
func validateName(at string, x map[string]any, points func(string, any, string) map[string]any, bad func(string, ...any)) {
	switch x["class"] {
	case "GSLB_Domain":
		if !domainForm.MatchString(text(x["domainName"], "")) {
			bad("%s/domainName: %v is no domain name", at, x["domainName"])
		}
		each(x["pools"], func(p map[string]any) {
			if pool := points("pools", p, "GSLB_Pool"); pool["resourceRecordType"] != x["resourceRecordType"] {
				bad("%s/pools: a pool is of another type of record", at)
			}
		})
		if last, ok := x["lastResortPool"]; ok {
			if points("lastResortPool", last, "GSLB_Pool"); x["lastResortPoolType"] != x["resourceRecordType"] {
				bad("%s/lastResortPoolType: it must be that of the pool", at)
			}
		}
	case "GSLB_Topology_Records":
		list, _ := x["records"].([]any)
		if len(list) == 0 {
			bad("%s/records: should NOT have fewer than 1 items", at)
		}
		each(x["records"], func(rec map[string]any) {
			to, _ := rec["destination"].(map[string]any)
			points("records", to["matchValue"], "GSLB_Data_Center")
		})
	}
}

// domainForm is what a wide IP may be called: small letters, and no dot at its end.
var domainForm = regexp.MustCompile(`^(\*\.)?([a-z0-9_-]+\.)+[a-z0-9-]+$`)

func each(v any, f func(map[string]any)) {
	list, _ := v.([]any)
	for _, x := range list {
		if m, ok := x.(map[string]any); ok {
			f(m)
		}
	}
}

// resolve finds what a pointer points to: in the same application, or by a whole path
// in what is declared or was.
func (b *Box) resolve(pointer string, app, adc map[string]any) map[string]any {
	if !strings.HasPrefix(pointer, "/") {
		x, _ := app[pointer].(map[string]any)
		return x
	}
	part := strings.Split(pointer[1:], "/")
	tenant, ok := adc[part[0]].(map[string]any)
	if !ok {
		tenant = b.tenants[part[0]]
	}
	if len(part) != 3 {
		return nil
	}
	in, _ := tenant[part[1]].(map[string]any)
	x, _ := in[part[2]].(map[string]any)
	return x
}
