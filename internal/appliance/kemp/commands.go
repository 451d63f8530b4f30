package kemp

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A fault is what a command ends with that is refused.
type fault struct {
	code int
	text string
}

func bad(format string, args ...any) *fault { return &fault{422, fmt.Sprintf(format, args...)} }

// An answer is the content of an answer: fields and lists of further answers, in
// order. Values are strings, ints, flags and answers.
type answer []entry

type entry struct {
	name  string
	value any
}

// yesNo is a boolean, which JSON and XML spell differently.
type yesNo bool

// args are the parameters of a command.
type args struct {
	values map[string]string // by lower-case name
	file   []byte
}

// take returns a parameter, and forgets it.
func (a *args) take(name string) string {
	v := a.values[name]
	delete(a.values, name)
	return v
}

// rest refuses what nobody took.
func (a *args) rest() *fault {
	for _, name := range slices.Sorted(maps.Keys(a.values)) {
		return bad("Unknown parameter %s", name)
	}
	return nil
}

// reads are the commands that alter nothing.
var reads = map[string]func(*Box, *args) (answer, *fault){
	"listvs": (*Box).listServices, "showvs": (*Box).showService, "listcert": (*Box).listCerts, "readcert": (*Box).readCert,
	"showrule": (*Box).showRules, "stats": (*Box).stats, "showhealth": (*Box).showHealth,
	"listfqdns": (*Box).listNames,
}

var writes = map[string]func(*Box, *args) (answer, *fault){
	"addvs": (*Box).addService, "modvs": (*Box).modService, "delvs": (*Box).delService, "addrs": (*Box).addServer, "modrs": (*Box).modServer,
	"delrs": (*Box).delServer, "disablers": (*Box).disableServer, "addcert": (*Box).addCert, "delcert": (*Box).delCert, "addrule": (*Box).addRule,
	"delrule": (*Box).delRule, "addacmecert": (*Box).addACME, "delacmecert": (*Box).delACME, "modhealth": (*Box).modHealth,
	"addfqdn": (*Box).addName, "modfqdn": (*Box).modName, "delfqdn": (*Box).delName, "addmap": (*Box).addMap, "modmap": (*Box).modMap, "delmap": (*Box).delMap,
	"changecheckeraddr": (*Box).checkerAddress, "addcountry": (*Box).addPlace, "removecountry": (*Box).removePlace,
}

func (b *Box) kinds() []kind {
	if b.ServiceTimers {
		return slices.Concat(serviceKinds, timerKinds)
	}
	return serviceKinds
}

// service returns the virtual service that a command is about: by its index, or its
// address, port and protocol.
func (b *Box) service(a *args) (*service, *fault) {
	vs, port, prot := a.take("vs"), a.take("port"), a.take("prot")
	if vs == "" {
		return nil, bad("vs: Address Value missing")
	}
	if i, err := strconv.Atoi(vs); err == nil && port == "" && prot == "" {
		if i < 1 || i > len(b.services) {
			return nil, bad("Unknown VS")
		}
		return b.services[i-1], nil
	}
	for _, s := range b.services {
		if s.addr == vs && s.port == port && s.prot == prot {
			return s, nil
		}
	}
	return nil, bad("Unknown VS")
}

// index is that of a service: it changes when another one goes.
func (b *Box) index(s *service) int { return slices.Index(b.services, s) + 1 }

func (b *Box) addService(a *args) (answer, *fault) {
	vs, port, prot := a.take("vs"), a.take("port"), a.take("prot")
	n, err := strconv.Atoi(port)
	switch {
	case !isAddr(vs):
		return nil, bad("Invalid VS IP address")
	case err != nil || n < 3 || n > 65530:
		return nil, bad("Invalid port")
	case prot != "tcp" && prot != "udp":
		return nil, bad("Invalid protocol")
	}
	for _, s := range b.services {
		if s.addr == vs && s.port == port && s.prot == prot {
			return nil, bad("VS already exists")
		}
	}
	s := newService(vs, port, prot)
	if b.ServiceTimers {
		maps.Copy(s.fields, defaults(timerKinds))
	}
	b.services = append(b.services, s)
	if f := b.setService(s, a); f != nil {
		return nil, f // and yet it is there
	}
	return b.describe(s), nil
}

