package netscaler

import (
	"fmt"
	"slices"
	"strings"
)

// enabled refuses what belongs to GSLB while that is turned off.
func (a *Appliance) enabled(kind string) *problem {
	if strings.HasPrefix(kind, "gslb") && !slices.Contains(a.features, "GSLB") {
		return bad(codeInUse, "Feature(s) not enabled [GSLB]")
	}
	return nil
}

// saneGlobal refuses what GSLB can't have.
func (a *Appliance) saneGlobal(kind string, o object) *problem {
	key := resources[kind].key
	for name, other := range a.objects[kind] {
		if name == o[key] {
			continue
		}
		switch {
		case kind == "gslbsite" && o["sitetype"] == "LOCAL" && other["sitetype"] == "LOCAL":
			return bad(codeExists, "A local site exists already [%s]", name)
		case kind == "gslbsite" && o["siteipaddress"] == other["siteipaddress"]:
			return bad(codeExists, "Resource already exists [siteipaddress, %v]", o["siteipaddress"])
		case (kind == "gslbservice" || kind == "service") && o["servername"] == other["servername"] && o["servicetype"] == other["servicetype"] && fmt.Sprint(o["port"]) == fmt.Sprint(other["port"]):
			return bad(codeExists, "Resource already exists [servername, port, %s]", name)
		}
	}
	if kind == "gslbvserver" && o["backuplbmethod"] != nil && o["lbmethod"] != "STATICPROXIMITY" && o["lbmethod"] != "RTT" {
		return bad(codeArgument, "Argument not applicable [backuplbmethod]")
	}
	return nil
}

// suitsGlobal refuses bindings of GSLB that make no sense.
func (a *Appliance) suitsGlobal(kind string, in, parent, child object) *problem {
	if kind == "gslbvserver_gslbservice_binding" {
		if in["weight"] == nil {
			in["weight"] = 1
		}
		if n, ok := in["weight"].(int); !ok || n < 1 || n > 100 {
			return bad(codeArgument, "Argument value out of range [weight]")
		}
		if parent["servicetype"] != child["servicetype"] {
			return bad(codeInUse, "Service type mismatch [%v, %v]", parent["servicetype"], child["servicetype"])
		}
		return nil
	}
	if n, ok := in["ttl"].(int); in["ttl"] != nil && (!ok || n < 1 || n > 604800) {
		return bad(codeArgument, "Argument value out of range [ttl]")
	}
	for _, b := range a.bindings[kind] {
		other := a.objects["gslbvserver"][fmt.Sprint(b["name"])]
		if b["domainname"] == in["domainname"] && b["name"] != in["name"] && other["dnsrecordtype"] == parent["dnsrecordtype"] {
			return bad(codeExists, "The domain is bound to another virtual server [%v]", b["name"])
		}
	}
	return nil
}

// rebind changes what is said of a service or a domain that is bound to a virtual server.
func (a *Appliance) rebind(name string, in object) *problem {
	kind, key, known := "gslbvserver_gslbservice_binding", "servicename", []string{"weight"}
	if in["domainname"] != nil {
		kind, key, known = "gslbvserver_domain_binding", "domainname", []string{"ttl", "backupip"}
	}
	for _, b := range a.bindings[kind] {
		if b["name"] != name || b[key] != in[key] {
			continue
		}
		if n, ok := in["weight"].(int); in["weight"] != nil && (!ok || n < 1 || n > 100) {
			return bad(codeArgument, "Argument value out of range [weight]")
		}
		for _, k := range known {
			if in[k] != nil {
				b[k] = in[k]
			}
		}
		return nil
	}
	return bad(codeMissing, "No such resource [%s, %v]", key, in[key])
}
