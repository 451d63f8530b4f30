package kemp

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A kind says what values a parameter takes.
type kind struct {
	name   string // as it is answered
	check  func(string) bool
	always string // what it is if nobody says; empty means it isn't answered then
	flag   bool
}

func flagKind(name, always string) kind {
	return kind{name: name, always: always, flag: true, check: func(s string) bool {
		return slices.Contains([]string{"0", "1", "Y", "N", "true", "false"}, s)
	}}
}

func number(name string, low, high int, always string) kind {
	return kind{name: name, always: always, check: func(s string) bool {
		n, err := strconv.Atoi(s)
		return err == nil && n >= low && n <= high
	}}
}

func oneOf(name, always string, values ...string) kind {
	return kind{name: name, always: always, check: func(s string) bool { return slices.Contains(values, s) }}
}

func text(name string, most int) kind {
	return kind{name: name, check: func(s string) bool { return len(s) <= most }}
}

// codes are statuses that a check waits for: 300 to 599, with spaces between.
func codes(s string) bool {
	for f := range strings.FieldsSeq(s) {
		if n, err := strconv.Atoi(f); err != nil || n < 300 || n > 599 {
			return false
		}
	}
	return len(s) <= 127
}

// orZero also takes 0, which unsets.
func orZero(k kind) kind {
	inner := k.check
	k.check = func(s string) bool { return s == "0" || inner(s) }
	return k
}

// serviceKinds are the parameters of addvs and modvs.
var serviceKinds = []kind{
	text("NickName", 127),
	oneOf("VStype", "gen", "gen", "http", "http2", "ts", "tls"),
	flagKind("Enable", "Y"), flagKind("ForceL7", "Y"), flagKind("Transparent", "N"), flagKind("SubnetOriginating", "N"), flagKind("UseforSnat", "N"),
	number("Idletime", 0, 86400, "660"),
	oneOf("Schedule", "rr", "rr", "wrr", "lc", "wlc", "fixed", "adaptive", "sh"),
	oneOf("Persist", "", "ssl", "cookie", "active-cookie", "cookie-src", "active-cook-src", "cookie-hash", "url", "query-hash", "host", "header",
		"super", "super-src", "src", "rdp", "rdp-src", "rdp-sb", "udpsip", "none"),
	number("PersistTimeout", 0, 604800, "0"), flagKind("RefreshPersist", "N"),
	number("MaxConnsLimit", 0, 1000000000, "0"), number("FollowVSID", 0, 1<<16, "0"), orZero(number("PortFollow", 3, 65530, "")),
	oneOf("CheckType", "tcp", "tcp", "icmp", "https", "http", "smtp", "nntp", "ftp", "telnet", "pop3", "imap", "rdp", "ldap", "none"),
	orZero(number("CheckPort", 3, 65530, "0")), text("CheckUrl", 126), text("CheckHost", 255), flagKind("CheckUse1.1", "N"),
	number("CheckUseGet", 0, 2, "0"),
	{name: "CheckCodes", check: codes},
	flagKind("SSLAcceleration", "N"), flagKind("SSLReencrypt", "N"), text("CertFile", 255), number("TlsType", 0, 31, "3"), text("ReverseSNIHostname", 255),
}

// timerKinds are further ones of newer firmware.
var timerKinds = []kind{
	orZero(number("ChkInterval", 9, 120, "0")), orZero(number("ChkTimeout", 4, 60, "0")), orZero(number("ChkRetryCount", 2, 15, "0")),
}

// serverKinds are the parameters of addrs and modrs.
var serverKinds = []kind{
	number("Weight", 1, 65535, "1000"), number("Limit", 0, 100000, "0"), number("RateLimit", 0, 100000, "0"), number("Follow", 0, 65535, "0"),
	flagKind("Enable", "Y"), flagKind("Critical", "N"), oneOf("Forward", "nat", "nat", "route"),
}

var healthKinds = []kind{number("RetryInterval", 9, 120, ""), number("Timeout", 4, 60, ""), number("RetryCount", 2, 15, "")}

func find(kinds []kind, name string) (kind, bool) {
	i := slices.IndexFunc(kinds, func(k kind) bool { return strings.EqualFold(k.name, name) })
	if i < 0 {
		return kind{}, false
	}
	return kinds[i], true
}

// canonical is a value as it is kept.
func (k kind) canonical(v string) string {
	if !k.flag {
		return v
	}
	if v == "1" || v == "Y" || v == "true" {
		return "Y"
	}
	return "N"
}

func defaults(kinds []kind) map[string]string {
	out := make(map[string]string)
	for _, k := range kinds {
		if k.always != "" {
			out[k.name] = k.always
		}
	}
	return out
}

func newService(addr, port, prot string) *service {
	s := &service{addr: addr, port: port, prot: prot, fields: defaults(serviceKinds)}
	delete(s.fields, "FollowVSID")
	if prot == "udp" {
		s.fields["CheckType"] = "icmp"
	}
	return s
}

func newServer(addr, port string) *server {
	return &server{addr: addr, port: port, fields: defaults(serverKinds)}
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}
