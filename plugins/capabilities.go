package plugins

import (
	"fmt"
	"slices"
	"strings"
)

// Capabilities says what a balancer can do. What isn't said it can't.
type Capabilities struct {
	// Support says which fields of the model have effect; see [Full].
	Support []Support `json:"support"`
	// GroupListeners is how many listeners an affinity group can have; 0
	// means any number.
	GroupListeners int `json:"group_listeners,omitempty"`
	// SameAddress says that the listeners of a group must share an address.
	SameAddress bool `json:"same_address,omitempty"`
	// MinInterval is the shortest time between the probes of a check.
	MinInterval Duration `json:"min_interval"`
	// ExactExpect says that a check can ask for exactly one HTTP status.
	ExactExpect bool `json:"exact_expect"`
	// DrainDeadline says that the balancer itself ends a drain in time.
	DrainDeadline bool `json:"drain_deadline"`
	// Transactional says that an Apply happens wholly or not at all.
	Transactional bool `json:"transactional"`
	// KeepsClients says that an Apply keeps the clients of what it changes.
	KeepsClients bool `json:"keeps_clients"`
}

// A Support says how far a balancer does what a field of the model asks.
type Support struct {
	// Field is the path of the field without indexes, and without the site:
	// pools.checks.type, groups.radius, geo. It stands for all that is within
	// it, too, unless that is named by itself.
	Field string `json:"field"`
	// Values are the values that this is about; none means all.
	Values []string `json:"values,omitempty"`
	// Level says how far.
	Level Level `json:"level"`
	// Instead says what happens instead, where Level isn't LevelFull.
	Instead string `json:"instead,omitempty"`
	// Fix says what an administrator can do, if there is anything.
	Fix string `json:"fix,omitempty"`
}

// A Level is a degree of support.
type Level string

const (
	// LevelFull does what is asked.
	LevelFull Level = "full"
	// LevelPartial does something close to it, or leaves it out without harm.
	LevelPartial Level = "partial"
	// LevelNone can't. A Deployment that asks for it is refused.
	LevelNone Level = "none"
)

// Full returns full support of fields. Each is the path of a field, or a path, an
// equals sign and the values with a comma between them:
//
//	plugins.Full("pools.backends.weight", "pools.picker=least-clients,round-robin")
//
// Where nothing is set for a field, its default counts as its value.
func Full(fields ...string) []Support {
	out := make([]Support, 0, len(fields))
	for _, f := range fields {
		s := Support{Field: f, Level: LevelFull}
		if name, values, ok := strings.Cut(f, "="); ok {
			s.Field, s.Values = name, strings.Split(values, ",")
		}
		out = append(out, s)
	}
	return out
}

// Partial returns the support of a field, of the form that Full takes, that a
// balancer does only in part; instead says what happens.
func Partial(field, instead string) Support {
	s := Full(field)[0]
	s.Level, s.Instead = LevelPartial, instead
	return s
}

// None returns the support of a field, of the form that Full takes, that a
// balancer can't do though one might expect it; why says why, fix what to do.
func None(field, why, fix string) Support {
	s := Full(field)[0]
	s.Level, s.Instead, s.Fix = LevelNone, why, fix
	return s
}

// Lookup returns what c says of a value of a field, and false if c says nothing
// about it: then it isn't supported. Of several the last counts that names the
// value, then the last for any value, then what is said of the parent.
func (c *Capabilities) Lookup(field, value string) (Support, bool) {
	for ; field != ""; field, value = parentOf(field), "" {
		var whole *Support
		named := false
		for i := len(c.Support) - 1; i >= 0; i-- {
			s := &c.Support[i]
			if s.Field != field {
				continue
			}
			named = true
			if slices.Contains(s.Values, value) {
				return *s, true
			}
			if len(s.Values) == 0 && whole == nil {
				whole = s
			}
		}
		if whole != nil {
			return *whole, true
		}
		if named {
			return Support{}, false
		}
	}
	return Support{}, false
}

// has reports whether c says anything of the field or of what is within it.
func (c *Capabilities) has(field string) bool {
	for i := range c.Support {
		if f := c.Support[i].Field; f == field || strings.HasPrefix(f, field+".") {
			return true
		}
	}
	return false
}

// values returns the values of field that c does in full, for a message.
func (c *Capabilities) values(field string) string {
	var out []string
	for i := range c.Support {
		if s := &c.Support[i]; s.Field == field && s.Level != LevelNone {
			out = append(out, s.Values...)
		}
	}
	return words(out)
}

func parentOf(field string) string { return field[:max(strings.LastIndexByte(field, '.'), 0)] }

// Faults says which fields c names that the model hasn't. It is for tests of
// drivers.
func (c *Capabilities) Faults() []string {
	known := make(map[string]bool)
	for _, f := range Fields() {
		for ; f != ""; f = parentOf(f) {
			known[f] = true
		}
	}
	var out []string
	for _, s := range c.Support {
		switch {
		case !known[s.Field]:
			out = append(out, fmt.Sprintf("support of %s: the model has no such field", s.Field))
		case s.Level != LevelFull && s.Level != LevelPartial && s.Level != LevelNone:
			out = append(out, fmt.Sprintf("support of %s: the level %q is unknown", s.Field, s.Level))
		case s.Level != LevelFull && s.Instead == "":
			out = append(out, fmt.Sprintf("support of %s: it doesn't say what happens instead", s.Field))
		}
	}
	return out
}
