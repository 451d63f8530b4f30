package builtin

import (
	"bytes"
	"cmp"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/plugins"
)

// A group is a plugins.Group that is served. What it is made of can't be changed
// while it is used: a group that changes is made anew, and takes over the table.
type group struct {
	name     string
	made     groupParts
	pool     *pool
	balancer *lb.Balancer
	ike      *ikeWatch
	ledger   *ledger   // nil if accounting isn't kept
	tls      *tlsFiles // nil without RadSec
	dialing  *dialing  // under Driver.applying; nil if no server is dialled over TLS
}

// groupParts are the fields of a plugins.Group that a group is made of.
type groupParts struct {
	affinity plugins.Affinity
	client   plugins.ClientAddress
	idle     plugins.Duration
	halfOpen plugins.Duration
	limits   plugins.Limits
	radius   radiusParts
}

func partsOf(g *plugins.Group) groupParts {
	return groupParts{
		affinity: g.Affinity, client: cmp.Or(g.ClientAddress, plugins.ClientAddressNAT),
		idle: g.Idle, halfOpen: g.HalfOpen, limits: g.Limits,
		radius: radiusPartsOf(g),
	}
}

func (d *Driver) newGroup(spec *plugins.Group, p *pool) *group {
	g := &group{name: spec.Name, made: partsOf(spec), pool: p, ike: newIKEWatch()}
	g.balancer = &lb.Balancer{
		Pool: p.lb, Picker: &p.picker,
		Table: &lb.Table{
			Idle: spec.Idle.D(), HalfOpen: spec.HalfOpen.D(),
			MaxClients: spec.Limits.MaxClients, MaxPerSource: spec.Limits.MaxPerSource,
			MaxHalfOpenPerSource: spec.Limits.MaxHalfOpenPerSource,
		},
		MaxHinted: spec.Limits.MaxHinted, AskRate: spec.Limits.AskRate,
		Trace: &lb.Trace{Moved: func(k lb.Key, from, to *lb.Member) {
			was := "a removed backend"
			if from != nil {
				was = from.Name
			}
			d.events.send(plugins.SeverityInfo, "moved", spec.Name, k.String()+" from "+was+" to "+to.Name)
		}},
	}
	return g
}

// inherit has g know the clients that old knows, and returns how many.
func (g *group) inherit(old *group) (int, error) {
	var b bytes.Buffer
	if _, err := old.balancer.Snapshot(&b); err != nil {
		return 0, err
	}
	n, _, err := g.balancer.Restore(&b)
	return n, err
}
