package netscaler

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

func (a *Appliance) get(kind, name string, args map[string]string) (object, *problem) {
	switch kind {
	case "nsfeature":
		return object{kind: object{"feature": a.features, "lb": slices.Contains(a.features, "LB"), "ssl": slices.Contains(a.features, "SSL")}}, nil
	case "nsconfig":
		return object{kind: object{"configchanged": a.unsaved}}, nil
	case "server_servicegroup_binding", "server_service_binding", "server_gslbservice_binding":
		return a.users(kind, name)
	}
	if p := a.enabled(kind); p != nil {
		return nil, p
	}
	if l, ok := links[kind]; ok {
		return a.bound(kind, l, name)
	}
	list, key := a.attached[kind], attachments[kind].key
	if res := resources[kind]; res != nil {
		list, key = a.objects[kind], res.key
	}
	if list == nil {
		return nil, bad(codeMissing, "No such resource [%s]", kind)
	}
	if kind == "systemfile" && args["filelocation"] == "" {
		return nil, bad(codeNeeded, "Argument pre-requisite missing [filelocation]")
	}
	var out []object
	for _, n := range slices.Sorted(maps.Keys(list)) {
		if name != "" && n != name || kind == "systemfile" && list[n]["filelocation"] != args["filelocation"] {
			continue
		}
		out = append(out, a.show(kind, list[n], name != ""))
	}
	if len(out) == 0 {
		if name != "" {
			return nil, bad(codeMissing, "No such resource [%s, %s]", key, name)
		}
		return nil, nil // NITRO leaves out an empty list
	}
	return object{kind: out}, nil
}

