package netscaler

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// Render writes the commands for a deployment, for administrators who configure a
// NetScaler themselves. Secrets are placeholders.
func (d *Driver) Render(ctx context.Context, dep *plugins.Deployment) ([]plugins.File, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	conf, s, _ := d.setUp.Peek()
	if list := check(dep, conf, d.answers()); plugins.HasError(list) || dep == nil {
		return nil, fmt.Errorf("%w for NetScaler", plugins.ErrInvalid)
	}
	r := &renderer{owner: conf.Owner, site: dep.Served(siteOf(conf, dep)), geo: dep.Geo, paper: true}
	if s.GSLB != nil {
		r.address = s.GSLB.Address
	}
	items, err := r.render()
	if err != nil {
		return nil, where(err)
	}
	var b strings.Builder
	b.WriteString("# What a NetScaler ADC 13.1 or later needs for Always On VPN, as commands of its CLI:\n" +
		"# copy them into an SSH session, or copy the file there and run: batch -fileName /var/tmp/aovlb.nscli\n" +
		"# Words in < > are to be replaced.\n\nenable ns feature LB SSL" + map[bool]string{true: " GSLB"}[dep.Geo != nil] + "\n")
	for _, f := range r.copies() {
		b.WriteString("# copy " + f + " to " + folder + "/\n")
	}
	heading, note := "", ""
	for _, it := range items {
		if h := headings[it.kind.name]; h != heading {
			heading, note = h, ""
			b.WriteString("\n# " + h + "\n")
		}
		if it.note != "" && it.note != note {
			note = it.note
			b.WriteString("# - " + note + "\n")
		}
		b.WriteString(command(it) + "\n")
	}
	b.WriteString("\n# keep it over a restart\nsave ns config\n")
	return []plugins.File{{
		Name: "aovlb.nscli", Summary: "commands for NetScaler's CLI; they end by saving the configuration", Content: []byte(b.String()),
	}}, nil
}

