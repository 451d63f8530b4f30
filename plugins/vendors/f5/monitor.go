package f5

import (
	"cmp"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// probe says how BIG-IP asks instead of a check: icmp, tcp, http, https or radius;
// empty if it is left out. login says that there is a password for RADIUS.
func probe(c *plugins.Check, login bool) string {
	if c.Advisory {
		return ""
	}
	switch c.Type {
	case plugins.CheckSSTP, plugins.CheckHTTPS:
		if c.PlainHTTP {
			return "http"
		}
		return "https"
	case plugins.CheckTCP, plugins.CheckRadSec:
		return "tcp"
	case plugins.CheckRADIUS:
		if login && !c.Accounting && !c.StatusServer {
			return "radius"
		}
	}
	// BIG-IP has no check of IKEv2, and that of RADIUS wants a user who is let in.
	return "icmp"
}

// monitors renders the checks of a pool, and returns their names. Those that ask the
// same are one.
func (r *renderer) monitors(a *app, p *plugins.Pool) ([]string, error) {
	var names []string
	pinged := false
	for i := range p.Checks {
		c := p.Checks[i].Usual()
		kind := probe(&c, !r.settings.RADIUSPassword.IsZero())
		if kind == "" || kind == "icmp" && pinged {
			continue
		}
		pinged = pinged || kind == "icmp"
		m, err := r.monitor(&c, kind, p)
		if err != nil {
			return nil, err
		}
		a.add(m)
		names = append(names, m.name)
	}
	return names, nil
}

// monitor renders a check. A server is down when nothing good came for as long as
// Fall probes take, and is up when that has lasted as long as Rise probes take.
func (r *renderer) monitor(c *plugins.Check, kind string, p *plugins.Pool) (part, error) {
	every := max(seconds(c.Interval.D()), 1)
	patience := min(max(every*c.Fall+1, every+seconds(c.Timeout.D())), 900)
	settle := min((c.Rise-1)*every, 1800)
	body := map[string]any{"class": "Monitor", "monitorType": kind, "interval": every, "timeout": patience, "timeUntilUp": settle}
	name := r.plain("check", c.Name)
	line := fmt.Sprintf("interval %d timeout %d time-until-up %d", every, patience, settle)
	note := "check " + c.Name
	where := "*"
	if kind != "icmp" {
		body["targetPort"] = c.Port
		where += fmt.Sprintf(":%d", c.Port)
	}
	switch kind {
	case "http", "https":
		ask, expect := question(c, cmp.Or(c.Host, p.Backends[0].Address.String()))
		body["send"], body["receive"] = ask, expect
		line += fmt.Sprintf(" send \"%s\" recv \"%s\"", ask, expect)
	case "radius":
		more, err := r.login(c, body)
		if err != nil {
			return part{}, fmt.Errorf("check %s: %w", c.Name, err)
		}
		line += more
	case "icmp":
		kind = "gateway-icmp"
		if c.Type != plugins.CheckICMP {
			note += ": BIG-IP can only ping here"
		}
	}
	line = fmt.Sprintf("create ltm monitor %s %s { destination %s %s }", kind, name, where, line)
	return part{name: name, note: note, body: body, tmsh: []string{line}}, nil
}

// login adds what a check of RADIUS logs in with. A hash that is slow to guess from
// tells when one of the secrets has changed, for AS3 doesn't give them back.
func (r *renderer) login(c *plugins.Check, body map[string]any) (string, error) {
	user := cmp.Or(c.User, "aovlb-probe")
	secret, shownSecret, err := r.files.secret(c.Secret())
	if err != nil {
		return "", err
	}
	password, shownPassword, err := r.files.secret(r.settings.RADIUSPassword)
	if err != nil {
		return "", err
	}
	sum, err := pbkdf2.Key(sha256.New, secret+"\x00"+password, []byte(r.owner.Prefix(r.site.Name)+c.Name), 1<<16, 6)
	if err != nil {
		return "", err
	}
	r.hide = append(r.hide, secret, password)
	body["username"], body["secret"], body["passphrase"] = user, cryptogram(secret), cryptogram(password)
	body["remark"] = "secrets " + hex.EncodeToString(sum)
	return fmt.Sprintf(" username %q secret \"%s\" password \"%s\"", user, shownSecret, shownPassword), nil
}

// question is what is sent, and what a good answer holds. BIG-IP wants the end of a
// line as a backslash and a letter.
func question(c *plugins.Check, host string) (ask, expect string) {
	verb, path := "GET", cmp.Or(c.Path, "/")
	if c.Type == plugins.CheckSSTP {
		verb, path = "HEAD", plugins.SSTPPath
	}
	ask = verb + " " + path + " HTTP/1.1" + `\r\nHost: ` + host + `\r\nConnection: close\r\n\r\n`
	expect = "HTTP/1.1 "
	if c.Expect != 0 {
		expect += fmt.Sprint(c.Expect)
	} else {
		expect += "[23]"
	}
	return ask, expect
}

// cryptogram is how a declaration holds a secret. AS3 encrypts it before it keeps it.
func cryptogram(secret string) map[string]any {
	return map[string]any{"ciphertext": base64.RawURLEncoding.EncodeToString([]byte(secret)), "protected": "eyJhbGciOiJkaXIiLCJlbmMiOiJub25lIn0"}
}

// unsafe are characters that a question can't hold: BIG-IP would read them as
// something else.
func unsafe(s string) bool { return strings.ContainsAny(s, "\"\\`\r\n\x00{}$[] ") }