func (b *Box) modService(a *args) (answer, *fault) {
	s, f := b.service(a)
	if f != nil {
		return nil, f
	}
	if f := b.setService(s, a); f != nil {
		return nil, f
	}
	return b.describe(s), nil
}

// setService sets what is said, one after the other, until something is wrong.
func (b *Box) setService(s *service, a *args) *fault {
	for _, name := range slices.Sorted(maps.Keys(a.values)) {
		value := a.values[name]
		k, ok := find(b.kinds(), name)
		if !ok {
			return bad("Unknown parameter %s", name)
		}
		if !k.check(value) {
			return bad("Invalid value for %s", k.name)
		}
		if f := b.fits(s, k.name, value); f != nil {
			return f
		}
		switch {
		case k.name == "FollowVSID":
			s.leader = nil
			if i, _ := strconv.Atoi(value); i > 0 { // it was checked
				s.leader = b.services[i-1]
			}
		case k.name == "PortFollow":
			s.leader = nil
			for _, o := range b.services {
				if o.addr == s.addr && o.prot == s.prot && o.port == value {
					s.leader = o
				}
			}
		case value == "" || k.name == "Persist" && value == "none":
			delete(s.fields, k.name)
		default:
			s.fields[k.name] = k.canonical(value)
		}
	}
	return nil
}

// fits refuses what a service can't be.
func (b *Box) fits(s *service, name, value string) *fault {
	switch name {
	case "CheckType":
		if s.prot == "udp" && value != "icmp" && value != "none" {
			return bad("Invalid check type for a UDP service")
		}
	case "SSLAcceleration", "SSLReencrypt":
		if s.prot == "udp" {
			return bad("SSL is not available for UDP")
		}
	case "CertFile":
		for c := range strings.FieldsSeq(value) {
			if b.cert(c) == nil {
				return bad("Unknown certificate %s", c)
			}
		}
	case "FollowVSID":
		i, err := strconv.Atoi(value)
		switch {
		case err != nil || i > len(b.services):
			return bad("Unknown VS to follow")
		case i > 0 && (b.services[i-1] == s || b.services[i-1].addr != s.addr || b.services[i-1].prot != s.prot || b.services[i-1].leader != nil):
			return bad("This VS can't be followed")
		}
	}
	return nil
}

func (b *Box) delService(a *args) (answer, *fault) {
	s, f := b.service(a)
	if f != nil {
		return nil, f
	}
	if f := a.rest(); f != nil {
		return nil, f
	}
	b.services = slices.DeleteFunc(b.services, func(x *service) bool { return x == s })
	for _, o := range b.services {
		if o.leader == s {
			o.leader = nil
		}
	}
	return nil, nil
}

// server returns the real server that a command is about.
func (b *Box) oneServer(a *args) (*service, *server, *fault) {
	s, f := b.service(a)
	if f != nil {
		return nil, nil, f
	}
	addr, port := a.take("rs"), a.take("rsport")
	for i, r := range s.servers {
		if r.addr == addr && r.port == port || addr == "!"+strconv.Itoa(b.serverIndex(s, i)) {
			return s, r, nil
		}
	}
	return nil, nil, bad("Unknown RS")
}

// serverIndex counts the real servers of all services.
func (b *Box) serverIndex(s *service, i int) int {
	n := i + 1
	for _, o := range b.services {
		if o == s {
			break
		}
		n += len(o.servers)
	}
	return n
}

