package wire_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest/remote"
	"github.com/aovlb/aovlb/plugins/proto/wire"
)

// over returns d at the other end of a connection in memory.
func over(t *testing.T, d plugins.Driver, log *slog.Logger) plugins.Driver {
	t.Helper()
	return remote.Driver(t, d, log)
}

// scripted is a driver that says what it is told to.
type scripted struct {
	plugins.Driver

	plan   *plugins.Plan
	state  *plugins.State
	stats  *plugins.Stats
	caps   plugins.Capabilities
	events []plugins.Event
	err    error
	got    *plugins.Plan
	drain  plugins.DrainRequest
}

func (s *scripted) Plan(context.Context, *plugins.Deployment) (*plugins.Plan, error) {
	return s.plan, s.err
}

func (s *scripted) Read(context.Context) (*plugins.State, error) { return s.state, s.err }

func (s *scripted) Stats(context.Context) (*plugins.Stats, error) { return s.stats, s.err }

func (s *scripted) Capabilities(context.Context) (plugins.Capabilities, error) { return s.caps, s.err }

func (s *scripted) Drain(_ context.Context, r plugins.DrainRequest) error { s.drain = r; return s.err }

func (s *scripted) Apply(_ context.Context, p *plugins.Plan, f func(plugins.Progress)) error {
	s.got = p
	for i, c := range p.Changes {
		f(plugins.Progress{Done: i + 1, Total: len(p.Changes), Change: c, Text: "x"})
	}
	return s.err
}

