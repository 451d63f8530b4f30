package keepalived

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// byScript reports whether a check is made by the script.
func (s Settings) byScript(c *plugins.Check) bool {
	return s.Script != "" && !c.Advisory && (c.Type == plugins.CheckSSTP || c.Type == plugins.CheckHTTPS && c.VerifyTLS)
}

// byProbe reports whether a check is made by aovlb probe.
func (s Settings) byProbe(c *plugins.Check) bool {
	return s.Probe != "" && !c.Advisory && c.Type == plugins.CheckRADIUS && c.SecretFile != "" && !strings.ContainsFunc(c.SecretFile+c.User, notPlain)
}

// checks returns the checks that keepalived can make, with their usual values.
func (s Settings) checks(p *plugins.Pool) []plugins.Check {
	var out []plugins.Check
	for _, c := range p.Checks {
		if c.Advisory || c.Type == plugins.CheckRadSec || c.Type == plugins.CheckRADIUS && !s.byProbe(&c) {
			continue
		}
		c = c.Usual()
		c.Path = cmp.Or(c.Path, "/")
		if c.Type == plugins.CheckSSTP {
			c.Path = plugins.SSTPPath
		}
		out = append(out, c)
	}
	return out
}

// check is a checker of keepalived's.
func (r *renderer) check(p *plugins.Pool, c *plugins.Check, to netip.Addr) block {
	if command := r.command(c, to); command != "" {
		b := block{head: "MISC_CHECK", note: "check " + c.Name}
		b.add("misc_path \"%s\"", command)
		b.add("misc_timeout %d", seconds(c.Timeout.D())+1)
		b.add("user %s", r.settings.User)
		r.rhythm(&b, c)
		return b
	}
	b := block{note: "check " + c.Name}
	if c.Type != plugins.CheckICMP {
		b.add("connect_port %d", c.Port)
	}
	b.add("connect_timeout %s", timer(c.Timeout.D()))
	r.rhythm(&b, c)
	switch c.Type {
	case plugins.CheckIKEv2:
		b.head = "UDP_CHECK"
		request, spi := ikeQuestion(r.site.Name + "/" + p.Name)
		if c.Port == 4500 { // messages of IKE have four zero bytes before them there
			request, spi = "00000000"+request, "00000000"+spi
		}
		b.add("payload \"%s\"", request)
		b.add("require_reply \"%s\"", spi)
		b.add("min_reply_length 28")
		b.add("max_reply_length 65507")
	case plugins.CheckSSTP, plugins.CheckHTTPS:
		r.http(&b, c)
	case plugins.CheckICMP:
		b.head = "PING_CHECK"
	default:
		b.head = "TCP_CHECK"
	}
	return b
}

// rhythm is how often, and how often in vain.
func (*renderer) rhythm(b *block, c *plugins.Check) {
	b.add("delay_loop %s", timer(c.Interval.D()))
	b.add("retry %d", c.Fall-1)
	b.add("delay_before_retry %s", timer(c.Interval.D()))
}

// http has keepalived itself ask, which it does by GET.
func (*renderer) http(b *block, c *plugins.Check) {
	b.head = "SSL_GET"
	if c.PlainHTTP {
		b.head = "HTTP_GET"
	}
	b.add("http_protocol 1.1")
	if c.Host != "" {
		b.add("virtualhost %s", c.Host)
		if !c.PlainHTTP {
			b.add("enable_sni")
		}
	}
	// Braces would begin a block without the quotes.
	b.blocks = append(b.blocks, block{head: "url", lines: []string{fmt.Sprintf("path \"%s\"", c.Path), "status_code " + expect(c)}})
}

// expect are the statuses that are taken as proof.
func expect(c *plugins.Check) string {
	if c.Expect != 0 {
		return fmt.Sprint(c.Expect)
	}
	return "200-399"
}

// command is what a check runs; empty if keepalived makes it.
func (r *renderer) command(c *plugins.Check, to netip.Addr) string {
	switch {
	case r.settings.byScript(c):
		method, scheme, verify := "HEAD", "https", "any"
		if c.Type == plugins.CheckHTTPS {
			method = "GET"
		}
		if c.PlainHTTP {
			scheme = "http"
		}
		if c.VerifyTLS {
			verify = "verify"
		}
		return fmt.Sprintf("%s %s %s %v %d %s '%s' %s %s %s", r.settings.Script, method, scheme, to, c.Port, cmp.Or(c.Host, "-"),
			c.Path, expect(c), timer(c.Timeout.D()), verify)
	case r.settings.byProbe(c):
		command := r.settings.Probe + " probe radius --timeout " + c.Timeout.D().String() + " --secret-file " + c.SecretFile
		if c.User != "" {
			command += " --user " + c.User
		}
		if c.Accounting {
			command += " --accounting"
		}
		if c.RequireMessageAuthenticator {
			command += " --require-message-authenticator"
		}
		return command + " " + netip.AddrPortFrom(to, uint16(c.Port)).String()
	}
	return ""
}

// script asks a gateway by curl.
const script = `#!/bin/sh
# Written by aovlb, which undoes what is altered here. keepalived runs it for each
# gateway:
#
#   METHOD SCHEME ADDRESS PORT HOST PATH STATUS TIMEOUT verify|any
#
# It ends with 0 if the gateway answers with the status, or with one of a range such
# as 200-399. HOST is - if there is none.
method=$1 scheme=$2 address=$3 port=$4 host=$5 path=$6 want=$7 timeout=$8 verify=$9
case $address in *:*) address="[$address]" ;; esac
[ "$host" != - ] || host=$address
set -- --silent --output /dev/null --write-out '%{http_code}' --globoff --path-as-is --http1.1 --noproxy '*' \
	--max-time "$timeout" --connect-to "::$address:$port"
[ "$verify" = verify ] || set -- "$@" --insecure
[ "$method" != HEAD ] || set -- "$@" --head
got=$(curl "$@" "$scheme://$host:$port$path") || exit 1
[ "$got" -ge "${want%-*}" ] && [ "$got" -le "${want#*-}" ]
`

// usesScript reports whether a check of the site needs the script.
func (r *renderer) usesScript() bool {
	for i := range r.site.Pools {
		for _, c := range r.site.Pools[i].Checks {
			if r.settings.byScript(&c) {
				return true
			}
		}
	}
	return false
}