func (b *Box) addServer(a *args) (answer, *fault) {
	s, f := b.service(a)
	if f != nil {
		return nil, f
	}
	addr, port := a.take("rs"), a.take("rsport")
	n, err := strconv.Atoi(port)
	if !isAddr(addr) || err != nil || n < 3 || n > 65530 {
		return nil, bad("Invalid RS address or port")
	}
	remote := a.take("non_local") == "1"
	if strings.HasPrefix(addr, "198.51.100.") && !remote {
		return nil, bad("Couldn't create RS: not on a local network")
	}
	if slices.ContainsFunc(s.servers, func(r *server) bool { return r.addr == addr && r.port == port }) {
		return nil, bad("RS already exists")
	}
	r := newServer(addr, port)
	s.servers = append(s.servers, r)
	return nil, setServer(r, a)
}

func setServer(r *server, a *args) *fault {
	for _, name := range slices.Sorted(maps.Keys(a.values)) {
		k, ok := find(serverKinds, name)
		if !ok {
			return bad("Unknown parameter %s", name)
		}
		if !k.check(a.values[name]) {
			return bad("Invalid value for %s", k.name)
		}
		r.fields[k.name] = k.canonical(a.values[name])
	}
	return nil
}

func (b *Box) modServer(a *args) (answer, *fault) {
	_, r, f := b.oneServer(a)
	if f != nil {
		return nil, f
	}
	return nil, setServer(r, a)
}

func (b *Box) delServer(a *args) (answer, *fault) {
	s, r, f := b.oneServer(a)
	if f != nil {
		return nil, f
	}
	s.servers = slices.DeleteFunc(s.servers, func(x *server) bool { return x == r })
	return nil, a.rest()
}

// disableServer disables an address in every service, also in those of others: that
// is what the real command does.
func (b *Box) disableServer(a *args) (answer, *fault) {
	addr := a.take("rs")
	for _, s := range b.services {
		for _, r := range s.servers {
			if r.addr == addr {
				r.fields["Enable"] = "N"
			}
		}
	}
	return nil, a.rest()
}

func (b *Box) cert(name string) *cert {
	i := slices.IndexFunc(b.certs, func(c *cert) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return b.certs[i]
}

func (b *Box) addCert(a *args) (answer, *fault) {
	name, replace := a.take("cert"), a.take("replace") == "1"
	a.take("password")
	if f := a.rest(); f != nil {
		return nil, f
	}
	old := b.cert(name)
	switch {
	case name == "" || strings.ContainsFunc(name, func(r rune) bool { return !isWord(r) }):
		return nil, bad("Invalid certificate identifier")
	case !validPair(a.file):
		return nil, bad("Certificate invalid: %s", a.file) // a careless one: it repeats the key
	case old != nil && !replace:
		return nil, bad("Certificate already exists")
	case old == nil && replace:
		return nil, bad("Certificate does not exist")
	case old != nil:
		old.pem = string(a.file)
		return nil, nil
	}
	b.certs = append(b.certs, &cert{name: name, pem: string(a.file)})
	return nil, nil
}

func isWord(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.'
}

func (b *Box) delCert(a *args) (answer, *fault) { return b.dropCert(a, false) }

func (b *Box) dropCert(a *args, acme bool) (answer, *fault) {
	name := a.take("cert")
	c := b.cert(name)
	if c == nil || c.acme != acme {
		return nil, bad("Unknown certificate")
	}
	for _, s := range b.services {
		if slices.Contains(strings.Fields(s.fields["CertFile"]), name) {
			return nil, bad("Certificate is in use")
		}
	}
	b.certs = slices.DeleteFunc(b.certs, func(x *cert) bool { return x == c })
	return nil, a.rest()
}

func (b *Box) addACME(a *args) (answer, *fault) {
	name, cn, vid := a.take("cert"), a.take("cn"), a.take("vid")
	size, account := a.take("key_size"), a.take("acmetype")
	if f := a.rest(); f != nil {
		return nil, f
	}
	i, err := strconv.Atoi(vid)
	switch {
	case err != nil || i < 1 || i > len(b.services):
		return nil, bad("Unknown VS")
	case account != "1" && account != "2", size != "2048" && size != "4096":
		return nil, bad("Invalid value")
	case !b.account:
		return nil, bad("No ACME account is registered")
	case b.cert(name) != nil:
		return nil, bad("Certificate already exists")
	}
	text, _, err := Issue(cn)
	if err != nil {
		return nil, bad("%v", err)
	}
	b.certs = append(b.certs, &cert{name: name, pem: text, acme: true})
	return nil, nil
}

// Issue makes a certificate for a name, and its key, as PEM.
func Issue(host string) (certificate, privateKey string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return "", "", err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})), nil
}

