package builtin

import (
	"slices"

	"github.com/aovlb/aovlb/sstp"
)

// A Session is a session of SSTP, and what is to be said of it.
type Session struct {
	// Pool is the name of its gateway's pool.
	Pool string `json:"pool"`
	sstp.Session
	// What says what was found, Fix what to do about it; Fix may be empty.
	What string `json:"what"`
	Fix  string `json:"fix,omitempty"`
}

// A SessionCount says how often something was found in a pool.
type SessionCount struct {
	Pool string `json:"pool"`
	sstp.Count
}

// Sessions returns up to n sessions of SSTP, those that last first, and then those
// that have ended, each the latest first. With problems it returns only those that
// have ended and in which something was found. With n 0 or less it returns all that
// are kept.
func (d *Driver) Sessions(n int, problems bool) []Session {
	out := []Session{}
	for _, p := range d.current().pools {
		for _, s := range p.sessions.List(0, !problems) {
			if problems && s.Finding == sstp.FindingNone {
				continue
			}
			x := Session{Pool: p.name, Session: s}
			x.What, x.Fix = s.Explain()
			out = append(out, x)
		}
	}
	slices.SortStableFunc(out, func(a, b Session) int {
		switch {
		case a.End.IsZero() && b.End.IsZero():
			return b.Start.Compare(a.Start)
		case a.End.IsZero():
			return -1
		case b.End.IsZero():
			return 1
		}
		return b.End.Compare(a.End)
	})
	if n > 0 && len(out) > n {
		out = out[:n]
	}
	return out
}

// SessionCounts returns how many sessions of SSTP have ended, by their pools,
// gateways and findings.
func (d *Driver) SessionCounts() []SessionCount {
	out := []SessionCount{}
	for _, p := range d.current().pools {
		for _, c := range p.sessions.Counts() {
			out = append(out, SessionCount{p.name, c})
		}
	}
	return out
}
