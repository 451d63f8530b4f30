package netscaler

import (
	"cmp"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

const (
	mostRise = 32 // successretries
	// nobody is the password that a user without an account is asked about with.
	nobody = "nobody"
	// probeUser is whom RADIUS checks ask about where nothing is said.
	probeUser = "aovlb-probe"
)

// checksOf returns the checks of a pool that NetScaler makes, with what their zero
// fields mean. Advisory ones would bring backends down; IKEv2 can't be asked, so it
// is an echo request where nothing else decides.
func checksOf(p *plugins.Pool) []plugins.Check {
	var out []plugins.Check
	for _, c := range p.Checks {
		if !c.Advisory {
			out = append(out, c.Usual())
		}
	}
	decides := slices.ContainsFunc(out, func(c plugins.Check) bool { return c.Type != plugins.CheckIKEv2 })
	if decides {
		out = slices.DeleteFunc(out, func(c plugins.Check) bool { return c.Type == plugins.CheckIKEv2 })
	}
	return out
}

// monitor renders a check of a pool.
func (r *renderer) monitor(p *plugins.Pool, c plugins.Check) (*item, error) {
	it, err := r.monitorOf(c, []string{p.Name, c.Name}, p.Name+" "+c.Name, "check "+c.Name+" of pool "+p.Name)
	if err != nil {
		return nil, fmt.Errorf("check %s of pool %s: %w", c.Name, p.Name, err)
	}
	return it, nil
}

// monitorOf renders a check, whose name is made of parts. salt tells its secret from
// those of others.
func (r *renderer) monitorOf(c plugins.Check, parts []string, salt, note string) (*item, error) {
	k := kindOf("lbmonitor")
	it := &item{kind: k, note: note}
	typ := map[plugins.CheckType]string{
		plugins.CheckIKEv2: "PING", plugins.CheckICMP: "PING", plugins.CheckTCP: "TCP", plugins.CheckRadSec: "TCP", plugins.CheckSSTP: "HTTP", plugins.CheckHTTPS: "HTTP",
		plugins.CheckRADIUS: "RADIUS",
	}[c.Type]
	if c.Accounting {
		typ = "RADIUS_ACCOUNTING"
	}
	it.fix("type", typ)
	timing(it, c)
	switch c.Type {
	case plugins.CheckTCP, plugins.CheckRadSec:
		it.set("destport", c.Port)
	case plugins.CheckSSTP, plugins.CheckHTTPS:
		request(it, c)
	case plugins.CheckRADIUS:
		it.set("destport", c.Port)
		it.set("username", cmp.Or(c.User, probeUser))
		key, mark, err := r.secret(c.Secret(), salt)
		if err != nil {
			return nil, err
		}
		if mark != "" {
			parts = append(parts, mark)
		}
		it.hide("radkey", key)
		if !c.Accounting {
			it.hide("password", nobody)
			it.set("respcode", []string{"2-3"})
		}
	case plugins.CheckIKEv2, plugins.CheckICMP:
	}
	it.keys = []any{r.name(parts...), typ}
	return it, nil
}

// request renders what is asked of a web server.
func request(it *item, c plugins.Check) {
	it.set("destport", c.Port)
	ask, codes := "HEAD "+plugins.SSTPPath, strconv.Itoa(c.Expect)
	if c.Type == plugins.CheckHTTPS {
		ask = "GET " + cmp.Or(c.Path, "/")
		if c.Expect == 0 {
			codes = "200-399"
		}
	}
	it.set("httprequest", ask)
	it.set("respcode", []string{codes})
	it.set("secure", map[bool]string{true: "NO", false: "YES"}[c.PlainHTTP])
	host := ""
	if c.Host != "" {
		host = "Host: " + c.Host + "\r\n"
	}
	it.set("customheaders", host)
}

// timing renders how often is asked, and how often it counts.
func timing(it *item, c plugins.Check) {
	interval, timeout := c.Interval.D(), c.Timeout.D()
	if timeout >= interval {
		timeout = interval - 100*time.Millisecond // it must be less
	}
	span := func(value, unit string, d time.Duration) {
		if d%time.Second == 0 {
			it.set(value, int(d/time.Second))
			it.set(unit, "SEC")
			return
		}
		it.set(value, int((d+time.Millisecond-1)/time.Millisecond))
		it.set(unit, "MSEC")
	}
	span("interval", "units3", interval)
	span("resptimeout", "units4", timeout)
	it.set("retries", c.Fall)
	it.set("successretries", min(c.Rise, mostRise))
}

// secret reads a secret. mark tells it from others without telling it: it is slow
// to compute, and short.
func (r *renderer) secret(s plugins.Secret, salt string) (secret, mark string, err error) {
	if r.paper {
		return "<the secret in " + s.String() + ">", "", nil
	}
	b, err := s.Read()
	if err != nil {
		return "", "", err
	}
	sum, err := pbkdf2.Key(sha256.New, string(b), []byte(r.site.Name+" "+salt), 20000, 4)
	if err != nil {
		return "", "", err
	}
	return string(b), hex.EncodeToString(sum), nil
}

// oneLine reports whether s can be on a command line.
func oneLine(s string) bool { return !strings.ContainsAny(s, "\r\n\x00") }