func (b *Box) delACME(a *args) (answer, *fault) {
	a.take("acmetype")
	return b.dropCert(a, true)
}

func (b *Box) addRule(a *args) (answer, *fault) {
	name, pattern := a.take("name"), a.take("pattern")
	if a.take("type") != "0" || a.take("matchtype") != "regex" {
		return nil, bad("Invalid rule type")
	}
	if f := a.rest(); f != nil {
		return nil, f
	}
	switch {
	case name == "" || len(name) > 127 || strings.ContainsFunc(name, func(r rune) bool { return !isWord(r) }):
		return nil, bad("Invalid rule name")
	case pattern == "" || len(pattern) > 250:
		return nil, bad("Invalid pattern")
	case slices.ContainsFunc(b.rules, func(r *rule) bool { return r.name == name }):
		return nil, bad("Rule already exists")
	}
	b.rules = append(b.rules, &rule{name, pattern})
	return nil, nil
}

func (b *Box) delRule(a *args) (answer, *fault) {
	name := a.take("name")
	n := len(b.rules)
	b.rules = slices.DeleteFunc(b.rules, func(r *rule) bool { return r.name == name })
	if len(b.rules) == n {
		return nil, bad("Unknown rule")
	}
	return nil, a.rest()
}

func (b *Box) modHealth(a *args) (answer, *fault) {
	for name, v := range a.values {
		k, ok := find(healthKinds, name)
		if !ok || !k.check(v) {
			return nil, bad("Invalid value for %s", name)
		}
		b.health[k.name] = v
	}
	return nil, nil
}

func (b *Box) showHealth(a *args) (answer, *fault) {
	var out answer
	for _, k := range healthKinds {
		out = append(out, entry{k.name, b.health[k.name]})
	}
	return out, a.rest()
}

func (b *Box) listServices(a *args) (answer, *fault) {
	var out answer
	for _, s := range b.services {
		out = append(out, entry{"VS", b.describe(s)})
	}
	return out, a.rest()
}

func (b *Box) showService(a *args) (answer, *fault) {
	s, f := b.service(a)
	if f != nil {
		return nil, f
	}
	return b.describe(s), a.rest()
}

// numbers are the fields that JSON has as numbers.
var numbers = []string{"Idletime", "CheckUseGet", "MaxConnsLimit", "ChkInterval", "ChkTimeout", "ChkRetryCount", "Weight", "Limit", "RateLimit", "Follow"}

func fieldEntries(kinds []kind, fields map[string]string) answer {
	var out answer
	for _, k := range kinds {
		v, ok := fields[k.name]
		if !ok {
			continue
		}
		var x any = v
		if k.flag {
			x = yesNo(v == "Y")
		} else if n, err := strconv.Atoi(v); err == nil && slices.Contains(numbers, k.name) {
			x = n
		}
		out = append(out, entry{k.name, x})
	}
	return out
}

func (b *Box) status(s *service, r *server) string {
	switch {
	case r.fields["Enable"] != "Y":
		return "Disabled"
	case b.lost[r.addr] && s.fields["CheckType"] != "none":
		return "Down"
	}
	return "Up"
}

