package kemp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// found is what is there.
type found struct {
	site, prefix string
	services     []*foundService // all, also those of others
	rules        []rule
	memory       memory
	fqdns        map[string]bool // names of GEO, and whether they are ours
	objects      []plugins.Object
}

// foundService is a virtual service that is there.
type foundService struct {
	node    *node
	index   string
	nick    string
	at      netip.AddrPort
	network string
	ours    bool
}

func (s *foundService) name() string { return serviceName(s.at, s.network) }

// where addresses a virtual service by what doesn't change, as its index does.
func where(at netip.AddrPort, network string) params {
	return params{"vs": at.Addr().String(), "port": strconv.Itoa(int(at.Port())), "prot": network}
}

// byName returns our service of a name, or nil.
func (f *found) byName(name string) *foundService {
	i := slices.IndexFunc(f.services, func(s *foundService) bool { return s.ours && s.name() == name })
	if i < 0 {
		return nil
	}
	return f.services[i]
}

// find reads what is there. Without a site it is that of the only one that is
// there.
func find(ctx context.Context, c *client, owner plugins.Owner, site string) (*found, error) {
	f := &found{site: site, prefix: owner.Prefix(site)}
	services, err := c.ask(ctx, "listvs", nil)
	if err != nil {
		return nil, err
	}
	certificates, err := c.ask(ctx, "listcert", nil)
	if err != nil {
		return nil, err
	}
	rules, err := c.ask(ctx, "showrule", nil)
	if err != nil {
		return nil, err
	}
	if site == "" {
		if f.prefix, err = onlyPrefix(owner, services, certificates, rules); err != nil {
			return nil, err
		}
	}
	f.readServices(services)
	held, err := f.readCertificates(ctx, c, certificates)
	if err != nil {
		return nil, err
	}
	f.arrange(held)
	f.readMemory(rules)
	if err := f.findNames(ctx, c); err != nil {
		return nil, err
	}
	f.memoryObjects()
	if f.site == "" && f.memory.Site != nil {
		f.site = f.memory.Site.Name
	}
	return f, nil
}

// onlyPrefix returns what the names of the only site that is there begin with.
func onlyPrefix(owner plugins.Owner, services, certificates, rules *node) (string, error) {
	mine := strings.TrimSuffix(owner.Prefix("x"), "x_")
	prefix := ""
	for _, list := range []struct {
		nodes []*node
		field string
	}{{services.all("VS"), "NickName"}, {certificates.all("cert"), "name"}, {rules.all("MatchContentRule"), "Name"}} {
		for _, n := range list.nodes {
			rest, ok := strings.CutPrefix(n.get(list.field), mine)
			word, _, more := strings.Cut(rest, "_")
			switch p := mine + word + "_"; {
			case !ok || !more:
			case prefix != "" && prefix != p:
				return "", fmt.Errorf("the LoadMaster has what is ours of several sites, %s* and %s*: name the site in the driver's configuration", prefix, p)
			default:
				prefix = p
			}
		}
	}
	if prefix == "" {
		prefix = owner.Prefix("")
	}
	return prefix, nil
}

// arrange puts what is there in the order of what is wanted.
func (f *found) arrange(certificates []plugins.Object) {
	some := func(kind string) {
		for _, o := range certificates {
			if o.Kind == kind {
				f.objects = append(f.objects, o)
			}
		}
	}
	some(kindCertificate)
	for _, s := range f.services {
		if s.ours {
			f.objects = append(f.objects, f.serviceObject(s))
		}
	}
	some(kindACME)
	for _, s := range f.services {
		if s.ours {
			f.objects = append(f.objects, within(s)...)
		}
	}
}

// readServices reads the virtual services.
func (f *found) readServices(list *node) {
	for _, n := range list.all("VS") {
		s := &foundService{node: n, index: n.get("Index"), nick: n.get("NickName"), network: n.get("Protocol")}
		addr, err := netip.ParseAddr(n.get("VSAddress"))
		port, portErr := strconv.ParseUint(n.get("VSPort"), 10, 16)
		if err != nil || portErr != nil {
			continue // part of another service, or one for all ports
		}
		s.at, s.ours = netip.AddrPortFrom(addr.Unmap(), uint16(port)), strings.HasPrefix(s.nick, f.prefix)
		f.services = append(f.services, s)
	}
}

// serviceFields are what is looked at of a virtual service.
var serviceFields = []string{
	"NickName", "Enable", "ForceL7", "Transparent", "Idletime", "Schedule", "Persist", "PersistTimeout", "RefreshPersist", "MaxConnsLimit", "FollowVSID",
	"CheckType", "CheckPort", "CheckUrl", "CheckHost", "CheckUse1.1", "CheckUseGet", "CheckCodes", "ChkInterval", "ChkTimeout", "ChkRetryCount",
}

// flags are the fields that are booleans.
var flags = []string{"Enable", "ForceL7", "Transparent", "RefreshPersist", "CheckUse1.1", "SSLAcceleration", "SSLReencrypt"}

