package netscaler

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// check refuses values that a kind can't have.
func (res *resource) check(in object) *problem {
	for k, v := range in {
		if list := res.oneOf[k]; list != nil && !slices.Contains(list, fmt.Sprint(v)) {
			return bad(codeArgument, "Invalid argument value [%s, %v]", k, v)
		}
		if span, ok := res.between[k]; ok {
			n, err := strconv.Atoi(fmt.Sprint(v))
			if err != nil || n < span[0] || n > span[1] {
				return bad(codeArgument, "Argument value out of range [%s]", k)
			}
		}
	}
	return nil
}

// sane refuses combinations that a kind can't have.
func (a *Appliance) sane(kind string, o object) *problem {
	switch kind {
	case "lbmonitor":
		if millis(o, "interval", "units3") <= millis(o, "resptimeout", "units4") {
			return bad(codeArgument, "Response timeout must be less than the interval [resptimeout]")
		}
		radius := strings.HasPrefix(fmt.Sprint(o["type"]), "RADIUS")
		if radius && (o["radkey"] == nil || o["username"] == nil || o["type"] == "RADIUS" && o["password"] == nil) {
			return bad(codeNeeded, "Argument pre-requisite missing [radkey, username, password]")
		}
		if !radius && o["radkey"] != nil {
			return bad(codeArgument, "Argument not applicable [radkey]")
		}
		if o["type"] != "HTTP" && (o["httprequest"] != nil || o["customheaders"] != nil) {
			return bad(codeArgument, "Argument not applicable [httprequest]")
		}
	case "lbvserver":
		if (o["persistencetype"] == "RULE" || o["lbmethod"] == "TOKEN") && o["rule"] == nil {
			return bad(codeNeeded, "Argument pre-requisite missing [rule]")
		}
		if fmt.Sprint(o["port"]) == "0" && o["ipv46"] != "0.0.0.0" {
			return bad(codeNeeded, "Argument pre-requisite missing [port]")
		}
		if o["connfailover"] == "STATEFUL" && o["servicetype"] == "SSL_TCP" {
			return bad(codeArgument, "Connection failover is not supported for this service type [connfailover]")
		}
		return a.free(o)
	case "lbgroup":
		if (o["persistencetype"] == "RULE") != (o["rule"] != nil) && o["persistencetype"] == "RULE" {
			return bad(codeNeeded, "Argument pre-requisite missing [rule]")
		}
	case "gslbsite", "gslbservice", "gslbvserver", "service":
		return a.saneGlobal(kind, o)
	case "server":
		for name, other := range a.objects[kind] {
			if name != o["name"] && other["ipaddress"] == o["ipaddress"] {
				return bad(codeExists, "Resource already exists [ipaddress, %v]", o["ipaddress"])
			}
		}
	case "sslcertkey":
		for _, k := range []string{"cert", "key"} {
			path, _ := o[k].(string)
			if _, ok := a.objects["systemfile"][path[strings.LastIndexByte(path, '/')+1:]]; path != "" && !ok {
				return bad(1614, "Certificate or key file does not exist [%s]", k)
			}
		}
	}
	return nil
}

func millis(o object, number, unit string) int {
	n, err := strconv.Atoi(fmt.Sprint(o[number]))
	if err != nil {
		return 0
	}
	return n * map[any]int{"MSEC": 1, "SEC": 1000, "MIN": 60000}[o[unit]]
}

// free refuses an address that another virtual server has.
func (a *Appliance) free(o object) *problem {
	udp := func(o object) bool { return o["servicetype"] == "UDP" || o["servicetype"] == "RADIUS" }
	for name, other := range a.objects["lbvserver"] {
		if name != o["name"] && fmt.Sprint(o["port"]) != "0" && other["ipv46"] == o["ipv46"] && fmt.Sprint(other["port"]) == fmt.Sprint(o["port"]) && udp(other) == udp(o) {
			return bad(codeExists, "Resource already exists [ipv46, %v, %s]", o["ipv46"], name)
		}
	}
	return nil
}

// refersWell refuses references to what isn't there.
func (a *Appliance) refersWell(res *resource, in object) *problem {
	for k, kind := range res.refers {
		if v, ok := in[k].(string); ok && a.objects[kind][v] == nil {
			return bad(codeMissing, "No such resource [%s, %s]", k, v)
		}
	}
	return nil
}