func (b *Box) describe(s *service) answer {
	status := "Down"
	for _, r := range s.servers {
		if b.status(s, r) == "Up" {
			status = "Up"
		}
	}
	if s.fields["Enable"] != "Y" {
		status = "Disabled"
	}
	follows := 0
	if s.leader != nil {
		follows = b.index(s.leader)
	}
	out := answer{
		{"Status", status},
		{"Index", b.index(s)},
		{"VSAddress", s.addr},
		{"VSPort", s.port},
		{"Protocol", s.prot},
		{"FollowVSID", follows},
		{"MasterVS", 0},
		{"MasterVSID", 0},
		{"NumberOfRSs", len(s.servers)},
	}
	out = append(out, fieldEntries(b.kinds(), s.fields)...)
	for i, r := range s.servers {
		port, err := strconv.Atoi(r.port)
		if err != nil {
			port = 0
		}
		rs := answer{
			{"Status", b.status(s, r)}, {"VSIndex", b.index(s)}, {"RsIndex", b.serverIndex(s, i)}, {"Addr", r.addr}, {"Port", port}, {"DnsName", ""},
		}
		out = append(out, entry{"Rs", append(rs, fieldEntries(serverKinds, r.fields)...)})
	}
	return out
}

func (b *Box) listCerts(a *args) (answer, *fault) {
	var out answer
	for _, c := range b.certs {
		out = append(out, entry{"cert", answer{{"name", c.name}, {"type", "RSA"}, {"modulus", "00"}}})
	}
	return out, a.rest()
}

func (b *Box) readCert(a *args) (answer, *fault) {
	c := b.cert(a.take("cert"))
	if c == nil {
		return nil, bad("Unknown certificate")
	}
	// It never gives the key away.
	leaf, _ := pem.Decode([]byte(c.pem))
	if leaf == nil {
		return nil, bad("Certificate can't be read")
	}
	return answer{{"certificate", string(pem.EncodeToMemory(leaf))}}, a.rest()
}

func (b *Box) showRules(a *args) (answer, *fault) {
	var out answer
	for _, r := range b.rules {
		out = append(out, entry{"MatchContentRule", answer{{"Name", r.name}, {"MatchType", "regex"}, {"Pattern", r.pattern}}})
	}
	return out, a.rest()
}

func (b *Box) stats(a *args) (answer, *fault) {
	out := answer{{"VStotals", answer{{"TotalConns", 0}}}}
	var servers answer
	for _, s := range b.services {
		active := 0
		for i, r := range s.servers {
			active += r.persist
			servers = append(servers, entry{"Rs", answer{
				{"VSIndex", b.index(s)},
				{"RSIndex", b.serverIndex(s, i)},
				{"Addr", r.addr},
				{"Port", r.port},
				{"Enable", cmp.Or(map[string]int{"Y": 1}[r.fields["Enable"]], 0)},
				{"Weight", r.fields["Weight"]},
				{"ActivConns", r.persist},
				{"Persist", r.persist},
				{"Conns", 10 * r.persist},
				{"Pkts", 0},
				{"Bytes", 3000 * r.persist},
				{"Bits", 24000 * r.persist},
				{"BytesRead", 1000 * r.persist},
				{"BytesWritten", 2000 * r.persist},
				{"ConnsPerSec", 0},
			}})
		}
		out = append(out, entry{"Vs", answer{
			{"VSAddress", s.addr},
			{"VSPort", s.port},
			{"VSProt", s.prot},
			{"Index", b.index(s)},
			{"ErrorCode", 0},
			{"Enable", 1},
			{"TotalConns", 10 * active},
			{"TotalPkts", 0},
			{"TotalBytes", 3000 * active},
			{"ActiveConns", active},
			{"BytesRead", 1000 * active},
			{"BytesWritten", 2000 * active},
		}})
	}
	return append(out, servers...), a.rest()
}
