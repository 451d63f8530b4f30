package lbotel

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/aovlb/aovlb/lb"
)

var update = flag.Bool("update", false, "write docs/metrics.md")

const page = "../../docs/metrics.md"

// sample has a figure for every metric, no two alike where that is possible.
func sample(t *testing.T) *Exporter {
	t.Helper()
	pool := new(lb.Pool)
	err := pool.Set(
		lb.Backend{Name: "ras1", Addr: netip.MustParseAddr("10.0.0.1"), Weight: 2, MaxClients: 100},
		lb.Backend{Name: "ras2", Addr: netip.MustParseAddr("10.0.0.2"), Priority: 1},
	)
	if err != nil {
		t.Fatal(err)
	}
	pool.Drain("ras2", time.Time{})
	b := &lb.Balancer{Pool: pool, Table: new(lb.Table)}
	for i, stage := range []lb.Stage{lb.StageHalfOpen, lb.StageEstablished, lb.StageEstablished} {
		f := lb.Flow{Client: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), uint16(i)), Service: 500}
		v := lb.Verdict{Begin: true, Keys: [lb.MaxKeys]lb.Key{lb.FlowKey(f)}}
		r, err := b.Route(&v, f)
		if err != nil {
			t.Fatal(err)
		}
		b.Answered(r.Member, f, stage, r.Why, v.Keys[:]...)
	}
	unknown := lb.Verdict{Miss: lb.MissDrop, Keys: [lb.MaxKeys]lb.Key{lb.Uint64Key(200, 1)}}
	if _, err := b.Route(&unknown, lb.Flow{}); err == nil {
		t.Fatal("an unknown client has a route")
	}
	return &Exporter{
		Groups: func() []Group {
			return []Group{{Name: "vpn", Balancer: b, Checks: func() []Check {
				return []Check{
					{Backend: "ras1", Name: "ike", Known: true, Passing: true, Took: 20 * time.Millisecond, Probes: 10, Failures: 3},
					{Backend: "ras2", Name: "ike"},
				}
			}}}
		},
		Listeners: func() []Listener {
			return []Listener{
				{Group: "vpn", Name: "ike", Transport: "udp", Read: func() Traffic {
					return Traffic{
						ClientBytes: 11, BackendBytes: 12, Unreachable: 13, Errors: []Count{{"send", 14}},
						Datagrams: &Datagrams{
							FromClients: 15, FromBackends: 16, ToClients: 17, ToBackends: 18, Dropped: []Count{{"classifier", 19}},
							Unanswered: 20, HalfOpen: 21, Established: 22, Opened: 23, Closed: []Count{{"expired", 24}},
						},
					}
				}},
				{Group: "vpn", Name: "sstp", Transport: "tcp", Read: func() Traffic {
					return Traffic{
						ClientBytes: 31, BackendBytes: 32, Unreachable: 33,
						Streams: &Streams{
							Open: 35, Sniffing: 5, Accepted: 36, Opened: 37, Retries: 38,
							Refused: []Count{{"limit", 39}}, Closed: []Count{{"idle", 40}},
						},
					}
				}},
			}
		},
	}
}

// collect returns what an SDK sees of x.
func collect(t *testing.T, x *Exporter) []metricdata.Metrics {
	t.Helper()
	reader := sdk.NewManualReader()
	provider := sdk.NewMeterProvider(sdk.WithReader(reader))
	x.Meter = provider.Meter("test")
	reg, err := x.Register()
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Unregister()
	var out metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	if len(out.ScopeMetrics) != 1 {
		t.Fatalf("%d scopes", len(out.ScopeMetrics))
	}
	return out.ScopeMetrics[0].Metrics
}

// A point is one figure of a metric.
type point struct {
	attrs attribute.Set
	value float64
}

// points returns the figures of m, and what kind it is of.
func points(t *testing.T, m metricdata.Metrics) ([]point, kind) {
	t.Helper()
	var out []point
	switch d := m.Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range d.DataPoints {
			out = append(out, point{p.Attributes, float64(p.Value)})
		}
		if d.IsMonotonic {
			return out, counter
		}
		return out, updown
	case metricdata.Gauge[float64]:
		for _, p := range d.DataPoints {
			out = append(out, point{p.Attributes, p.Value})
		}
		return out, gauge
	}
	t.Fatalf("%s is a %T", m.Name, m.Data)
	return nil, 0
}

