package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"time"

	"github.com/aovlb/aovlb/plugins"
	pb "github.com/aovlb/aovlb/plugins/proto/v1"
)

// MaxMessage bounds a message, in bytes.
const MaxMessage = 16 << 20

// maxDeployment bounds the JSON of a Deployment, in bytes.
const maxDeployment = 8 << 20

// deploymentTo makes a message of d.
func deploymentTo(d *plugins.Deployment) (*pb.Deployment, error) {
	if d == nil {
		return nil, nil
	}
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("deployment: %w", err)
	}
	if len(b) > maxDeployment {
		return nil, fmt.Errorf("deployment: it has %d bytes as JSON, the most is %d", len(b), maxDeployment)
	}
	return &pb.Deployment{Json: b}, nil
}

// deploymentFrom reads a Deployment. If strict, a field that isn't known is an
// error: whoever reads it can't tell what they would leave out.
func deploymentFrom(m *pb.Deployment, strict bool) (*plugins.Deployment, error) {
	if m == nil {
		return nil, nil
	}
	if len(m.Json) > maxDeployment {
		return nil, fmt.Errorf("deployment: it has %d bytes, the most is %d", len(m.Json), maxDeployment)
	}
	d := new(plugins.Deployment)
	dec := json.NewDecoder(bytes.NewReader(m.Json))
	if strict {
		dec.DisallowUnknownFields()
	}
	if err := dec.Decode(d); err != nil {
		return nil, fmt.Errorf("deployment: %w: is the plugin older than the program?", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("deployment: there is more than one JSON value")
	}
	return d, nil
}

func changesTo(list []plugins.Change) []*pb.Change {
	var out []*pb.Change
	for i := range list {
		out = append(out, changeTo(&list[i]))
	}
	return out
}

func changeTo(c *plugins.Change) *pb.Change {
	m := &pb.Change{Action: string(c.Action), Kind: c.Kind, Name: c.Name, Effect: c.Effect}
	for _, f := range c.Fields {
		m.Fields = append(m.Fields, &pb.FieldChange{Name: f.Name, Before: f.Before, After: f.After})
	}
	return m
}

func changesFrom(list []*pb.Change) []plugins.Change {
	var out []plugins.Change
	for _, m := range list {
		out = append(out, changeFrom(m))
	}
	return out
}

func changeFrom(m *pb.Change) plugins.Change {
	c := plugins.Change{Action: plugins.Action(m.GetAction()), Kind: m.GetKind(), Name: m.GetName(), Effect: m.GetEffect()}
	for _, f := range m.GetFields() {
		c.Fields = append(c.Fields, plugins.FieldChange{Name: f.GetName(), Before: f.GetBefore(), After: f.GetAfter()})
	}
	return c
}

func diagnosticsTo(list []plugins.Diagnostic) []*pb.Diagnostic {
	var out []*pb.Diagnostic
	for _, g := range list {
		out = append(out, &pb.Diagnostic{Severity: string(g.Severity), Path: g.Path, Summary: g.Summary, Detail: g.Detail, Fix: g.Fix})
	}
	return out
}

func diagnosticsFrom(list []*pb.Diagnostic) []plugins.Diagnostic {
	var out []plugins.Diagnostic
	for _, m := range list {
		g := plugins.Diagnostic{
			Severity: plugins.Severity(m.GetSeverity()), Path: m.GetPath(), Summary: m.GetSummary(), Detail: m.GetDetail(), Fix: m.GetFix(),
		}
		if g.Severity != plugins.SeverityWarning && g.Severity != plugins.SeverityInfo {
			g.Severity = plugins.SeverityError // a word nobody knows is no reason to go on
		}
		out = append(out, g)
	}
	return out
}

func planTo(p *plugins.Plan) (*pb.Plan, error) {
	d, err := deploymentTo(p.Deployment)
	if err != nil {
		return nil, err
	}
	return &pb.Plan{Deployment: d, Base: p.Base, Changes: changesTo(p.Changes), Diagnostics: diagnosticsTo(p.Diagnostics)}, nil
}

func planFrom(m *pb.Plan, strict bool) (*plugins.Plan, error) {
	d, err := deploymentFrom(m.GetDeployment(), strict)
	if err != nil {
		return nil, err
	}
	return &plugins.Plan{Deployment: d, Base: m.GetBase(), Changes: changesFrom(m.GetChanges()), Diagnostics: diagnosticsFrom(m.GetDiagnostics())}, nil
}

func capabilitiesTo(c plugins.Capabilities) *pb.CapabilitiesResponse {
	m := &pb.CapabilitiesResponse{
		GroupListeners: int64(c.GroupListeners), SameAddress: c.SameAddress, MinIntervalNano: int64(c.MinInterval),
		ExactExpect: c.ExactExpect, DrainDeadline: c.DrainDeadline, Transactional: c.Transactional, KeepsClients: c.KeepsClients,
	}
	for _, s := range c.Support {
		m.Support = append(m.Support, &pb.Support{Field: s.Field, Values: s.Values, Level: string(s.Level), Instead: s.Instead, Fix: s.Fix})
	}
	return m
}

func capabilitiesFrom(m *pb.CapabilitiesResponse) plugins.Capabilities {
	c := plugins.Capabilities{
		GroupListeners: number(m.GetGroupListeners()), SameAddress: m.GetSameAddress(), MinInterval: plugins.Duration(m.GetMinIntervalNano()),
		ExactExpect: m.GetExactExpect(), DrainDeadline: m.GetDrainDeadline(), Transactional: m.GetTransactional(), KeepsClients: m.GetKeepsClients(),
	}
	for _, s := range m.GetSupport() {
		c.Support = append(c.Support, plugins.Support{
			Field: s.GetField(), Values: s.GetValues(), Level: plugins.Level(s.GetLevel()), Instead: s.GetInstead(), Fix: s.GetFix(),
		})
	}
	return c
}

func stateTo(s *plugins.State) (*pb.ReadResponse, error) {
	d, err := deploymentTo(s.Deployment)
	if err != nil {
		return nil, err
	}
	m := &pb.ReadResponse{Revision: s.Revision, Deployment: d, Applied: s.Applied}
	for _, o := range s.Objects {
		obj := &pb.Object{Kind: o.Kind, Name: o.Name}
		for _, f := range o.Fields {
			obj.Fields = append(obj.Fields, &pb.Field{Name: f.Name, Value: f.Value, Fixed: f.Fixed})
		}
		m.Objects = append(m.Objects, obj)
	}
	for i := range s.Drained {
		m.Drained = append(m.Drained, drainTo(&s.Drained[i]))
	}
	return m, nil
}

func stateFrom(m *pb.ReadResponse) (*plugins.State, error) {
	// A plugin that is newer may serve more than this program knows of.
	d, err := deploymentFrom(m.GetDeployment(), false)
	if err != nil {
		return nil, err
	}
	s := &plugins.State{Revision: m.GetRevision(), Deployment: d, Applied: m.GetApplied()}
	for _, o := range m.GetObjects() {
		obj := plugins.Object{Kind: o.GetKind(), Name: o.GetName()}
		for _, f := range o.GetFields() {
			obj.Fields = append(obj.Fields, plugins.Field{Name: f.GetName(), Value: f.GetValue(), Fixed: f.GetFixed()})
		}
		s.Objects = append(s.Objects, obj)
	}
	for _, r := range m.GetDrained() {
		s.Drained = append(s.Drained, drainFrom(r))
	}
	return s, nil
}

func drainTo(r *plugins.DrainRequest) *pb.Drain {
	return &pb.Drain{Backend: refTo(r.BackendRef), DeadlineUnixNano: timeTo(r.Deadline)}
}

func drainFrom(m *pb.Drain) plugins.DrainRequest {
	return plugins.DrainRequest{BackendRef: refFrom(m.GetBackend()), Deadline: timeFrom(m.GetDeadlineUnixNano())}
}

func refTo(r plugins.BackendRef) *pb.BackendRef {
	return &pb.BackendRef{Pool: r.Pool, Backend: r.Backend}
}

func refFrom(m *pb.BackendRef) plugins.BackendRef {
	return plugins.BackendRef{Pool: m.GetPool(), Backend: m.GetBackend()}
}

func eventTo(e *plugins.Event) *pb.WatchResponse {
	return &pb.WatchResponse{
		AtUnixNano: timeTo(e.At), Severity: string(e.Severity), Kind: e.Kind, Name: e.Name, Text: e.Text, Missed: int64(e.Missed),
	}
}

func eventFrom(m *pb.WatchResponse) plugins.Event {
	return plugins.Event{
		At: timeFrom(m.GetAtUnixNano()), Severity: plugins.Severity(m.GetSeverity()), Kind: m.GetKind(), Name: m.GetName(),
		Text: m.GetText(), Missed: number(m.GetMissed()),
	}
}

func progressTo(p *plugins.Progress) *pb.ApplyResponse {
	return &pb.ApplyResponse{Done: int64(p.Done), Total: int64(p.Total), Change: changeTo(&p.Change), Text: p.Text}
}

func progressFrom(m *pb.ApplyResponse) plugins.Progress {
	return plugins.Progress{Done: number(m.GetDone()), Total: number(m.GetTotal()), Change: changeFrom(m.GetChange()), Text: m.GetText()}
}

func filesTo(list []plugins.File) []*pb.File {
	var out []*pb.File
	for i := range list {
		out = append(out, &pb.File{Name: list[i].Name, Summary: list[i].Summary, Content: list[i].Content})
	}
	return out
}

func filesFrom(list []*pb.File) []plugins.File {
	var out []plugins.File
	for _, m := range list {
		out = append(out, plugins.File{Name: m.GetName(), Summary: m.GetSummary(), Content: m.GetContent()})
	}
	return out
}

// timeTo returns nanoseconds since 1970, and 0 for no time. What doesn't fit, as
// the year 1 does not, becomes the nearest that does.
func timeTo(t time.Time) int64 {
	switch {
	case t.IsZero():
		return 0
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	if n := t.UnixNano(); n != 0 {
		return n
	}
	return 1
}

func timeFrom(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// number returns n as an int, whatever its size.
func number(n int64) int { return int(min(max(n, math.MinInt), math.MaxInt)) }

func optional[T, U int | int64](p *T) *U {
	if p == nil {
		return nil
	}
	return new(U(*p))
}

// addrFrom reads an address that the other side says; what is none is the zero
// address.
func addrFrom(s string) netip.Addr {
	a, _ := netip.ParseAddr(s)
	return a
}

func addrPortFrom(s string) netip.AddrPort {
	a, _ := netip.ParseAddrPort(s)
	return a
}

func addrTo(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func addrPortTo(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
