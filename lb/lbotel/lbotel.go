package lbotel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/aovlb/aovlb/lb"
)

// An Exporter registers the metrics.
type Exporter struct {
	// Meter makes the instruments. It must not be nil.
	Meter metric.Meter
	// Groups returns the affinity groups there are now; nil means none. It is
	// called at each collection, and must be safe for concurrent use, as what
	// it returns must.
	Groups func() []Group
	// Listeners returns the listeners there are now, likewise.
	Listeners func() []Listener
}

// A Group is one affinity group.
type Group struct {
	// Name identifies it among the groups. If two have the same name, their
	// figures are confused.
	Name string
	// Balancer is read. If several groups share a Pool, its backends are
	// shown for each.
	Balancer *lb.Balancer
	// Checks returns what is known of the health checks; nil means nothing.
	Checks func() []Check
}

// A Check is one health check of one backend.
type Check struct {
	// Backend and Name identify it.
	Backend, Name string
	// Known is false until the first probe has ended: neither Passing nor Took
	// is shown before.
	Known bool
	// Passing says that the check passes.
	Passing bool
	// Took is how long the last probe took.
	Took time.Duration
	// Probes counts all probes, Failures those that failed.
	Probes, Failures uint64
}

// A Listener is one listener of a group.
type Listener struct {
	// Group and Name identify it.
	Group, Name string
	// Transport is "udp" or "tcp".
	Transport string
	// Read returns its figures. It must not be nil.
	Read func() Traffic
}

// Traffic is what a listener has done since it was made.
type Traffic struct {
	// ClientBytes came from clients, BackendBytes from backends.
	ClientBytes, BackendBytes uint64
	// Unreachable counts the times that a backend could not be reached.
	Unreachable uint64
	// Errors counts failures of this machine, by what failed.
	Errors []Count
	// Datagrams is nil unless the listener has datagrams, Streams unless it
	// has streams.
	Datagrams *Datagrams
	Streams   *Streams
}

// Datagrams are the figures of a listener for datagrams.
type Datagrams struct {
	// FromClients and FromBackends count what was received, ToClients and
	// ToBackends what was sent.
	FromClients, FromBackends, ToClients, ToBackends uint64
	// Dropped counts what was not forwarded, by reason.
	Dropped []Count
	// Unanswered, HalfOpen and Established are the flows open now.
	Unanswered, HalfOpen, Established int
	// Opened counts flows.
	Opened uint64
	// Closed counts those that have ended, by reason.
	Closed []Count
}

// Streams are the figures of a listener for streams.
type Streams struct {
	// Open are the connections from clients that are open now. Of those,
	// Sniffing wait for the client's first bytes.
	Open, Sniffing int
	// Accepted counts connections from clients, Opened those that reached a
	// backend, Retries those offered to another.
	Accepted, Opened, Retries uint64
	// Refused counts those that didn't, Closed those that did and have ended,
	// by reason.
	Refused, Closed []Count
}

// A Count is how often something has happened for one reason.
type Count struct {
	// Reason is one of a few short words, joined by underscores, never
	// anything from the network.
	Reason string
	// N is how often.
	N uint64
}

// Register makes the instruments and has them observed at each collection,
// until the registration is ended by its Unregister.
func (x *Exporter) Register() (metric.Registration, error) {
	if x.Meter == nil {
		return nil, errors.New("lbotel: exporter without a meter")
	}
	r := &reader{x: x}
	all := make([]metric.Observable, 0, instrumentCount)
	for i := range instruments {
		o, err := r.make(i)
		if err != nil {
			return nil, fmt.Errorf("lbotel: instrument %s: %w", instruments[i].name, err)
		}
		all = append(all, o)
	}
	reg, err := x.Meter.RegisterCallback(r.read, all...)
	if err != nil {
		return nil, fmt.Errorf("lbotel: registering the callback: %w", err)
	}
	return reg, nil
}

// A reader is one registration.
type reader struct {
	x      *Exporter
	ints   [instrumentCount]metric.Int64Observable
	floats [instrumentCount]metric.Float64Observable
}

// make makes instrument i.
func (r *reader) make(i int) (metric.Observable, error) {
	m, in := r.x.Meter, instruments[i]
	unit, text := metric.WithUnit(in.unit), metric.WithDescription(in.text)
	switch in.kind {
	case counter:
		c, err := m.Int64ObservableCounter(in.name, unit, text)
		r.ints[i] = c
		return c, err
	case updown:
		c, err := m.Int64ObservableUpDownCounter(in.name, unit, text)
		r.ints[i] = c
		return c, err
	}
	g, err := m.Float64ObservableGauge(in.name, unit, text)
	r.floats[i] = g
	return g, err
}

// read observes everything.
func (r *reader) read(_ context.Context, o metric.Observer) error {
	s := &sink{r: r, o: o}
	if r.x.Groups != nil {
		for _, g := range r.x.Groups() {
			s.group(&g)
		}
	}
	if r.x.Listeners != nil {
		for _, l := range r.x.Listeners() {
			s.listener(&l)
		}
	}
	return nil
}

// A sink is one collection.
type sink struct {
	r *reader
	o metric.Observer
}

// attributes gives values to the attributes of instrument i, in their order.
func attributes(i int, values []string) metric.ObserveOption {
	kv := make([]attribute.KeyValue, len(values))
	for j, v := range values {
		kv[j] = attribute.String(instruments[i].attrs[j], v)
	}
	return metric.WithAttributeSet(attribute.NewSet(kv...))
}

