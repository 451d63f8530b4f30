package netscaler

// A resource is a kind of object.
type resource struct {
	key      string
	fields   []string          // besides key
	needs    []string          // of fields, to make one
	fixed    []string          // of fields, which can't be changed
	defaults map[string]any    // of fields that aren't given
	hidden   []string          // of fields, which are never shown
	args     []string          // what it takes besides its name to remove one
	refers   map[string]string // of fields: the kind whose objects they name
	oneOf    map[string][]string
	between  map[string][2]int
}

// resources are by NITRO's names.
var resources = map[string]*resource{
	"server": {
		key: "name", fields: []string{"ipaddress", "comment"}, needs: []string{"ipaddress"}, defaults: map[string]any{"state": "ENABLED"},
	},
	"systemfile": {
		key: "filename", fields: []string{"filelocation", "filecontent", "fileencoding"}, needs: []string{"filelocation", "filecontent"},
		fixed: []string{"filelocation", "filecontent", "fileencoding"}, args: []string{"filelocation"},
	},
	"sslcertkey": {
		key: "certkey", fields: []string{"cert", "key", "linkcertkeyname"}, needs: []string{"cert"}, fixed: []string{"cert", "key", "linkcertkeyname"},
		refers: map[string]string{"linkcertkeyname": "sslcertkey"},
	},
	"lbmonitor": {
		key: "monitorname",
		fields: []string{
			"type", "interval", "units3", "resptimeout", "units4", "retries", "successretries", "destport", "httprequest", "respcode",
			"secure", "customheaders", "username", "password", "radkey", "destip",
		},
		needs: []string{"type"}, fixed: []string{"units1", "units2"}, args: []string{"type"}, hidden: []string{"password", "radkey"},
		defaults: map[string]any{
			"interval": 5, "units3": "SEC", "resptimeout": 2, "units4": "SEC", "retries": 3, "successretries": 1, "destport": 0, "secure": "NO", "state": "ENABLED",
		},
		oneOf: map[string][]string{
			"type": {"PING", "TCP", "HTTP", "RADIUS", "RADIUS_ACCOUNTING"}, "units3": {"SEC", "MSEC", "MIN"}, "units4": {"SEC", "MSEC", "MIN"}, "secure": {"YES", "NO"},
		},
		between: map[string][2]int{"interval": {1, 20940000}, "resptimeout": {1, 20939000}, "retries": {1, 127}, "successretries": {1, 32}, "destport": {0, 65535}},
	},
	"netprofile": {
		key: "name", fields: []string{"proxyprotocol", "proxyprotocoltxversion"},
		oneOf: map[string][]string{"proxyprotocol": {"ENABLED", "DISABLED"}, "proxyprotocoltxversion": {"V1", "V2"}},
	},
	"servicegroup": {
		key: "servicegroupname",
		fields: []string{
			"servicetype", "usip", "useproxyport", "healthmonitor", "maxclient", "clttimeout", "svrtimeout", "monthreshold", "netprofile", "downstateflush", "comment",
		},
		needs: []string{"servicetype"}, fixed: []string{"servicetype"}, refers: map[string]string{"netprofile": "netprofile"},
		defaults: map[string]any{
			"usip": "NO", "useproxyport": "YES", "healthmonitor": "YES", "maxclient": 0, "clttimeout": 180, "svrtimeout": 360, "monthreshold": 0,
			"downstateflush": "ENABLED", "state": "ENABLED",
		},
		oneOf: map[string][]string{
			"servicetype": {"UDP", "TCP", "SSL_BRIDGE", "SSL_TCP", "RADIUS", "HTTP", "SSL"}, "usip": {"YES", "NO"}, "useproxyport": {"YES", "NO"},
			"healthmonitor": {"YES", "NO"}, "downstateflush": {"ENABLED", "DISABLED"},
		},
		between: map[string][2]int{"maxclient": {0, 4294967294}, "clttimeout": {0, 31536000}, "svrtimeout": {0, 31536000}, "monthreshold": {0, 65535}},
	},
	"lbvserver": {
		key: "name",
		fields: []string{
			"servicetype", "ipv46", "port", "lbmethod", "rule", "persistencetype", "timeout", "clttimeout", "backupvserver", "disableprimaryondown",
			"connfailover", "somethod", "sothreshold", "sobackupaction", "newservicerequest", "newservicerequestunit",
			"newservicerequestincrementinterval", "comment",
		},
		needs: []string{"servicetype"}, fixed: []string{"servicetype", "port"}, refers: map[string]string{"backupvserver": "lbvserver"},
		defaults: map[string]any{
			"ipv46": "0.0.0.0", "port": 0, "lbmethod": "LEASTCONNECTION", "persistencetype": "NONE", "timeout": 2, "clttimeout": 180,
			"disableprimaryondown": "DISABLED", "connfailover": "DISABLED", "somethod": "NONE", "newservicerequest": 0,
		},
		oneOf: map[string][]string{
			"servicetype": {"UDP", "TCP", "SSL_BRIDGE", "SSL_TCP", "RADIUS", "HTTP", "SSL"}, "persistencetype": {"SOURCEIP", "RULE", "SSLSESSION", "NONE"},
			"lbmethod":             {"ROUNDROBIN", "LEASTCONNECTION", "SOURCEIPHASH", "TOKEN"},
			"disableprimaryondown": {"ENABLED", "DISABLED"}, "connfailover": {"STATEFUL", "STATELESS", "DISABLED"}, "somethod": {"CONNECTION", "NONE"},
			"sobackupaction": {"DROP", "ACCEPT", "REDIRECT"}, "newservicerequestunit": {"PER_SECOND", "PERCENT"},
		},
		between: map[string][2]int{
			"port": {0, 65535}, "timeout": {0, 1440}, "clttimeout": {0, 31536000}, "sothreshold": {1, 4294967287}, "newservicerequestincrementinterval": {0, 3600},
		},
	},
	"gslbsite": {
		key: "sitename", fields: []string{"sitetype", "siteipaddress", "publicip", "metricexchange"}, needs: []string{"siteipaddress"},
		fixed: []string{"sitetype", "siteipaddress"}, defaults: map[string]any{"sitetype": "NONE", "metricexchange": "ENABLED"},
		oneOf: map[string][]string{"sitetype": {"LOCAL", "REMOTE"}},
	},
	"location": {
		key: "ipfrom", fields: []string{"ipto", "preferredlocation", "longitude", "latitude"}, needs: []string{"ipto", "preferredlocation"}, args: []string{"ipto"},
		fixed: []string{"ipto", "preferredlocation", "longitude", "latitude"},
	},
	"gslbservice": {
		key: "servicename", fields: []string{"servername", "ip", "servicetype", "port", "sitename", "publicip", "publicport", "healthmonitor", "monthreshold", "comment"},
		needs: []string{"servername", "servicetype", "port", "sitename"}, fixed: []string{"servername", "ip", "servicetype", "port", "sitename"},
		refers: map[string]string{"servername": "server", "sitename": "gslbsite"}, defaults: map[string]any{"healthmonitor": "YES", "monthreshold": 0, "state": "ENABLED"},
		oneOf:   map[string][]string{"servicetype": {"ANY", "TCP", "UDP", "SSL_BRIDGE", "HTTP", "SSL"}, "healthmonitor": {"YES", "NO"}},
		between: map[string][2]int{"port": {1, 65535}, "monthreshold": {0, 65535}},
	},
	"gslbvserver": {
		key: "name",
		fields: []string{
			"servicetype", "dnsrecordtype", "lbmethod", "backuplbmethod", "persistencetype", "persistenceid", "timeout", "edr", "mir", "ecs", "ecsaddrvalidation",
			"disableprimaryondown", "backupvserver", "comment",
		},
		needs: []string{"servicetype"}, fixed: []string{"servicetype"}, refers: map[string]string{"backupvserver": "gslbvserver"},
		defaults: map[string]any{
			"dnsrecordtype": "A", "lbmethod": "LEASTCONNECTION", "persistencetype": "NONE", "edr": "DISABLED", "mir": "DISABLED", "ecs": "DISABLED",
			"ecsaddrvalidation": "DISABLED", "disableprimaryondown": "DISABLED",
		},
		oneOf: map[string][]string{
			"servicetype": {"ANY", "TCP", "UDP", "SSL_BRIDGE", "HTTP", "SSL"}, "dnsrecordtype": {"A", "AAAA", "CNAME"},
			"lbmethod":       {"ROUNDROBIN", "LEASTCONNECTION", "SOURCEIPHASH", "STATICPROXIMITY", "RTT"},
			"backuplbmethod": {"ROUNDROBIN", "LEASTCONNECTION", "SOURCEIPHASH", "STATICPROXIMITY", "RTT"}, "edr": {"ENABLED", "DISABLED"},
			"mir": {"ENABLED", "DISABLED"}, "ecs": {"ENABLED", "DISABLED"}, "ecsaddrvalidation": {"ENABLED", "DISABLED"}, "disableprimaryondown": {"ENABLED", "DISABLED"},
		},
	},
	"service": {
		key: "name", fields: []string{"servername", "ip", "servicetype", "port", "comment"}, needs: []string{"servername", "servicetype", "port"},
		fixed: []string{"servername", "ip", "servicetype", "port"}, refers: map[string]string{"servername": "server"},
		oneOf: map[string][]string{"servicetype": {"ADNS", "ADNS_TCP", "HTTP", "TCP"}}, between: map[string][2]int{"port": {1, 65535}},
	},
	"lbgroup": {
		key: "name", fields: []string{"persistencetype", "rule", "timeout"}, defaults: map[string]any{"persistencetype": "NONE", "timeout": 2},
		oneOf: map[string][]string{"persistencetype": {"SOURCEIP", "COOKIEINSERT", "RULE", "NONE"}}, between: map[string][2]int{"timeout": {0, 1440}},
	},
}