// copies returns the files that must be on the appliance.
func (r *renderer) copies() []string {
	var out []string
	add := func(f string) {
		if f != "" && !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	for i := range r.site.Groups {
		g := &r.site.Groups[i]
		for k := range g.Listeners {
			t := &g.Listeners[k].TLS
			if !t.Terminated() {
				continue
			}
			for j := range r.site.Certificates {
				if c := &r.site.Certificates[j]; c.Pool == g.Pool {
					add(c.CertFile)
					add(c.KeyFile)
				}
			}
			add(t.Clients.CAFile)
			add(t.Gateway.CAFile)
		}
	}
	return out
}

// headings explain kinds of objects.
var headings = map[string]string{
	"server":          "the servers, each once",
	"sslcertkey":      "certificates",
	"lbmonitor":       "what is asked to know whether a server serves",
	"netprofile":      "how backends are told clients' addresses",
	"servicegroup":    "the servers as each listener uses them; usip YES shows them the client's own address",
	"sslservicegroup": "TLS that goes on to gateways",
	"servicegroup_servicegroupmember_binding": "who belongs to them",
	"servicegroup_lbmonitor_binding":          "and how they are checked",
	"sslservicegroup_sslcertkey_binding":      "which gateways are believed",
	"lbvserver":                               "where clients come to; timeouts of persistence are in minutes, others in seconds",
	"sslvserver":                              "TLS that is ended here",
	"sslvserver_sslcertkey_binding":           "what clients are shown, and which are believed",
	"sslvserver_sslcipher_binding":            "ciphers beside the default ones",
	"lbvserver_servicegroup_binding":          "and who serves them",
	"gslbsite":                                "who answers for names; an appliance has one site of its own: leave it out if there is one",
	"location":                                "where gateways are, and networks that no location file knows; the last word marks these as ours",
	"gslbservice":                             "the gateways that names lead to",
	"gslbservice_lbmonitor_binding":           "and how they are checked",
	"gslbvserver":                             "names, and how a site is chosen; EDR ENABLED answers with nothing while no site is left",
	"gslbvserver_gslbservice_binding":         "and the gateways that they lead to",
	"gslbvserver_domain_binding":              "the names themselves; TTL in seconds",
	"service":                                 "where queries are answered: the parent zone delegates the names to here",
	"lbgroup":                                 "one server for all ports of a client",
	"lbgroup_lbvserver_binding":               "and the virtual servers that agree",
}

// words are the CLI's names of properties that aren't NITRO's.
var words = map[string]string{
	"usip": "usip", "useproxyport": "useproxyport", "clttimeout": "cltTimeout", "svrtimeout": "svrTimeout", "maxclient": "maxClient", "healthmonitor": "healthMonitor",
	"monthreshold": "monThreshold", "netprofile": "netProfile", "downstateflush": "downStateFlush", "lbmethod": "lbMethod",
	"persistencetype": "persistenceType", "backupvserver": "backupVServer", "disableprimaryondown": "disablePrimaryOnDown", "connfailover": "connFailover",
	"somethod": "soMethod", "sothreshold": "soThreshold", "sobackupaction": "soBackupAction", "newservicerequest": "newServiceRequest",
	"newservicerequestincrementinterval": "newServiceRequestIncrementInterval", "resptimeout": "resptimeout", "successretries": "successRetries",
	"destport": "destPort", "httprequest": "httpRequest", "respcode": "respCode", "customheaders": "customHeaders", "username": "userName",
	"radkey": "radKey", "sessionticket": "sessionTicket", "clientauth": "clientAuth", "clientcert": "clientCert", "serverauth": "serverAuth",
	"backuplbmethod": "backupLBMethod", "edr": "EDR", "mir": "MIR", "ecs": "ECS", "ecsaddrvalidation": "ecsAddrValidation", "dnsrecordtype": "dnsRecordType",
	"sitename": "siteName", "ttl": "TTL", "backupip": "backupIP", "destip": "destIP",
	"commonname": "commonName", "snienable": "SNIEnable", "proxyprotocol": "proxyProtocol", "proxyprotocoltxversion": "proxyProtocolTxVersion",
}

// silent are properties that are part of another one, or stand by themselves.
var silent = []string{"type", "units3", "units4", "servicetype", "ipv46", "port", "ipaddress", "linkcertkeyname", "servername", "sitetype", "siteipaddress", "preferredlocation", "newservicerequestunit", "graceful"}

// units are those of properties that have one.
var units = map[string]string{"interval": "units3", "resptimeout": "units4", "newservicerequest": "newservicerequestunit"}

// options writes the properties of an item.
func options(it *item) string {
	var b strings.Builder
	for _, p := range it.props {
		v := plain(p.value)
		if v == "" || slices.Contains(silent, p.name) {
			continue
		}
		name := words[p.name]
		if name == "" {
			name = p.name
		}
		b.WriteString(" -" + name + " " + word(v))
		if u := it.get(units[p.name]); u != "" && u != "SEC" && v != "0" {
			b.WriteString(" " + u)
		}
	}
	return b.String()
}

// word quotes a value where that is needed.
func word(v string) string {
	if !strings.ContainsAny(v, " \"'\\\r\n#;{}()<>|") {
		return v
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\r", `\r`, "\n", `\n`).Replace(v) + `"`
}

// command writes the command that makes an item.
func command(it *item) string {
	k := make([]string, len(it.keys))
	for i := range it.keys {
		k[i] = word(plain(it.keys[i]))
	}
	o := options(it)
	switch it.kind.name {
	case "server":
		return "add server " + k[0] + " " + it.get("ipaddress") + o
	case "sslcertkey":
		return "add ssl certKey " + k[0] + o
	case "lbmonitor":
		return "add lb monitor " + k[0] + " " + k[1] + o
	case "netprofile":
		return "add netProfile " + k[0] + o
	case "servicegroup":
		return "add serviceGroup " + k[0] + " " + it.get("servicetype") + o
	case "sslservicegroup":
		return "set ssl serviceGroup " + k[0] + o
	case "servicegroup_servicegroupmember_binding":
		return "bind serviceGroup " + k[0] + " " + k[1] + " " + k[2] + o
	case "servicegroup_lbmonitor_binding":
		return "bind serviceGroup " + k[0] + " -monitorName " + k[1]
	case "sslservicegroup_sslcertkey_binding":
		return "bind ssl serviceGroup " + k[0] + " -certkeyName " + k[1] + " -CA"
	case "lbvserver":
		return "add lb vserver " + k[0] + " " + it.get("servicetype") + " " + it.get("ipv46") + " " + it.get("port") + o
	case "sslvserver":
		return "set ssl vserver " + k[0] + o
	case "sslvserver_sslcertkey_binding":
		ca := ""
		if it.keys[2] == true {
			ca = " -CA"
		}
		return "bind ssl vserver " + k[0] + " -certkeyName " + k[1] + ca
	case "sslvserver_sslcipher_binding":
		return "bind ssl vserver " + k[0] + " -cipherName " + k[1]
	case "lbvserver_servicegroup_binding":
		return "bind lb vserver " + k[0] + " " + k[1]
	case "lbgroup":
		return "add lb group " + k[0] + o
	case "gslbsite":
		return "add gslb site " + k[0] + " " + it.get("sitetype") + " " + it.get("siteipaddress") + o
	case "location":
		return "add location " + k[0] + " " + k[1] + " " + word(it.get("preferredlocation"))
	case "gslbservice":
		return "add gslb service " + k[0] + " " + it.get("servername") + " " + it.get("servicetype") + " *" + o
	case "gslbservice_lbmonitor_binding":
		return "bind gslb service " + k[0] + " -monitorName " + k[1]
	case "gslbvserver":
		return "add gslb vserver " + k[0] + " " + it.get("servicetype") + o
	case "gslbvserver_gslbservice_binding":
		return "bind gslb vserver " + k[0] + " -serviceName " + k[1] + o
	case "gslbvserver_domain_binding":
		return "bind gslb vserver " + k[0] + " -domainName " + k[1] + o
	case "service":
		return "add service " + k[0] + " " + it.get("servername") + " " + it.get("servicetype") + " " + it.get("port") + o
	case "lbgroup_lbvserver_binding":
		return "bind lb group " + k[0] + " " + k[1]
	}
	return "" // files are copied
}