func (s *scripted) Watch(ctx context.Context, f func(plugins.Event)) error {
	for _, e := range s.events {
		f(e)
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// populate sets everything in v to something that isn't zero, n telling one from
// another.
func populate(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.String:
		v.SetString("text-" + string(rune('a'+*n%26)))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(int64(*n))
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.Float64:
		v.SetFloat(float64(*n))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		populate(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		populate(v.Index(0), n)
		populate(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		populate(key, n)
		populate(value, n)
		v.SetMapIndex(key, value)
	case reflect.Struct:
		switch v.Addr().Interface().(type) {
		case *time.Time:
			v.Set(reflect.ValueOf(time.Unix(1_700_000_000+int64(*n), 5)))
			return
		case interface{ UnmarshalText([]byte) error }:
			texter := v.Addr().Interface().(interface{ UnmarshalText([]byte) error })
			for _, s := range []string{"192.0.2.7:443", "192.0.2.7", "192.0.2.0/24"} {
				if texter.UnmarshalText([]byte(s)) == nil {
					return
				}
			}
			panic(v.Type())
		}
		for _, field := range v.Fields() {
			populate(field, n)
		}
	default:
		panic(v.Type())
	}
}

func full[T any]() *T {
	out := new(T)
	n := 0
	populate(reflect.ValueOf(out).Elem(), &n)
	return out
}

// Whatever a driver says arrives whole. A field of the contract that nobody
// thought of here is found by this test.
func TestNothingIsLost(t *testing.T) {
	s := &scripted{
		plan: full[plugins.Plan](), state: full[plugins.State](), stats: full[plugins.Stats](), caps: *full[plugins.Capabilities](),
		events: *full[[]plugins.Event](),
	}
	for i := range s.plan.Diagnostics {
		s.plan.Diagnostics[i].Severity = plugins.SeverityInfo
	}
	d, ctx := over(t, s, nil), t.Context()
	addresses := cmp.Comparer(func(a, b interface{ MarshalText() ([]byte, error) }) bool {
		x, _ := a.MarshalText()
		y, _ := b.MarshalText()
		return bytes.Equal(x, y)
	})
	same := func(what string, want, got any, err error) {
		t.Helper()
		if diff := cmp.Diff(want, got, cmp.FilterValues(func(x, y any) bool {
			_, a := x.(interface{ MarshalText() ([]byte, error) })
			_, b := y.(interface{ MarshalText() ([]byte, error) })
			return a && b
		}, addresses)); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", what, err, diff)
		}
	}
	plan, err := d.Plan(ctx, s.plan.Deployment)
	same("Plan", s.plan, plan, err)
	state, err := d.Read(ctx)
	same("Read", s.state, state, err)
	stats, err := d.Stats(ctx)
	same("Stats", s.stats, stats, err)
	caps, err := d.Capabilities(ctx)
	same("Capabilities", s.caps, caps, err)
	var progress []plugins.Progress
	err = d.Apply(ctx, s.plan, func(p plugins.Progress) { progress = append(progress, p) })
	same("Apply", s.plan, s.got, err)
	if len(progress) != len(s.plan.Changes) || progress[1].Text != "x" || progress[1].Done != 2 {
		t.Errorf("progress: %+v", progress)
	}
	same("progress", s.plan.Changes[1], progress[1].Change, nil)
	drain := full[plugins.DrainRequest]()
	err = d.Drain(ctx, *drain)
	same("Drain", *drain, s.drain, err)
	enough := errors.New("enough")
	wctx, cancel := context.WithCancelCause(ctx)
	var events []plugins.Event
	err = d.Watch(wctx, func(e plugins.Event) {
		if events = append(events, e); len(events) == 2 {
			cancel(enough)
		}
	})
	if !errors.Is(err, enough) {
		t.Errorf("Watch: %v", err)
	}
	same("Watch", s.events, events, nil)
	n := 0
	sctx, stop := context.WithCancelCause(ctx)
	err = d.(wire.StatsStreamer).StreamStats(sctx, time.Nanosecond, func(*plugins.Stats) {
		if n++; n == 2 {
			stop(enough)
		}
	})
	if !errors.Is(err, enough) || n != 2 {
		t.Errorf("StreamStats: %d, %v", n, err)
	}
	if _, ok := d.(plugins.Renderer); ok {
		t.Error("a driver that doesn't render does, over the wire")
	}
}

// Errors keep their kinds.
func TestErrors(t *testing.T) {
	s := new(scripted)
	d, ctx := over(t, s, nil), t.Context()
	for _, want := range []error{plugins.ErrStale, plugins.ErrUnsupported, plugins.ErrInvalid, plugins.ErrNotFound, plugins.ErrNotDrained} {
		s.err = errors.Join(errors.New("the box at 192.0.2.1 says no"), want)
		if _, err := d.Read(ctx); !errors.Is(err, want) || !strings.Contains(err.Error(), "192.0.2.1") {
			t.Errorf("%v: %v", want, err)
		}
		if err := d.Apply(ctx, &plugins.Plan{}, nil); !errors.Is(err, want) {
			t.Errorf("%v, streamed: %v", want, err)
		}
	}
	s.err = errors.Join(&plugins.FieldError{Path: "settings.a", Err: errors.New("no")}, errors.New("else"), &plugins.FieldError{Path: "settings.b", Err: errors.New("no more")})
	var got []string
	err := d.Drain(ctx, plugins.DrainRequest{})
	for _, e := range plugins.FieldErrors(err) {
		got = append(got, e.Path+"="+e.Err.Error())
	}
	if !slices.Equal(got, []string{"settings.a=no", "=else", "settings.b=no more"}) {
		t.Errorf("%q", got)
	}
	s.err = errors.New(strings.Repeat("long \xff", 10000))
	if _, err := d.Read(ctx); err == nil || len(err.Error()) > 8<<10 {
		t.Errorf("a long error: %.100v", err)
	}
	var many []error
	for range 1000 {
		many = append(many, &plugins.FieldError{Path: strings.Repeat("p", 300), Err: errors.New("no")})
	}
	s.err = errors.Join(many...)
	if _, err := d.Read(ctx); err == nil || !strings.Contains(err.Error(), "ppp") {
		t.Errorf("many errors: %.100v", err)
	}
}

// A driver that panics does no more harm than one that fails, and it is told where.
func TestPanic(t *testing.T) {
	var log bytes.Buffer
	d := over(t, new(scripted), slog.New(slog.NewTextHandler(&log, nil)))
	_, err := d.Info(t.Context()) // there is no Driver within
	if err == nil || !strings.Contains(err.Error(), "panicked in Info") {
		t.Errorf("%v", err)
	}
	if !strings.Contains(log.String(), "wire_test") && !strings.Contains(log.String(), "stack=") {
		t.Errorf("the log doesn't say where: %s", log.String())
	}
	if err := d.Undrain(t.Context(), plugins.BackendRef{}); err == nil {
		t.Error("no error")
	}
	if _, err := d.Capabilities(t.Context()); err != nil {
		t.Errorf("after the panic: %v", err)
	}
}
