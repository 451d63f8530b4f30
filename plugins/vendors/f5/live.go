package f5

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/gslb"
)

// liveVirtual is a virtual server as iControl REST has it.
type liveVirtual struct {
	Name            string `json:"name"`
	SubPath         string `json:"subPath"`
	Destination     string `json:"destination"`
	Pool            string `json:"pool"`
	Disabled        bool   `json:"disabled"`
	ConnectionLimit int    `json:"connectionLimit"`
	Translation     struct {
		Type string `json:"type"`
	} `json:"sourceAddressTranslation"`
	Persist []struct {
		Name string `json:"name"`
	} `json:"persist"`
}

// livePool is a pool with its members.
type livePool struct {
	Name    string `json:"name"`
	SubPath string `json:"subPath"`
	Method  string `json:"loadBalancingMode"`
	Active  int    `json:"minActiveMembers"`
	Ramp    int    `json:"slowRampTime"`
	Members struct {
		Items []liveMember `json:"items"`
	} `json:"membersReference"`
}

// liveMember is a member. Session is user-enabled, monitor-enabled or user-disabled;
// State is up, down, unchecked or user-down.
type liveMember struct {
	Name     string `json:"name"`
	FullPath string `json:"fullPath"`
	Ratio    int    `json:"ratio"`
	Priority int    `json:"priorityGroup"`
	Limit    int    `json:"connectionLimit"`
	Session  string `json:"session"`
	State    string `json:"state"`
}

func (m *liveMember) admin() state {
	switch {
	case m.State == "user-down":
		return stateOffline
	case m.Session == "user-disabled":
		return stateDisable
	}
	return stateEnable
}

// live is what the BIG-IP really has of a tenant, by application and name.
type live struct {
	virtuals map[string]*liveVirtual
	pools    map[string]*livePool
	names    map[string]*liveName // wide IPs and their pools, by type of record, application and name
}

// liveName is a wide IP or a pool of one.
type liveName struct {
	Name     string `json:"name"`
	SubPath  string `json:"subPath"`
	LBMode   string `json:"poolLbMode"`
	Method   string `json:"loadBalancingMode"`
	TTL      *int   `json:"ttl"`
	Disabled bool   `json:"disabled"`
}

// answers reads the wide IPs and pools of a tenant.
func (c *client) answers(ctx context.Context, tenant string, out *live) error {
	filter := url.Values{"$filter": {"partition eq " + tenant}}
	for _, kind := range []string{"wideip", "pool"} {
		for _, record := range gslb.Families() {
			var list struct {
				Items []liveName `json:"items"`
			}
			if _, err := c.get(ctx, "/mgmt/tm/gtm/"+kind+"/"+strings.ToLower(record), filter, &list); err != nil {
				return err
			}
			for i := range list.Items {
				x := &list.Items[i]
				out.names[record+" "+x.SubPath+"/"+x.Name] = x
			}
		}
	}
	return nil
}

// correctName has a wide IP, or a pool of one, be what the BIG-IP really has.
func (l *live) correctName(o *plugins.Object, set func(name, value string)) bool {
	app, name, _ := strings.Cut(o.Name, "/")
	if o.Kind == "GSLB_Domain" {
		name = o.Get("domainName")
	}
	x := l.names[o.Get("resourceRecordType")+" "+app+"/"+name]
	if x == nil {
		return false
	}
	if o.Kind == "GSLB_Domain" {
		if set("poolLbMode", x.LBMode); x.Disabled {
			set("enabled", "false")
		}
		return true
	}
	if set("lbModePreferred", x.Method); x.TTL != nil {
		set("ttl", strconv.Itoa(*x.TTL))
	}
	set("enabled", strconv.FormatBool(!x.Disabled))
	return true
}

// free refuses to declare /Common while somebody has made topology records by hand: AS3
// keeps all of them together, and removes those that it wasn't told of, also where a
// declaration has none. What others have declared goes with ours.
func (s *target) free(ctx context.Context, w *wanted, f *found) error {
	if w.withShared(f, s.config.Owner) == nil {
		return nil
	}
	declared := 0
	app, _ := f.common.tenant[shared].(map[string]any)
	for _, v := range app {
		if body, _ := v.(map[string]any); body["class"] == "GSLB_Topology_Records" {
			list, _ := body["records"].([]any)
			declared += len(list)
		}
	}
	var list struct {
		Items []struct{} `json:"items"`
	}
	if _, err := s.client.get(ctx, "/mgmt/tm/gtm/topology", nil, &list); err != nil && statusOf(err) != http.StatusNotFound {
		return fmt.Errorf("f5: read topology records: %w", err)
	}
	if n := len(list.Items) - declared; n > 0 {
		return fmt.Errorf("f5: the BIG-IP has %d topology records that AS3 wasn't told of, and would remove: declare them by AS3 in /Common/Shared, or remove them", n)
	}
	return nil
}