func (a *Appliance) add(kind string, res *resource, body []byte) *problem {
	known := append([]string{res.key}, res.fields...)
	known = slices.DeleteFunc(known, func(k string) bool { return k == "linkcertkeyname" })
	in, p := fields(kind, body, known)
	if p != nil {
		return p
	}
	name, _ := in[res.key].(string)
	if to, ok := in["ipto"].(string); ok && kind == "location" {
		name += "-" + to // a range has two ends
	}
	for _, k := range append([]string{res.key}, res.needs...) {
		if v, ok := in[k]; !ok || v == "" {
			return bad(codeNeeded, "Argument pre-requisite missing [%s]", k)
		}
	}
	if a.objects[kind][name] != nil {
		return bad(codeExists, "Resource already exists [%s, %s]", res.key, name)
	}
	o := maps.Clone(in)
	for k, v := range res.defaults {
		if _, ok := o[k]; !ok {
			o[k] = v
		}
	}
	if kind == "lbvserver" && o["ipv46"] == "0.0.0.0" && fmt.Sprint(o["port"]) != "0" {
		return bad(codeArgument, "Invalid argument value [ipv46]")
	}
	for _, p := range []*problem{res.check(in), a.refersWell(res, in), a.sane(kind, o)} {
		if p != nil {
			return p
		}
	}
	a.objects[kind][name] = o
	for with, t := range attachments {
		if t.of == kind && strings.HasPrefix(fmt.Sprint(o["servicetype"]), "SSL") && o["servicetype"] != "SSL_BRIDGE" {
			a.attached[with][name] = object{t.key: name}
			maps.Copy(a.attached[with][name], t.fields)
		}
	}
	return nil
}

func (a *Appliance) change(kind string, res *resource, body []byte) *problem {
	known := slices.DeleteFunc(append([]string{res.key}, res.fields...), func(k string) bool { return slices.Contains(res.fixed, k) })
	switch kind {
	case "servicegroup":
		known = append(known, "servername", "port", "weight")
	case "gslbvserver":
		known = append(known, "servicename", "weight", "domainname", "ttl", "backupip")
	}
	in, p := fields(kind, body, known)
	if p != nil {
		return p
	}
	name, _ := in[res.key].(string)
	o := a.objects[kind][name]
	if o == nil {
		return bad(codeMissing, "No such resource [%s, %s]", res.key, name)
	}
	if kind == "gslbvserver" && (in["servicename"] != nil || in["domainname"] != nil) {
		return a.rebind(name, in)
	}
	if kind == "servicegroup" && in["servername"] != nil {
		return a.weigh(name, in)
	}
	if kind == "lbmonitor" && in["type"] != o["type"] {
		return bad(codeArgument, "The monitor is of another type [type]")
	}
	if kind == "lbvserver" && (in["persistencetype"] != nil || in["timeout"] != nil) && a.grouped(name) != nil {
		return bad(codeInUse, "The persistence of a member of a group is that of the group [persistencetype]")
	}
	after := maps.Clone(o)
	maps.Copy(after, in)
	if kind == "gslbvserver" && in["lbmethod"] != nil && in["backuplbmethod"] == nil {
		delete(after, "backuplbmethod") // it belongs to the method
	}
	for _, p := range []*problem{res.check(in), a.refersWell(res, in), a.sane(kind, after)} {
		if p != nil {
			return p
		}
	}
	a.objects[kind][name] = after
	return nil
}

func (a *Appliance) weigh(group string, in object) *problem {
	b := a.member(group, in["servername"], in["port"])
	n, ok := in["weight"].(int)
	if b == nil || !ok || n < 1 || n > 100 {
		return bad(codeArgument, "Invalid argument value [weight]")
	}
	b["weight"] = n
	return nil
}

func (a *Appliance) member(group string, server, port any) object {
	for _, b := range a.bindings["servicegroup_servicegroupmember_binding"] {
		if b["servicegroupname"] == group && b["servername"] == server && fmt.Sprint(b["port"]) == fmt.Sprint(port) {
			return b
		}
	}
	return nil
}

