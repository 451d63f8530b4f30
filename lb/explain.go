package lb

import "fmt"

// An Explanation says where a client is, or would go, and how that comes about.
type Explanation struct {
	// Client is what the Table knows; nil if none of the names is known.
	Client *Client
	// Route is what Route would say now; Err what it would refuse with.
	Route Route
	Err   error
	// Steps are the reasons, in words and in the order they were weighed.
	Steps []string
}

// Explain says what Route would do with v, and why. It records nothing, counts
// nothing, and asks nobody.
func (b *Balancer) Explain(v *Verdict, f Flow) Explanation {
	view := b.Pool.View()
	var e Explanation
	say := func(format string, args ...any) { e.Steps = append(e.Steps, fmt.Sprintf(format, args...)) }
	if view.Panic {
		say("every backend is down: the checks are not believed")
	}
	for _, k := range v.Keys {
		if k.IsZero() {
			continue
		}
		c, ok := b.Table.Lookup(k)
		if !ok {
			say("name %v is not known", k)
			continue
		}
		if e.Client == nil {
			e.Client = &c
		}
		m := view.Member(c.Backend)
		switch {
		case m == nil:
			say("name %v is known, but its backend is not in the pool any more", k)
		case view.usable(m.ID) == nil:
			say("name %v is known at %s, which is down: %s", k, m.Name, m.Cause)
		default:
			say("name %v is known at %s (%v, %v)", k, m.Name, c.Stage, c.Why)
		}
	}
	if e.Client == nil && v.Begin {
		b.explainHints(v, view, say)
	}
	e.Route, e.Err = b.route(v, f, view, nil, false)
	switch {
	case e.Err != nil:
		say("%v", e.Err)
	case e.Route.Member == nil:
		say("all %d usable backends would be asked", len(e.Route.Ask))
	default:
		say("goes to %s (%v)", e.Route.Member.Name, e.Route.Why)
	}
	return e
}

func (b *Balancer) explainHints(v *Verdict, view *View, say func(string, ...any)) {
	for _, k := range v.Hints {
		if k.IsZero() {
			continue
		}
		b.Table.mu.Lock()
		m := b.hinted(k, view, b.Table.now())
		b.Table.mu.Unlock()
		if m == nil {
			say("hint %v leads nowhere", k)
			continue
		}
		say("hint %v leads to %s", k, m.Name)
		return
	}
}
