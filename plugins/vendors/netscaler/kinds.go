package netscaler

import (
	"slices"
	"strings"
)

// A kind is a kind of NITRO object.
type kind struct {
	name string
	// keys identify an object; of a binding the first is that of its parent, and
	// of is what that is. binds is what the second names, if it is an object.
	keys  []string
	of    string
	binds string
	// props are what the driver reads of it.
	props []string
	// defaults are what props mean that NITRO doesn't show.
	defaults map[string]string
	// args are keys that are needed besides the first to remove one.
	args []string
	// attached kinds come and go with an object of the kind of.
	attached bool
	// refers is the prop that names another object of the same kind.
	refers string
	// ours are bindings that are the driver's only if what is bound is.
	ours bool
	// gslb are kinds that are only looked at while GSLB is enabled.
	gslb bool
}

// kinds are in the order in which they are made.
var kinds = []*kind{
	{name: "server", keys: []string{"name"}, props: []string{"ipaddress", "comment"}},
	{name: "systemfile", keys: []string{"filename", "filelocation"}, args: []string{"filelocation"}},
	{name: "sslcertkey", keys: []string{"certkey"}, props: []string{"cert", "key", "linkcertkeyname"}, refers: "linkcertkeyname"},
	{
		name: "lbmonitor", keys: []string{"monitorname", "type"}, args: []string{"type"},
		props: []string{
			"type", "interval", "units3", "resptimeout", "units4", "retries", "successretries", "destport", "httprequest", "respcode", "secure",
			"customheaders", "username", "destip",
		},
		defaults: map[string]string{"units3": "SEC", "units4": "SEC", "destport": "0", "secure": "NO"},
	},
	{name: "netprofile", keys: []string{"name"}, props: []string{"proxyprotocol", "proxyprotocoltxversion"}},
	{
		name: "servicegroup", keys: []string{"servicegroupname"},
		props: []string{
			"servicetype", "usip", "useproxyport", "healthmonitor", "maxclient", "clttimeout", "svrtimeout", "monthreshold", "netprofile", "downstateflush",
			"comment",
		},
		defaults: map[string]string{"useproxyport": "YES", "maxclient": "0", "monthreshold": "0", "downstateflush": "ENABLED"},
	},
	{
		name: "sslservicegroup", keys: []string{"servicegroupname"}, of: "servicegroup", attached: true,
		props: []string{"serverauth", "commonname", "snienable"}, defaults: map[string]string{"serverauth": "DISABLED", "snienable": "DISABLED"},
	},
	{
		name: "servicegroup_servicegroupmember_binding", keys: []string{"servicegroupname", "servername", "port"}, of: "servicegroup", binds: "server",
		args: []string{"servername", "port"}, props: []string{"weight", "state", "graceful"}, defaults: map[string]string{"graceful": "NO"},
	},
	{
		name: "servicegroup_lbmonitor_binding", keys: []string{"servicegroupname", "monitor_name"}, of: "servicegroup", binds: "lbmonitor",
		args: []string{"monitor_name"}, ours: true,
	},
	{
		name: "sslservicegroup_sslcertkey_binding", keys: []string{"servicegroupname", "certkeyname", "ca"}, of: "servicegroup", binds: "sslcertkey",
		args: []string{"certkeyname", "ca"},
	},
	{
		name: "lbvserver", keys: []string{"name"}, refers: "backupvserver",
		props: []string{
			"servicetype", "ipv46", "port", "lbmethod", "rule", "persistencetype", "timeout", "clttimeout", "backupvserver", "disableprimaryondown",
			"connfailover", "somethod", "sothreshold", "sobackupaction", "newservicerequest", "newservicerequestunit",
			"newservicerequestincrementinterval", "comment",
		},
		defaults: map[string]string{
			"ipv46": "0.0.0.0", "port": "0", "persistencetype": "NONE", "disableprimaryondown": "DISABLED", "connfailover": "DISABLED", "somethod": "NONE",
			"newservicerequest": "0",
		},
	},
	{
		name: "sslvserver", keys: []string{"vservername"}, of: "lbvserver", attached: true,
		props: []string{"ssl3", "tls1", "tls11", "tls12", "tls13", "sessionticket", "clientauth", "clientcert"},
	},
	{
		name: "sslvserver_sslcertkey_binding", keys: []string{"vservername", "certkeyname", "ca"}, of: "lbvserver", binds: "sslcertkey",
		args: []string{"certkeyname", "ca"},
	},
	{name: "sslvserver_sslcipher_binding", keys: []string{"vservername", "ciphername"}, of: "lbvserver", args: []string{"ciphername"}},
	{
		name: "lbvserver_servicegroup_binding", keys: []string{"name", "servicegroupname"}, of: "lbvserver", binds: "servicegroup",
		args: []string{"servicegroupname"},
	},
	{name: "lbgroup", keys: []string{"name"}, props: []string{"persistencetype", "rule", "timeout"}, defaults: map[string]string{"persistencetype": "NONE"}},
	{name: "gslbsite", keys: []string{"sitename"}, props: []string{"sitetype", "siteipaddress"}, gslb: true},
	{name: "location", keys: []string{"ipfrom", "ipto"}, args: []string{"ipto"}, props: []string{"preferredlocation"}, gslb: true},
	{
		name: "gslbservice", keys: []string{"servicename"}, gslb: true,
		props:    []string{"servername", "servicetype", "port", "sitename", "healthmonitor", "monthreshold", "comment"},
		defaults: map[string]string{"healthmonitor": "YES", "monthreshold": "0"},
	},
	{
		name: "gslbservice_lbmonitor_binding", keys: []string{"servicename", "monitor_name"}, of: "gslbservice", binds: "lbmonitor", args: []string{"monitor_name"}, ours: true,
	},
	{
		name: "gslbvserver", keys: []string{"name"}, refers: "backupvserver", gslb: true,
		props: []string{
			"servicetype", "dnsrecordtype", "lbmethod", "backuplbmethod", "edr", "mir", "ecs", "ecsaddrvalidation", "disableprimaryondown", "backupvserver", "comment",
		},
		defaults: map[string]string{"edr": "DISABLED", "mir": "DISABLED", "ecs": "DISABLED", "ecsaddrvalidation": "DISABLED", "disableprimaryondown": "DISABLED"},
	},
	{
		name: "gslbvserver_gslbservice_binding", keys: []string{"name", "servicename"}, of: "gslbvserver", binds: "gslbservice", args: []string{"servicename"},
		props: []string{"weight"}, defaults: map[string]string{"weight": "1"},
	},
	{
		name: "gslbvserver_domain_binding", keys: []string{"name", "domainname"}, of: "gslbvserver", args: []string{"domainname"}, props: []string{"ttl", "backupip"},
	},
	{name: "service", keys: []string{"name"}, props: []string{"servername", "servicetype", "port", "comment"}, gslb: true},
	{name: "lbgroup_lbvserver_binding", keys: []string{"name", "vservername"}, of: "lbgroup", binds: "lbvserver", args: []string{"vservername"}},
}