func (f *found) serviceObject(s *foundService) plugins.Object {
	o := plugins.Object{Kind: kindService, Name: s.name()}
	for _, name := range serviceFields {
		value := s.node.get(name)
		switch {
		case slices.Contains(flags, name):
			value = yesNo(isYes(value))
		case name == "Persist" && value == "":
			value = "none"
		case name == "FollowVSID":
			value = f.byIndex(value)
		case name == "MaxConnsLimit" && value == "0":
			value = ""
		}
		o.Fields = append(o.Fields, plugins.Field{Name: name, Value: value})
	}
	return o
}

// byIndex returns the name of the service with an index: indexes change, names
// don't.
func (f *found) byIndex(index string) string {
	if index == "" || index == "0" {
		return ""
	}
	for _, s := range f.services {
		if s.index == index {
			return s.name()
		}
	}
	return "index " + index
}

// within returns the TLS and the real servers of a service.
func within(s *foundService) []plugins.Object {
	var out []plugins.Object
	if s.node.yes("SSLAcceleration") || s.node.get("CertFile") != "" {
		o := plugins.Object{Kind: kindTLS, Name: s.name()}
		for _, name := range []string{"SSLAcceleration", "SSLReencrypt", "CertFile", "TlsType", "ReverseSNIHostname"} {
			value := s.node.get(name)
			switch {
			case slices.Contains(flags, name):
				value = yesNo(isYes(value))
			case name == "CertFile":
				var list []string
				for _, n := range s.node.all(name) {
					list = append(list, strings.Fields(n.text)...)
				}
				value = strings.Join(list, " ")
			}
			o.Fields = append(o.Fields, plugins.Field{Name: name, Value: value})
		}
		out = append(out, o)
	}
	for _, n := range s.node.all("Rs") {
		out = append(out, plugins.Object{Kind: kindServer, Name: s.name() + " " + serverAddress(n), Fields: []plugins.Field{
			{Name: "Weight", Value: n.get("Weight")}, {Name: "Limit", Value: strconv.FormatUint(n.number("Limit"), 10)}, {Name: "Enable", Value: yesNo(n.yes("Enable"))},
		}})
	}
	return out
}

// serverAddress is a real server's address, as a name has it.
func serverAddress(n *node) string {
	addr, err := netip.ParseAddr(n.get("Addr"))
	port := n.number("Port")
	if err != nil || port > 65535 {
		return n.get("Addr") + " port " + n.get("Port")
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)).String()
}

// readCertificates reads our certificates.
func (f *found) readCertificates(ctx context.Context, c *client, list *node) ([]plugins.Object, error) {
	var out []plugins.Object
	for _, n := range list.all("cert") {
		name := n.get("name")
		if !strings.HasPrefix(name, f.prefix) {
			continue
		}
		answer, err := c.ask(ctx, "readcert", params{"cert": name})
		if err != nil {
			return nil, err
		}
		text := answer.get("certificate")
		if text == "" {
			text = answer.text // XML has it bare
		}
		o := plugins.Object{Kind: kindCertificate, Name: name}
		acme := strings.HasPrefix(name, f.prefix+"acme_")
		field := plugins.Field{Name: "sha256", Value: "unreadable"}
		if leaf, err := leafOf([]byte(text)); err == nil {
			field.Value = sumOf(leaf)
			if acme {
				field.Value = strings.ToLower(strings.Join(leaf.DNSNames, " "))
			}
		}
		if acme {
			o.Kind, field.Name = kindACME, "host"
		}
		o.Fields = []plugins.Field{field}
		out = append(out, o)
	}
	return out, nil
}

// readRules reads what was kept, and shows it.
func (f *found) readRules(list *node) {
	f.readMemory(list)
	f.memoryObjects()
}

// readMemory reads what was kept.
func (f *found) readMemory(list *node) {
	for _, n := range list.all("MatchContentRule") {
		if r, ok := parseRule(f.prefix, n.get("Name"), n.get("Pattern")); ok {
			f.rules = append(f.rules, r)
		}
	}
	f.memory, _, _ = unpack(f.rules)
}

// memoryObjects shows what was kept.
func (f *found) memoryObjects() {
	if len(f.rules) == 0 {
		return
	}
	m, generation, alone := unpack(f.rules)
	state := memoryWhole
	if generation == 0 || !alone {
		state = "left over"
	}
	f.objects = append(f.objects, memoryObject(m.Revision, state))
}

// taken says which of the addresses that are wanted are somebody else's.
func (f *found) taken(want []service) error {
	for i := range want {
		w := &want[i]
		for _, s := range f.services {
			if !s.ours && s.at == w.address() && s.network == w.network() {
				return fmt.Errorf("%s %v is taken on the LoadMaster by a virtual service that isn't ours, %q", w.network(), s.at, s.nick)
			}
		}
	}
	return nil
}