// TestInstruments checks that every instrument is there, is what it is described
// as, and has exactly its attributes.
func TestInstruments(t *testing.T) {
	left := make(map[string]instrument)
	for _, in := range instruments {
		left[in.name] = in
	}
	if len(left) != instrumentCount {
		t.Errorf("%d names for %d instruments", len(left), instrumentCount)
	}
	for _, m := range collect(t, sample(t)) {
		in, ok := left[m.Name]
		if !ok {
			t.Errorf("%s isn't in the list, or came twice", m.Name)
			continue
		}
		delete(left, m.Name)
		all, k := points(t, m)
		if k != in.kind || m.Unit != in.unit || m.Description != in.text {
			t.Errorf("%s is a %v in %q, %q; want %v in %q, %q", m.Name, k, m.Unit, m.Description, in.kind, in.unit, in.text)
		}
		want := slices.Sorted(slices.Values(in.attrs))
		for _, p := range all {
			var got []string
			for _, kv := range p.attrs.ToSlice() {
				got = append(got, string(kv.Key))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s has attributes %v, not %v", m.Name, got, want)
			}
		}
	}
	for name := range left {
		t.Errorf("%s wasn't collected", name)
	}
}

// TestNames checks what the semantic conventions say of names.
func TestNames(t *testing.T) {
	good := regexp.MustCompile(`^aovlb(\.[a-z][a-z0-9_]*)+$`)
	for _, in := range instruments {
		if !good.MatchString(in.name) || strings.HasSuffix(in.name, "total") {
			t.Errorf("%s is a bad name", in.name)
		}
		for _, other := range instruments {
			if strings.HasPrefix(other.name, in.name+".") {
				t.Errorf("%s is a metric, and the namespace of %s", in.name, other.name)
			}
		}
		if !strings.HasSuffix(in.text, ".") || strings.Contains(in.text, "|") {
			t.Errorf("%s: the description doesn't suit a table: %q", in.name, in.text)
		}
	}
}