func kindOf(name string) *kind {
	i := slices.IndexFunc(kinds, func(k *kind) bool { return k.name == name })
	return kinds[i]
}

// isBinding reports whether objects of the kind bind others.
func (k *kind) isBinding() bool { return k.of != "" && !k.attached }

// A prop is a property as it is sent to NITRO.
type prop struct {
	name string
	// value is a string, an int or a list of strings. A nil is one to be unset.
	value any
	// fixed can't be changed, secret is neither shown nor compared.
	fixed, secret bool
}

// An item is a NITRO object.
type item struct {
	kind  *kind
	keys  []any // the values of kind.keys
	props []prop
	note  string // for people
}

// name identifies an item within its kind.
func (it *item) name() string {
	parts := make([]string, 0, len(it.keys))
	for i, k := range it.keys {
		if n := it.kind.keys[i]; n != "type" && n != "filelocation" && n != "ca" {
			parts = append(parts, plain(k))
		}
	}
	return strings.Join(parts, "/")
}

// parent and child are what a binding binds; parent is also what an attached item
// belongs to.
func (it *item) parent() string { return plain(it.keys[0]) }

func (it *item) child() string {
	if it.kind.binds == "" {
		return ""
	}
	return plain(it.keys[1])
}

// get returns a property, as text.
func (it *item) get(name string) string {
	for _, p := range it.props {
		if p.name == name {
			return plain(p.value)
		}
	}
	return ""
}

func (it *item) set(name string, value any) {
	it.props = append(it.props, prop{name: name, value: value})
}

func (it *item) fix(name string, value any) {
	it.props = append(it.props, prop{name: name, value: value, fixed: true})
}

func (it *item) hide(name string, value any) {
	it.props = append(it.props, prop{name: name, value: value, secret: true})
}

// plain shows a value as NITRO's is shown.
func plain(v any) string { return row{"": v}.text("") }
