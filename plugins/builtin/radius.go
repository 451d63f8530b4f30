package builtin

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/radius"
	"github.com/aovlb/aovlb/radius/radsec"
)

// radiusParts are the fields of a plugins.RADIUS that a group is made of. Its
// clients, servers and secrets change while it serves.
type radiusParts struct {
	proxy          bool
	user           plugins.RADIUSUser
	required       bool // of what is forwarded
	hold, remember plugins.Duration
	names, class   bool
	ledger         string
	certs          string // of RadSec
}

func radiusPartsOf(g *plugins.Group) radiusParts {
	r := g.RADIUS
	if r == nil {
		return radiusParts{}
	}
	return radiusParts{
		proxy: g.Proxies(), user: r.User, required: r.RequireMessageAuthenticator && !g.Proxies(),
		hold: r.Hold, remember: r.Remember, names: r.ShowUsers, class: r.Class, ledger: ledgerOf(g), certs: certsOf(g),
	}
}

// classifier returns what names RADIUS users. If nobody says otherwise they are
// picked for by station and name: RRAS says the public address of a client, which
// a whole office may have, as Calling-Station-Id.
func (r radiusParts) classifier() radius.Classifier {
	user := map[plugins.RADIUSUser]radius.Identity{
		plugins.RADIUSByStation: radius.ByStation, plugins.RADIUSByName: radius.ByName,
	}
	c := radius.Classifier{User: radius.ByStationAndName, RequireMessageAuthenticator: r.required, Class: r.class}
	if u, ok := user[r.user]; ok {
		c.User = u
	}
	return c
}

// parties are who a RADIUS proxy speaks with, with their secrets.
type parties struct {
	clients []radius.Client
	common  radius.Server
	servers map[string]radius.Server
	secured []radsec.Client // those of clients that come over TLS
	dialing *dialing
}

// partiesOf reads the secrets of a group. They stand in nothing that is shown.
func (d *Driver) partiesOf(served *group, g *plugins.Group, at string) (parties, error) {
	if !g.Proxies() {
		return parties{servers: make(map[string]radius.Server)}, nil
	}
	if err := d.stageTLS(served, g, at); err != nil {
		return parties{}, err
	}
	out, err := readParties(g, at+".radius")
	if err != nil {
		return out, err
	}
	out.dialing = served.dialingOf(g, d.logger().With("group", g.Name))
	out.overTLS(g.RADIUS)
	return out, nil
}

// readParties reads the secrets of a group that proxies. The error has all that is
// wrong with them.
func readParties(g *plugins.Group, at string) (parties, error) {
	out := parties{servers: make(map[string]radius.Server)}
	var errs []error
	read := func(path string, s plugins.Secret) radius.Secret {
		if s.IsZero() {
			return radius.Secret{}
		}
		b, err := s.Read()
		if err != nil {
			errs = append(errs, &plugins.FieldError{Path: path + "." + secretField(s), Err: err})
			return radius.Secret{}
		}
		return radius.NewSecret(b)
	}
	r := g.RADIUS
	out.common = radius.Server{
		Secret: read(at, r.Secret()), RequireMessageAuthenticator: r.RequireMessageAuthenticator, MaxOutstanding: r.MaxOutstanding,
	}
	for i := range r.Servers {
		s := &r.Servers[i]
		out.servers[s.Backend] = radius.Server{
			Secret:                      read(fmt.Sprintf("%s.servers[%d]", at, i), s.Secret()),
			RequireMessageAuthenticator: s.RequireMessageAuthenticator || r.RequireMessageAuthenticator,
			MaxOutstanding:              cmp.Or(s.MaxOutstanding, r.MaxOutstanding),
		}
	}
	policy := map[plugins.MessageAuthenticator]radius.MessagePolicy{
		plugins.MessageRequire: radius.MessageRequire, plugins.MessageLegacy: radius.MessageLegacy,
	}
	for i := range r.Clients {
		c := &r.Clients[i]
		path := fmt.Sprintf("%s.clients[%d]", at, i)
		secret := read(path, c.Secret())
		if c.ByRadSec() {
			secret = radsec.Secret()
			out.secured = append(out.secured, radsec.Client{Name: c.Name, Peer: peerOf(c.Names, c.Fingerprints)})
		}
		prefixes, err := c.Prefixes()
		if err != nil {
			errs = append(errs, &plugins.FieldError{Path: path + ".addresses", Err: err})
		}
		out.clients = append(out.clients, radius.Client{
			Name: c.Name, Prefixes: prefixes, Secret: secret,
			Message: policy[c.MessageAuthenticator], LimitProxyState: c.LimitProxyState,
		})
	}
	return out, errors.Join(errs...)
}