// grouped returns the lbgroup that a virtual server belongs to.
func (a *Appliance) grouped(name string) object {
	for _, b := range a.bindings["lbgroup_lbvserver_binding"] {
		if b["vservername"] == name {
			return a.objects["lbgroup"][b["name"].(string)]
		}
	}
	return nil
}

// act does what isn't making, changing or removing.
func (a *Appliance) act(kind string, res *resource, action string, body []byte) *problem {
	known := append([]string{res.key}, res.fields...)
	switch kind + " " + action {
	case "servicegroup enable", "servicegroup disable":
		return a.able(action == "enable", body)
	case "sslcertkey update":
		known = []string{"certkey", "cert", "key", "nodomaincheck"}
	case "sslcertkey link":
		known = []string{"certkey", "linkcertkeyname"}
	case "sslcertkey unlink":
		known = []string{"certkey"}
	case "lbvserver unset", "servicegroup unset", "lbmonitor unset", "lbgroup unset", "gslbvserver unset", "gslbservice unset":
	default:
		return bad(codeArgument, "Invalid action [%s]", action)
	}
	in, p := fields(kind, body, known)
	if p != nil {
		return p
	}
	name, _ := in[res.key].(string)
	o := a.objects[kind][name]
	if o == nil {
		return bad(codeMissing, "No such resource [%s, %s]", res.key, name)
	}
	after := maps.Clone(o)
	switch action {
	case "unset":
		if p := unset(res, after, in); p != nil {
			return p
		}
	case "unlink":
		delete(after, "linkcertkeyname")
	default:
		delete(in, "nodomaincheck")
		if action == "link" && o["linkcertkeyname"] != nil {
			return bad(codeExists, "The certificate is linked already [linkcertkeyname]")
		}
		maps.Copy(after, in)
	}
	for _, p := range []*problem{a.refersWell(res, after), a.sane(kind, after)} {
		if p != nil {
			return p
		}
	}
	a.objects[kind][name] = after
	return nil
}

func unset(res *resource, o, in object) *problem {
	for k, v := range in {
		switch {
		case k == res.key || slices.Contains(res.needs, k):
		case v != true:
			return bad(codeArgument, "Invalid argument value [%s]", k)
		case res.defaults[k] != nil:
			o[k] = res.defaults[k]
		default:
			delete(o, k)
		}
	}
	return nil
}

// able enables or disables a member of a servicegroup.
func (a *Appliance) able(on bool, body []byte) *problem {
	known := []string{"servicegroupname", "servername", "port"}
	if !on {
		known = append(known, "delay", "graceful")
	}
	in, p := fields("servicegroup", body, known)
	if p != nil {
		return p
	}
	b := a.member(fmt.Sprint(in["servicegroupname"]), in["servername"], in["port"])
	if b == nil {
		return bad(codeMissing, "No such resource [servername, %v]", in["servername"])
	}
	delete(b, "graceful")
	delete(b, "delay")
	b["state"] = "ENABLED"
	if !on {
		b["state"] = "DISABLED"
		maps.Copy(b, in)
	}
	return nil
}

func (a *Appliance) remove(kind string, res *resource, name string, args map[string]string) *problem {
	if kind == "location" {
		name += "-" + args["ipto"]
	}
	o := a.objects[kind][name]
	if o == nil {
		return bad(codeMissing, "No such resource [%s, %s]", res.key, name)
	}
	for _, k := range res.args {
		if args[k] != o[k] {
			return bad(codeNeeded, "Argument pre-requisite missing [%s]", k)
		}
	}
	for other, l := range links {
		for _, b := range a.bindings[other] {
			if l.child == kind && b[l.keys[0]] == name {
				return bad(codeInUse, "The resource is bound to %v", b[l.parent])
			}
		}
	}
	for other, r := range resources {
		for k, refers := range r.refers {
			for user, x := range a.objects[other] {
				if refers == kind && x[k] == name {
					return bad(codeInUse, "The resource is used by %s", user)
				}
			}
		}
	}
	delete(a.objects[kind], name)
	for with, t := range attachments {
		if t.of == kind {
			delete(a.attached[with], name)
		}
	}
	for other, l := range links {
		if l.of == kind {
			a.bindings[other] = slices.DeleteFunc(a.bindings[other], func(b object) bool { return b[l.parent] == name })
		}
	}
	return nil
}