// TestValues checks every figure of the sample.
func TestValues(t *testing.T) {
	var got []string
	for _, m := range collect(t, sample(t)) {
		all, _ := points(t, m)
		for _, p := range all {
			var words []string
			for _, kv := range p.attrs.ToSlice() {
				words = append(words, kv.Value.AsString())
			}
			if m.Name == "aovlb.table.memory.usage" {
				p.value = min(p.value, 1) // whatever it is
			}
			got = append(got, fmt.Sprintf("%s %s %v", strings.TrimPrefix(m.Name, "aovlb."), strings.Join(words, "/"), p.value))
		}
	}
	slices.Sort(got)
	// Attributes come in the order of their names.
	want := strings.Split(strings.TrimSpace(`
backend.client.count ras1/vpn 3
backend.client.count ras2/vpn 0
backend.client.limit ras1/vpn 100
backend.picks ras1/vpn 3
backend.picks ras2/vpn 0
backend.status ras1/down/vpn 0
backend.status ras1/draining/vpn 0
backend.status ras1/up/vpn 1
backend.status ras2/down/vpn 0
backend.status ras2/draining/vpn 1
backend.status ras2/up/vpn 0
backend.weight ras1/vpn 2
backend.weight ras2/vpn 1
check.duration ras1/ike/vpn 0.02
check.probes ras1/ike/failure/vpn 3
check.probes ras1/ike/success/vpn 7
check.probes ras2/ike/failure/vpn 0
check.probes ras2/ike/success/vpn 0
check.status ras1/ike/vpn 1
datagram.dropped vpn/ike/classifier/udp 19
datagram.received vpn/ike/backend/udp 16
datagram.received vpn/ike/client/udp 15
datagram.sent vpn/ike/backend/udp 18
datagram.sent vpn/ike/client/udp 17
flow.closed vpn/ike/expired/udp 24
flow.count established/vpn/ike/udp 22
flow.count half_open/vpn/ike/udp 21
flow.count unanswered/vpn/ike/udp 20
flow.opened vpn/ike/udp 23
group.panic vpn 0
group.priority vpn 0
listener.errors vpn/ike/send/udp 14
listener.io vpn/ike/backend/udp 12
listener.io vpn/ike/client/udp 11
listener.io vpn/sstp/backend/tcp 32
listener.io vpn/sstp/client/tcp 31
listener.unreachable vpn/ike/udp 13
listener.unreachable vpn/sstp/tcp 33
route.decisions vpn/asked 0
route.decisions vpn/hint 0
route.decisions vpn/known 0
route.decisions vpn/moved 0
route.decisions vpn/picked 3
route.refusals vpn/ask_limit 0
route.refusals vpn/backend_down 0
route.refusals vpn/no_backend 0
route.refusals vpn/unknown_client 1
stream.accepted vpn/sstp/tcp 36
stream.closed vpn/sstp/idle/tcp 40
stream.count other/vpn/sstp/tcp 30
stream.count sniffing/vpn/sstp/tcp 5
stream.opened vpn/sstp/tcp 37
stream.refused vpn/sstp/limit/tcp 39
stream.retries vpn/sstp/tcp 38
table.client.count established/vpn 2
table.client.count half_open/vpn 1
table.memory.usage vpn 1
table.name.count vpn 3
table.refusals vpn 0
table.removals vpn/evicted 0
table.removals vpn/expired 0
table.source.count vpn 1`), "\n")
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestUnregister checks that an ended registration reads nothing more.
func TestUnregister(t *testing.T) {
	reader := sdk.NewManualReader()
	calls := 0
	x := &Exporter{
		Meter:  sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("test"),
		Groups: func() []Group { calls++; return nil },
	}
	reg, err := x.Register()
	if err != nil {
		t.Fatal(err)
	}
	var out metricdata.ResourceMetrics
	reader.Collect(t.Context(), &out)
	if err := reg.Unregister(); err != nil {
		t.Fatal(err)
	}
	reader.Collect(t.Context(), &out)
	if calls != 1 {
		t.Errorf("Groups was called %d times", calls)
	}
	if _, err := new(Exporter).Register(); err == nil {
		t.Error("an exporter without a meter was registered")
	}
}

// table is the table of docs/metrics.md.
func table() string {
	var b strings.Builder
	b.WriteString("| metric | kind | unit | attributes | meaning |\n|---|---|---|---|---|\n")
	for _, in := range instruments {
		attrs := slices.Clone(in.attrs)
		for i, a := range attrs {
			attrs[i] = "`" + a + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %v | `%s` | %s | %s |\n", in.name, in.kind, in.unit, strings.Join(attrs, ", "), in.text)
	}
	return b.String()
}

// TestPage checks that docs/metrics.md has the very table of this package, and
// says something of each attribute. With -update it writes the table.
func TestPage(t *testing.T) {
	const begin, end = "<!-- metrics -->\n", "<!-- /metrics -->\n"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := bytes.Cut(text, []byte(begin))
	got, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table, between %q and %q", page, begin, end)
	}
	if *update {
		text = slices.Concat(before, []byte(begin), []byte(table()), []byte(end), after)
		if err := os.WriteFile(page, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(table(), string(got)); d != "" {
		t.Errorf("%s isn't what the code says; run this test with -update:\n%s", page, d)
	}
	attrs := make(map[string]bool)
	for _, in := range instruments {
		for _, a := range in.attrs {
			attrs[a] = true
		}
	}
	for a := range maps.Keys(attrs) {
		if !bytes.Contains(before, []byte("`"+a+"`")) {
			t.Errorf("%s doesn't explain attribute %s", page, a)
		}
	}
}

func BenchmarkCollect(b *testing.B) {
	reader := sdk.NewManualReader()
	pool := new(lb.Pool)
	var backends []lb.Backend
	for i := range 10 {
		backends = append(backends, lb.Backend{Name: fmt.Sprintf("ras%d", i), Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})})
	}
	if err := pool.Set(backends...); err != nil {
		b.Fatal(err)
	}
	balancer := &lb.Balancer{Pool: pool, Table: new(lb.Table)}
	x := &Exporter{
		Meter:  sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("bench"),
		Groups: func() []Group { return []Group{{Name: "vpn", Balancer: balancer}} },
	}
	if _, err := x.Register(); err != nil {
		b.Fatal(err)
	}
	var out metricdata.ResourceMetrics
	b.ReportAllocs()
	for b.Loop() {
		if err := reader.Collect(b.Context(), &out); err != nil {
			b.Fatal(err)
		}
	}
}