// overTLS has the servers dialled that are spoken to over TLS.
func (p *parties) overTLS(r *plugins.RADIUS) {
	if p.dialing == nil {
		return
	}
	secure := func(s radius.Server) radius.Server {
		s.Secret, s.Dial = radsec.Secret(), p.dialing.Dial
		return s
	}
	plain := p.common
	if r.Transport == plugins.TransportRadSec {
		p.common = secure(p.common)
	}
	for i := range r.Servers {
		name := r.Servers[i].Backend
		s := p.servers[name]
		if r.ByRadSec(name) {
			s = secure(s)
		} else if s.Secret.IsZero() {
			s.Secret = plain.Secret
		}
		p.servers[name] = s
	}
}

// meet tells the proxies who they speak with.
func (d *Driver) meet(s *staged) error {
	for i, g := range s.groups {
		if n := s.radius[i].dialing; n != g.dialing {
			d.retire(g.dialing)
			g.dialing = n
		}
	}
	d.retire(nil)
	for _, l := range s.listeners {
		if l.rad == nil {
			continue
		}
		for i, g := range s.groups {
			if g != l.group {
				continue
			}
			if err := l.rad.SetClients(s.radius[i].clients...); err != nil {
				return fmt.Errorf("builtin: group %s: %w", g.name, err)
			}
			if l.sec != nil {
				l.sec.SetClients(s.radius[i].secured...)
			}
			if err := l.rad.SetServers(s.radius[i].common, maps.Clone(s.radius[i].servers)); err != nil {
				return fmt.Errorf("builtin: group %s: %w", g.name, err)
			}
		}
	}
	return nil
}

// newProxy makes the proxy of a listener.
func (d *Driver) newProxy(spec *plugins.Listener, g *group, log *slog.Logger) *radius.Proxy {
	r, port := &g.made.radius, spec.TargetPort()
	c := r.classifier()
	auth, acct := port, port
	if spec.Protocol == plugins.ProtocolRadSec {
		// One connection carries both.
		auth = cmp.Or(uint16(spec.BackendPort), 1812)
		acct = auth + 1
		return d.proxyOf(g, c, auth, acct, log)
	}
	switch spec.Address.Port() {
	case 1812, 1645:
		c.AuthPort, c.AcctPort = spec.Address.Port(), 1 // accounting has no business there
	case 1813, 1646:
		c.AuthPort, c.AcctPort = 1, spec.Address.Port()
	}
	return d.proxyOf(g, c, auth, acct, log)
}

func (d *Driver) proxyOf(g *group, c radius.Classifier, auth, acct uint16, log *slog.Logger) *radius.Proxy {
	r := &g.made.radius
	p := &radius.Proxy{
		Balancer: g.balancer, Classifier: c, AuthPort: auth, AcctPort: acct,
		Hold: r.hold.D(), Remember: r.remember.D(), Names: r.names,
		Suspect: g.pool.suspect, Logger: log,
		Trace: &radius.Trace{
			Shunned: func(backend string, err error) {
				d.events.send(plugins.SeverityWarning, "radius", g.pool.name+"/"+backend, "new users are kept from it: "+err.Error())
			},
		},
	}
	if g.ledger != nil {
		p.Spool = g.ledger
	}
	return p
}