func (c *client) live(ctx context.Context, tenant string, answers bool) (*live, error) {
	out := &live{virtuals: make(map[string]*liveVirtual), pools: make(map[string]*livePool), names: make(map[string]*liveName)}
	filter := url.Values{"$filter": {"partition eq " + tenant}}
	var virtuals struct {
		Items []liveVirtual `json:"items"`
	}
	if _, err := c.get(ctx, "/mgmt/tm/ltm/virtual", filter, &virtuals); err != nil {
		return nil, err
	}
	for i := range virtuals.Items {
		v := &virtuals.Items[i]
		out.virtuals[v.SubPath+"/"+v.Name] = v
	}
	filter.Set("expandSubcollections", "true")
	var pools struct {
		Items []livePool `json:"items"`
	}
	if _, err := c.get(ctx, "/mgmt/tm/ltm/pool", filter, &pools); err != nil {
		return nil, err
	}
	for i := range pools.Items {
		p := &pools.Items[i]
		out.pools[p.SubPath+"/"+p.Name] = p
	}
	if answers {
		return out, c.answers(ctx, tenant, out)
	}
	return out, nil
}

// more says which of two states lets in less.
func more(a, b state) bool {
	rank := map[state]int{stateEnable: 0, stateDisable: 1, stateOffline: 2}
	return rank[a] > rank[b]
}

// correct has an object be what the BIG-IP really has, where AS3 says otherwise: a
// person may have altered it. It returns false if it isn't there at all. drained says
// which members are only drained.
func (l *live) correct(o *plugins.Object, body map[string]any, drained func(member string, is state) state) bool {
	set := func(name, value string) {
		for i := range o.Fields {
			if o.Fields[i].Name == name {
				o.Fields[i].Value = value
				return
			}
		}
		o.Fields = append(o.Fields, plugins.Field{Name: name, Value: value})
	}
	switch o.Kind {
	case "GSLB_Domain", "GSLB_Pool":
		return l.correctName(o, set)
	case "Service_TCP", "Service_UDP":
		v := l.virtuals[o.Name]
		if v == nil {
			return false
		}
		l.correctService(v, set)
	case "Pool":
		p := l.pools[o.Name]
		if p == nil {
			return false
		}
		set("loadBalancingMode", p.Method)
		set("minimumMembersActive", strconv.Itoa(p.Active))
		set("slowRampTime", strconv.Itoa(p.Ramp))
		p.correctMembers(o, body, set, drained)
	}
	return true
}

func (l *live) correctService(v *liveVirtual, set func(name, value string)) {
	snat := v.Translation.Type
	switch snat {
	case "automap":
		snat = "auto"
	case "":
		snat = "none"
	}
	set("snat", snat)
	set("pool", last(v.Pool))
	set("maxConnections", strconv.Itoa(v.ConnectionLimit))
	host, port := split(last(v.Destination))
	set("virtualAddresses[0]", host)
	set("virtualPort", port)
	if v.Disabled {
		set("enable", "false")
	}
	persist := ""
	if len(v.Persist) > 0 {
		persist = v.Persist[0].Name
	}
	set("persistenceMethods[0].use", persist)
}

func (p *livePool) correctMembers(o *plugins.Object, body map[string]any, set func(name, value string), drained func(string, state) state) {
	seen := make(map[string]bool)
	list, _ := body["members"].([]any)
	for i := range list {
		at := "members[" + strconv.Itoa(i) + "]."
		name := join(o.Get(at+"serverAddresses[0]"), o.Get(at+"servicePort"))
		seen[name] = true
		m := p.member(name)
		if m == nil {
			set(at+"serverAddresses[0]", "")
			continue
		}
		set(at+"ratio", strconv.Itoa(m.Ratio))
		set(at+"priorityGroup", strconv.Itoa(m.Priority))
		set(at+"connectionLimit", strconv.Itoa(m.Limit))
		set(at+"adminState", string(drained(name, m.admin())))
	}
	for i := range p.Members.Items {
		if m := &p.Members.Items[i]; !seen[m.Name] {
			set("members["+m.Name+"]", "there")
		}
	}
}

func (p *livePool) member(name string) *liveMember {
	for i := range p.Members.Items {
		if p.Members.Items[i].Name == name {
			return &p.Members.Items[i]
		}
	}
	return nil
}

// last returns the last part of a path.
func last(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// split divides what BIG-IP calls an address and port.
func split(s string) (host, port string) {
	sep := ":"
	if strings.Count(s, ":") > 1 {
		sep = "."
	}
	i := max(strings.LastIndex(s, sep), 0)
	return s[:i], strings.TrimPrefix(s[i:], sep)
}

func join(host, port string) string {
	if strings.Contains(host, ":") {
		return host + "." + port
	}
	return host + ":" + port
}
