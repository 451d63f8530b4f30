package plugins

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// DefaultOwner owns what is made when nobody else is named.
const DefaultOwner Owner = "aovlb"

// An Owner marks the objects that a driver makes on a balancer which others use
// too. A driver touches only what bears its mark: a name that begins with
// Owner.Prefix, or a comment with Owner.Mark where names can't.
//
// It has letters and digits, and begins with a letter, as the strictest
// balancers want it of names.
type Owner string

// orDefault returns o, or DefaultOwner.
func (o Owner) orDefault() string {
	if o == "" {
		return string(DefaultOwner)
	}
	return string(o)
}

// Check says what is wrong with o; the empty Owner is right.
func (o Owner) Check() error {
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
	bad := strings.ContainsFunc(string(o), func(r rune) bool { return !letter(r) && (r < '0' || r > '9') })
	if o != "" && (bad || len(o) > 20 || !letter(rune(o[0]))) {
		return fmt.Errorf("%q is not a word of at most 20 letters and digits that begins with a letter", string(o))
	}
	return nil
}

// Prefix is what names of the objects of a site begin with, such as aovlb_hq_. No
// site's prefix begins with another's.
func (o Owner) Prefix(site string) string {
	word := strings.ReplaceAll(plainName(site), "_", "")
	if word != site {
		word += hash(site)
	}
	return o.orDefault() + "_" + word + "_"
}

// Name returns a name for an object of a site, from the names of what it is for:
// Name("hq", 63, "vpn", "ike") is aovlb_hq_vpn_ike. It has letters, digits and
// underscores, and at most most characters, if most isn't 0. Different parts get
// different names: what had to be altered or cut ends in a hash.
func (o Owner) Name(site string, most int, parts ...string) string {
	raw := strings.Join(parts, "\x00")
	plain := make([]string, len(parts))
	for i, p := range parts {
		plain[i] = plainName(p)
	}
	body := strings.Join(plain, "_")
	name := o.Prefix(site) + body
	if strings.ReplaceAll(raw, "\x00", "_") == body && strings.Count(body, "_") == len(parts)-1 && (most == 0 || len(name) <= most) {
		return name
	}
	tail := "_" + hash(raw)
	if most > 0 && len(name)+len(tail) > most {
		name = name[:max(most-len(tail), 0)]
	}
	return name + tail
}

// plainName returns s with an underscore for all but letters and digits.
func plainName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, s)
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}

// Owns reports whether a name is that of an object of a site.
func (o Owner) Owns(site, name string) bool { return strings.HasPrefix(name, o.Prefix(site)) }

// Mark returns a comment for an object of a site. revision is that of the
// Deployment, and may be empty.
func (o Owner) Mark(site, revision string) string {
	m := o.orDefault() + " site=" + site
	if revision != "" {
		m += " revision=" + revision
	}
	return m
}

// ReadMark reports whether a comment was made by Mark for a site, and with which
// revision. What a person wrote behind it doesn't matter.
func (o Owner) ReadMark(site, comment string) (revision string, ok bool) {
	words := strings.Fields(comment)
	if len(words) < 2 || words[0] != o.orDefault() || words[1] != "site="+site {
		return "", false
	}
	if len(words) > 2 {
		revision, _ = strings.CutPrefix(words[2], "revision=")
	}
	return revision, true
}