// probed tells the proxies of pool p of probes that were answered: a server that
// answers is not kept from users any longer, however silent it was to some.
func (d *Driver) probed(p *pool, checks []lb.Check) func(backend, check string, took time.Duration, err error) {
	ports := make(map[string]uint16)
	for _, c := range checks {
		switch c.Prober.(type) {
		case *radius.Prober:
			ports[c.Name] = c.Port
		case *radsec.Prober:
			ports[c.Name] = 0 // it serves all there is
		}
	}
	if len(ports) == 0 {
		return nil
	}
	return func(backend, check string, _ time.Duration, err error) {
		port, ok := ports[check]
		if !ok || err != nil {
			return
		}
		for _, l := range d.current().listeners {
			if l.rad != nil && l.group.pool == p {
				l.rad.Alive(backend, port)
			}
		}
		d.wakeLedgers(p)
	}
}

// radiusStats writes what a proxy has counted.
func radiusStats(s *plugins.ListenerStats, c radius.Stats, _ *lb.Pool) {
	s.Active, s.Total = new(int64(c.Waiting)), new(uint64(0))
	s.Dropped = make(map[string]uint64)
	for why, n := range c.Dropped {
		s.Dropped[shortReason(why)] = n
	}
	if c.SendErrors > 0 {
		s.Dropped["send error"] = c.SendErrors
	}
	out := &plugins.RADIUSStats{
		Waiting: c.Waiting, Kept: c.Kept, Stored: c.Stored, NotStored: c.NotStored,
		Clients: []plugins.RADIUSClientStats{}, Servers: []plugins.RADIUSServerStats{},
	}
	for i := range c.Clients {
		q := &c.Clients[i]
		*s.Total += q.Requests
		out.Clients = append(out.Clients, plugins.RADIUSClientStats{
			Name: q.Name, Requests: q.Requests, Duplicates: q.Duplicates, Dropped: q.Dropped, BadAuthenticators: q.BadAuthenticators,
			RADIUSAnswers: radiusAnswers(q.Answers, q.Timeouts, &q.Latency, q.Sizes),
		})
	}
	for i := range c.Servers {
		v := &c.Servers[i]
		out.Servers = append(out.Servers, plugins.RADIUSServerStats{
			Backend: v.Name, Port: v.Port, Requests: v.Requests, Resent: v.Resent, Moved: v.Moved, Waiting: v.Waiting,
			BadAuthenticators: v.BadAuthenticators, Late: v.Late, Refused: v.Refused, Shunned: v.Shuns,
			RADIUSAnswers: radiusAnswers(v.Answers, v.Timeouts, &v.Latency, v.Sizes),
		})
	}
	for _, f := range c.Failures {
		out.Failures = append(out.Failures, plugins.RADIUSFailure{User: f.User, Client: f.Client, Reason: f.Reason, At: f.At.Round(0), Times: f.Times})
	}
	s.RADIUS = out
}

func radiusAnswers(a radius.Answers, timeouts uint64, h *radius.Histogram, sizes radius.Sizes) plugins.RADIUSAnswers {
	return plugins.RADIUSAnswers{
		Accepts: a.Accepts, Rejects: a.Rejects, Challenges: a.Challenges, Accounting: a.Accounting, Timeouts: timeouts,
		P50: plugins.Duration(h.Quantile(.5)), P99: plugins.Duration(h.Quantile(.99)), Buckets: h.Counts[:], Took: h.Sum.Seconds(),
		Largest: sizes.Largest, Fragmented: sizes.Fragmented, Advice: sizes.Advice(),
	}
}

// shortReason returns a reason without the name of its package.
func shortReason(text string) string {
	const prefix = "radius: "
	if len(text) > len(prefix) && text[:len(prefix)] == prefix {
		return text[len(prefix):]
	}
	return text
}