func (a *Appliance) attach(method, action, kind string, t attached, body []byte) *problem {
	if method != http.MethodPut && (method != http.MethodPost || action != "unset") {
		return bad(codeInUse, "Operation not permitted")
	}
	in, p := fields(kind, body, append(slices.Collect(maps.Keys(t.fields)), t.key))
	if p != nil {
		return p
	}
	o := a.attached[kind][fmt.Sprint(in[t.key])]
	if o == nil {
		return bad(codeMissing, "No such resource [%s]", t.key)
	}
	if action == "unset" {
		return unset(&resource{key: t.key, defaults: t.fields}, o, in)
	}
	if c := in["clientcert"]; c != nil && c != "Mandatory" && c != "Optional" {
		return bad(codeArgument, "Invalid argument value [clientcert, %v]", c)
	}
	maps.Copy(o, in)
	return nil
}

func (a *Appliance) bind(method, kind string, l link, name string, args map[string]string, body []byte) *problem {
	if method == http.MethodDelete {
		return a.unbind(kind, l, name, args)
	}
	known := append(append([]string{l.parent}, l.keys...), l.fields...)
	in, p := fields(kind, body, known)
	if p != nil {
		return p
	}
	for _, k := range append(append([]string{l.parent}, l.keys...), l.needs...) {
		if in[k] == nil {
			return bad(codeNeeded, "Argument pre-requisite missing [%s]", k)
		}
	}
	parent, child := a.objects[l.of][fmt.Sprint(in[l.parent])], a.objects[l.child][fmt.Sprint(in[l.keys[0]])]
	if parent == nil || l.child != "" && child == nil {
		return bad(codeMissing, "No such resource [%v, %v]", in[l.parent], in[l.keys[0]])
	}
	for _, b := range a.bindings[kind] {
		if b[l.parent] == in[l.parent] && !slices.ContainsFunc(l.keys, func(k string) bool { return fmt.Sprint(b[k]) != fmt.Sprint(in[k]) }) {
			return bad(codeExists, "Resource already exists [%v]", in[l.keys[0]])
		}
	}
	if p := a.suits(kind, in, parent, child); p != nil {
		return p
	}
	a.bindings[kind] = append(a.bindings[kind], in)
	return nil
}

// suits refuses bindings that make no sense.
func (a *Appliance) suits(kind string, in, parent, child object) *problem {
	switch kind {
	case "servicegroup_servicegroupmember_binding":
		if n, ok := in["weight"].(int); in["weight"] != nil && (!ok || n < 1 || n > 100) {
			return bad(codeArgument, "Argument value out of range [weight]")
		}
		if in["weight"] == nil {
			in["weight"] = 1
		}
		if in["state"] == nil {
			in["state"] = "ENABLED"
		}
	case "lbvserver_servicegroup_binding":
		v, s := parent["servicetype"], child["servicetype"]
		if v != s && (v != "SSL_TCP" || s != "TCP") {
			return bad(codeInUse, "Service type mismatch [%v, %v]", v, s)
		}
	case "gslbvserver_gslbservice_binding", "gslbvserver_domain_binding":
		return a.suitsGlobal(kind, in, parent, child)
	case "lbgroup_lbvserver_binding":
		if a.grouped(fmt.Sprint(in["vservername"])) != nil {
			return bad(codeExists, "The virtual server belongs to a group already [%v]", in["vservername"])
		}
	case "sslvserver_sslcertkey_binding", "sslvserver_sslcipher_binding", "sslservicegroup_sslcertkey_binding":
		t := parent["servicetype"]
		if t != "SSL_TCP" && t != "SSL" {
			return bad(codeInUse, "It doesn't speak TLS itself")
		}
	}
	return nil
}

func (a *Appliance) unbind(kind string, l link, name string, args map[string]string) *problem {
	n := len(a.bindings[kind])
	a.bindings[kind] = slices.DeleteFunc(a.bindings[kind], func(b object) bool {
		if b[l.parent] != name {
			return false
		}
		for _, k := range append(slices.Clone(l.keys), l.needs...) {
			if fmt.Sprint(b[k]) != args[k] {
				return false
			}
		}
		return true
	})
	if len(a.bindings[kind]) == n {
		return bad(codeMissing, "No such resource [%s]", name)
	}
	return nil
}