// An attached resource comes and goes with an object of another kind that speaks
// TLS, and can only be changed.
type attached struct {
	of     string
	key    string
	fields map[string]any // with their defaults
}

var attachments = map[string]attached{
	"sslservicegroup": {"servicegroup", "servicegroupname", map[string]any{"serverauth": "DISABLED", "commonname": "", "snienable": "DISABLED"}},
	"sslvserver": {"lbvserver", "vservername", map[string]any{
		"ssl3": "DISABLED", "tls1": "ENABLED", "tls11": "ENABLED", "tls12": "ENABLED", "tls13": "DISABLED", "sessionticket": "DISABLED",
		"clientauth": "DISABLED", "clientcert": "",
	}},
}

// A link binds one object to another.
type link struct {
	of     string // the kind of the parent
	parent string // the field that names it
	child  string // the kind of what is bound; empty if it isn't an object
	keys   []string
	fields []string // besides keys
	needs  []string // of fields
}

var links = map[string]link{
	"servicegroup_servicegroupmember_binding": {"servicegroup", "servicegroupname", "server", []string{"servername", "port"}, []string{"weight", "state"}, nil},
	"servicegroup_lbmonitor_binding":          {"servicegroup", "servicegroupname", "lbmonitor", []string{"monitor_name"}, nil, nil},
	"sslservicegroup_sslcertkey_binding":      {"servicegroup", "servicegroupname", "sslcertkey", []string{"certkeyname"}, []string{"ca"}, []string{"ca"}},
	"lbvserver_servicegroup_binding":          {"lbvserver", "name", "servicegroup", []string{"servicegroupname"}, nil, nil},
	"sslvserver_sslcertkey_binding":           {"lbvserver", "vservername", "sslcertkey", []string{"certkeyname"}, []string{"ca"}, nil},
	"sslvserver_sslcipher_binding":            {"lbvserver", "vservername", "", []string{"ciphername"}, nil, nil},
	"gslbservice_lbmonitor_binding":           {"gslbservice", "servicename", "lbmonitor", []string{"monitor_name"}, []string{"weight"}, nil},
	"gslbvserver_gslbservice_binding":         {"gslbvserver", "name", "gslbservice", []string{"servicename"}, []string{"weight", "order"}, nil},
	"gslbvserver_domain_binding":              {"gslbvserver", "name", "", []string{"domainname"}, []string{"ttl", "backupip"}, nil},
	"lbgroup_lbvserver_binding":               {"lbgroup", "name", "lbvserver", []string{"vservername"}, nil, nil},
}
