package geodns

import (
	"net/netip"
	"slices"
	"time"
)

// cookieSecrets are the secret that cookies are made with, and those that are good
// besides. They aren't changed, but replaced.
type cookieSecrets struct {
	made   CookieSecret
	others []otherSecret
}

// otherSecret is a secret that cookies aren't made with.
type otherSecret struct {
	secret CookieSecret
	until  time.Time // when it ends, by the monotonic clock; zero if it doesn't
}

// mostRetired bounds how many secrets of before are good at once.
const mostRetired = 4

// SetCookieSecret has cookies made with another secret from now on, while the
// server serves. Those made with the one before are good for another hour, which
// is as long as any cookie is (RFC 9018 section 4.3). So are, until the next call,
// those made with any of others: servers behind one address get a new secret there
// first, all of them, and only then as the one to make cookies with (section 5).
// The zero secret ends cookies. It may be called at any time.
func (s *Server) SetCookieSecret(secret CookieSecret, others ...CookieSecret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, now := s.cookieSecrets(), time.Now()
	next := &cookieSecrets{made: secret}
	keep := func(o otherSecret) {
		known := slices.ContainsFunc(next.others, func(x otherSecret) bool { return x.secret == o.secret })
		if o.secret != (CookieSecret{}) && o.secret != secret && !known {
			next.others = append(next.others, o)
		}
	}
	for _, o := range others {
		keep(otherSecret{secret: o})
	}
	lasting := len(next.others)
	keep(otherSecret{was.made, now.Add(cookieOld)})
	for _, o := range was.others {
		if o.until.After(now) {
			keep(o)
		}
	}
	if len(next.others) > lasting+mostRetired {
		next.others = next.others[:lasting+mostRetired] // the oldest are last
	}
	s.cookies.Store(next)
}

// cookieSecrets returns what is used now: what was set last, or the field.
func (s *Server) cookieSecrets() *cookieSecrets {
	if c := s.cookies.Load(); c != nil {
		return c
	}
	c := &cookieSecrets{made: s.CookieSecret}
	if s.cookies.CompareAndSwap(nil, c) {
		return c
	}
	return s.cookies.Load()
}

// check judges the server's part of a query's cookie by every secret that is good.
// A cookie of another one than cookies are made with is replaced.
func (s *cookieSecrets) check(c *cookie, from netip.Addr, now time.Time) (ok, renew bool) {
	at := uint32(now.Unix())
	if ok, renew = s.made.check(c, from, at); ok {
		return ok, renew
	}
	for i := range s.others {
		o := &s.others[i]
		if !o.until.IsZero() && !now.Before(o.until) {
			continue
		}
		if good, _ := o.secret.check(c, from, at); good {
			return true, true
		}
	}
	return false, true
}