func (s *sink) count(i int, n uint64, values ...string) {
	s.o.ObserveInt64(s.r.ints[i], int64(n), attributes(i, values))
}

func (s *sink) size(i, n int, values ...string) {
	s.o.ObserveInt64(s.r.ints[i], int64(n), attributes(i, values))
}

func (s *sink) truth(i int, b bool, values ...string) {
	n := 0
	if b {
		n = 1
	}
	s.size(i, n, values...)
}

func (s *sink) value(i int, v float64, values ...string) {
	s.o.ObserveFloat64(s.r.floats[i], v, attributes(i, values))
}

// reasons counts by reason, which is the last attribute.
func (s *sink) reasons(i int, counts []Count, values ...string) {
	for _, c := range counts {
		s.count(i, c.N, append(values[:len(values):len(values)], c.Reason)...)
	}
}

func (s *sink) group(g *Group) {
	name := g.Name
	view := g.Balancer.Pool.View()
	for _, m := range view.Members {
		s.backend(name, m)
	}
	s.truth(groupPanic, view.Panic, name)
	s.value(groupPriority, float64(view.Priority), name)
	st := g.Balancer.Stats()
	s.reasons(routeDecisions, []Count{
		{"known", st.Known}, {"hint", st.Hint}, {"picked", st.Picked}, {"moved", st.Moved}, {"asked", st.Asked},
	}, name)
	s.reasons(routeRefusals, []Count{
		{"no_backend", st.NoBackend},
		{"backend_down", st.BackendDown},
		{"unknown_client", st.UnknownClient},
		{"ask_limit", st.AskLimit},
	}, name)
	t := &st.Table
	s.size(tableClients, t.HalfOpen, name, "half_open")
	s.size(tableClients, t.Clients-t.HalfOpen, name, "established")
	s.size(tableNames, t.Names, name)
	s.size(tableSources, t.Sources, name)
	s.size(tableMemory, t.Bytes, name)
	s.reasons(tableRemovals, []Count{{"expired", t.Expired}, {"evicted", t.Evicted}}, name)
	s.count(tableRefusals, t.Refused, name)
	if g.Checks != nil {
		for _, c := range g.Checks() {
			s.check(name, &c)
		}
	}
}

// fullShare is the lb.Member.Share of weight 1.
const fullShare = 100

func (s *sink) backend(group string, m *lb.Member) {
	for _, state := range []lb.State{lb.Up, lb.Draining, lb.Down} {
		s.truth(backendStatus, m.State == state, group, m.Name, state.String())
	}
	s.size(backendClients, m.Clients(), group, m.Name)
	if m.MaxClients > 0 {
		s.size(backendLimit, m.MaxClients, group, m.Name)
	}
	s.count(backendPicks, m.Picked(), group, m.Name)
	s.value(backendWeight, float64(m.Share)/fullShare, group, m.Name)
}

func (s *sink) check(group string, c *Check) {
	if c.Known {
		s.truth(checkStatus, c.Passing, group, c.Backend, c.Name)
		s.value(checkDuration, c.Took.Seconds(), group, c.Backend, c.Name)
	}
	s.reasons(checkProbes, []Count{{"success", c.Probes - c.Failures}, {"failure", c.Failures}}, group, c.Backend, c.Name)
}

func (s *sink) listener(l *Listener) {
	t := l.Read()
	at := []string{l.Group, l.Name, l.Transport}
	s.reasons(listenerIO, []Count{{peerClient, t.ClientBytes}, {peerBackend, t.BackendBytes}}, at...)
	s.count(listenerUnreachable, t.Unreachable, at...)
	s.reasons(listenerErrors, t.Errors, at...)
	if d := t.Datagrams; d != nil {
		s.datagrams(d, at)
	}
	if d := t.Streams; d != nil {
		s.streams(d, at)
	}
}

func (s *sink) datagrams(d *Datagrams, at []string) {
	s.reasons(datagramsReceived, []Count{{peerClient, d.FromClients}, {peerBackend, d.FromBackends}}, at...)
	s.reasons(datagramsSent, []Count{{peerClient, d.ToClients}, {peerBackend, d.ToBackends}}, at...)
	s.reasons(datagramsDropped, d.Dropped, at...)
	s.reasons(flowCount, []Count{
		{"unanswered", size(d.Unanswered)}, {"half_open", size(d.HalfOpen)}, {"established", size(d.Established)},
	}, at...)
	s.count(flowsOpened, d.Opened, at...)
	s.reasons(flowsClosed, d.Closed, at...)
}

func (s *sink) streams(d *Streams, at []string) {
	s.reasons(streamCount, []Count{{"sniffing", size(d.Sniffing)}, {"other", size(d.Open - d.Sniffing)}}, at...)
	s.count(streamsAccepted, d.Accepted, at...)
	s.count(streamsOpened, d.Opened, at...)
	s.reasons(streamsRefused, d.Refused, at...)
	s.reasons(streamsClosed, d.Closed, at...)
	s.count(streamRetries, d.Retries, at...)
}

// size makes a Count of a number of things. Numbers that were read one after the
// other can differ by less than nothing.
func size(n int) uint64 { return uint64(max(n, 0)) }