// users are the servicegroups, or the services, that have a server.
func (a *Appliance) users(kind, server string) (object, *problem) {
	if a.objects["server"][server] == nil {
		return nil, bad(codeMissing, "No such resource [name, %s]", server)
	}
	of := strings.TrimSuffix(strings.TrimPrefix(kind, "server_"), "_binding")
	if p := a.enabled(of); p != nil {
		return nil, p
	}
	var out []object
	if of == "servicegroup" {
		for _, b := range a.bindings["servicegroup_servicegroupmember_binding"] {
			if b["servername"] == server {
				out = append(out, object{"name": server, "servicegroupname": b["servicegroupname"]})
			}
		}
	}
	for _, n := range slices.Sorted(maps.Keys(a.objects[of])) {
		if a.objects[of][n]["servername"] == server {
			out = append(out, object{"name": server, "servicename": n})
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	return object{kind: out}, nil
}

// show is an object as it is read.
func (a *Appliance) show(kind string, o object, alone bool) object {
	out := maps.Clone(o)
	if res := resources[kind]; res != nil {
		for _, k := range res.hidden {
			if out[k] != nil {
				out[k] = "1c3e5a7b" // what NITRO shows of a secret is not the secret
			}
		}
	}
	switch kind {
	case "systemfile":
		if !alone {
			delete(out, "filecontent")
		}
	case "lbvserver":
		if g := a.grouped(fmt.Sprint(o["name"])); g != nil {
			out["persistencetype"], out["timeout"] = g["persistencetype"], g["timeout"]
		}
		out["curstate"] = a.vserverState(o)
	case "sslcertkey":
		for _, k := range []string{"cert", "key"} {
			if path, ok := o[k].(string); ok {
				out[k] = strings.TrimPrefix(path, "/nsconfig/ssl/") // the usual folder goes without saying
			}
		}
	case "gslbservice", "service":
		out["ipaddress"] = a.objects["server"][fmt.Sprint(o["servername"])]["ipaddress"]
	case "location":
		delete(out, "state")
	case "lbmonitor":
		out["interval"] = fmt.Sprint(o["interval"]) // as text, as some numbers are
		if o["type"] == "RADIUS" {
			out["respcode"] = []string{"3", "2"} // a range may come as its codes
		}
		if h, ok := o["customheaders"].(string); ok {
			out["customheaders"] = strings.NewReplacer("\r", `\r`, "\n", `\n`).Replace(h)
		}
	}
	return out
}

func (a *Appliance) bound(kind string, l link, name string) (object, *problem) {
	if a.objects[l.of][name] == nil {
		return nil, bad(codeMissing, "No such resource [%s, %s]", l.parent, name)
	}
	var out []object
	for _, b := range a.bindings[kind] {
		if b[l.parent] != name {
			continue
		}
		x := maps.Clone(b)
		delete(x, "down")
		for _, k := range []string{"weight", "ttl"} {
			if x[k] != nil {
				x[k] = fmt.Sprint(x[k]) // as text, as some numbers are
			}
		}
		if kind == "servicegroup_servicegroupmember_binding" {
			x["ip"] = a.objects["server"][fmt.Sprint(b["servername"])]["ipaddress"]
			x["svrstate"], x["weight"] = memberState(b), fmt.Sprint(b["weight"])
		}
		out = append(out, x)
	}
	switch {
	case kind == "servicegroup_lbmonitor_binding" && len(out) == 0:
		out = append(out, object{"servicegroupname": name, "monitor_name": "tcp-default"})
	case kind == "sslvserver_sslcipher_binding":
		out = append(out, object{"vservername": name, "ciphername": "DEFAULT"})
	}
	if len(out) == 0 {
		return nil, nil
	}
	return object{kind: out}, nil
}

func memberState(b object) string {
	switch {
	case b["state"] == "DISABLED" && b["graceful"] == "YES":
		return "GOING OUT OF SERVICE"
	case b["state"] == "DISABLED":
		return "OUT OF SERVICE"
	case b["down"] == true:
		return "DOWN"
	}
	return "UP"
}

// vserverState is UP if something bound to it is.
func (a *Appliance) vserverState(o object) string {
	for _, b := range a.bindings["lbvserver_servicegroup_binding"] {
		if b["name"] != o["name"] {
			continue
		}
		for _, m := range a.bindings["servicegroup_servicegroupmember_binding"] {
			if m["servicegroupname"] == b["servicegroupname"] && memberState(m) == "UP" {
				return "UP"
			}
		}
	}
	return "DOWN"
}

// stat shows statistics, in which numbers are text.
func (a *Appliance) stat(kind, name string, args map[string]string) (object, *problem) {
	var out []object
	switch kind {
	case "lbvserver":
		for _, n := range slices.Sorted(maps.Keys(a.objects[kind])) {
			if name != "" && n != name {
				continue
			}
			out = append(out, a.count(kind, n, object{
				"name": n, "state": a.vserverState(a.objects[kind][n]), "curclntconnections": "0", "curpersistencesessions": "0", "tothits": "0",
				"totalrequestbytes": "0", "totalresponsebytes": "0", "totalpktsrecvd": "0", "totalpktssent": "0",
			}))
		}
	case "servicegroupmember":
		for _, b := range a.bindings["servicegroup_servicegroupmember_binding"] {
			ip := fmt.Sprint(a.objects["server"][fmt.Sprint(b["servername"])]["ipaddress"])
			if b["servicegroupname"] != args["servicegroupname"] || ip != args["ip"] || fmt.Sprint(b["port"]) != args["port"] {
				continue
			}
			id := strings.Join([]string{args["servicegroupname"], ip, args["port"]}, "?")
			out = append(out, a.count(kind, id, object{
				"servicegroupname": id, "state": memberState(b), "cursrvrconnections": "0", "totalrequests": "0", "totalrequestbytes": "0",
				"totalresponsebytes": "0",
			}))
		}
	default:
		return nil, bad(codeMissing, "No such resource [%s]", kind)
	}
	if len(out) == 0 {
		return nil, bad(codeMissing, "No such resource [%s]", kind)
	}
	return object{kind: out}, nil
}

func (a *Appliance) count(kind, name string, o object) object {
	for k, v := range a.counted[kind+" "+name] {
		if n, ok := v.(int); ok {
			v = strconv.Itoa(n)
		}
		o[k] = v
	}
	return o
}
