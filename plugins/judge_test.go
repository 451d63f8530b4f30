package plugins

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// modest is a balancer that can do a little.
func modest() Capabilities {
	return Capabilities{
		Support: slices.Concat(
			Full("pools.picker=round-robin", "pools.failback=automatic", "pools.need=all", "pools.backends.weight", "pools.backends.admin",
				"pools.checks.type=tcp,radius", "pools.checks.port", "pools.checks.secret_file", "pools.checks.interval", "groups.affinity=source",
				"groups.client_address=nat", "groups.listeners.protocol", "groups.limits.max_clients"),
			[]Support{
				Partial("pools.picker=maglev", "the source address is hashed"),
				Partial("pools.checks.type=sstp", "any answer counts"),
				Partial("pools.panic", "with all down, nobody is served"),
				None("groups.affinity=spi", "it doesn't read IKE", "use affinity: source"),
			},
		),
		GroupListeners: 2, SameAddress: true, MinInterval: Duration(9 * time.Second),
	}
}

func TestJudge(t *testing.T) {
	d := good()
	s := &d.Sites[0]
	s.Pools[0].Picker = PickLeastClients
	s.Pools[0].SlowStart = Duration(time.Minute)
	s.Groups[0].Limits.MaxPerSource = 7
	s.Groups[0].Limits.MaxClients = 7
	s.Pools[0].Checks[1].Interval = Duration(5 * time.Second)
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, g := range Judge(d, "", modest()) {
		got = append(got, g.String())
	}
	want := []string{
		"error: sites[0].pools[0].picker: picker: least-clients can't be done here; it can be round-robin or maglev",
		"error: sites[0].pools[0].slow_start: slow_start can't be done here; leave it out",
		"error: sites[0].pools[0].checks[0].type: type: ikev2 can't be done here; it can be tcp, radius or sstp",
		"warning: sites[0].pools[0].checks[1].type: type: sstp is done only in part; any answer counts",
		"info: sites[0].pools[0].panic: panic: true, which is the default, is done only in part; with all down, nobody is served",
		"error: sites[0].groups[0].limits.max_per_source: max_per_source can't be done here; leave it out",
		"error: sites[0].groups[0].listeners: there are 3, and here at most 2 can agree where a client lives; make several groups of them",
		"warning: sites[0].pools[0].checks[1].interval: each 5s is more often than this balancer can ask; it asks each 9s, so that a dead backend is found later",
		"error: sites[0].groups[0].affinity: affinity: spi can't be done here; it doesn't read IKE; use affinity: source",
		"info: sites[0].groups[1].affinity: affinity: user, which is the default, can't be had here; it can be source",
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("missing: %s", w)
		}
	}
	if t.Failed() {
		t.Log("\n" + strings.Join(got, "\n"))
	}
	c := modest()
	if f := c.Faults(); len(f) != 0 {
		t.Error(f)
	}
	c.Support = append(c.Support, Support{Field: "pools.pickers", Level: LevelFull}, Support{Field: "pools.picker", Level: LevelPartial}, Support{Field: "geo", Level: "some", Instead: "x"})
	if f := c.Faults(); len(f) != 3 {
		t.Error(f)
	}
}

// Every field that is set, and that nobody says can be done, is named.
func TestJudgeNamesEverything(t *testing.T) {
	for _, field := range Fields() {
		if strings.HasPrefix(field, "geo") || strings.HasPrefix(field, "certificates") || slices.Contains(always, field) {
			continue
		}
		site := new(Site)
		fill(t, site, field)
		d := &Deployment{Sites: []Site{*site}}
		found := slices.ContainsFunc(Judge(d, "", Capabilities{}), func(g Diagnostic) bool {
			return strings.HasPrefix(strings.NewReplacer("[0]", "").Replace(g.Path), "sites."+strings.SplitN(field, ".", 2)[0]) && g.Severity == SeverityError
		})
		if !found {
			t.Errorf("%s is left out in silence", field)
		}
	}
}

func TestOwner(t *testing.T) {
	var o Owner
	if got := o.Name("hq", 0, "vpn", "ike"); got != "aovlb_hq_vpn_ike" || !o.Owns("hq", got) {
		t.Error(got)
	}
	if o.Owns("hq", o.Name("hq_x", 0, "vpn")) || o.Owns("hq_x", o.Name("hq", 0, "x", "vpn")) || Owner("b").Owns("hq", o.Name("hq", 0, "v")) {
		t.Error("a site owns another's objects")
	}
	seen := map[string]string{}
	for _, parts := range [][]string{{"a", "b"}, {"a-b"}, {"a_b"}, {"a.b"}, {"a", "b", ""}, {"ab"}, {strings.Repeat("x", 63), "y"}, {strings.Repeat("x", 63), "z"}} {
		n := o.Name("hq", 40, parts...)
		if other, dup := seen[n]; dup || len(n) > 40 {
			t.Errorf("%s for %q and %s", n, parts, other)
		}
		seen[n] = strings.Join(parts, "/")
	}
	m := o.Mark("hq", "abc")
	if rev, ok := o.ReadMark("hq", m+" edited by Bob"); !ok || rev != "abc" {
		t.Error(rev, ok)
	}
	if _, ok := o.ReadMark("hq2", m); ok {
		t.Error("another site's")
	}
	if _, ok := o.ReadMark("hq", "nothing"); ok {
		t.Error("not a mark")
	}
	if Owner("a-b").Check() == nil || Owner("1a").Check() == nil || o.Check() != nil || Owner("net7").Check() != nil {
		t.Error("Check")
	}
}

func TestDiffObjects(t *testing.T) {
	found := []Object{
		{Kind: "pool", Name: "p", Fields: []Field{{Name: "algo", Value: "rr"}, {Name: "theirs", Value: "x"}}},
		{Kind: "vs", Name: "a", Fields: []Field{{Name: "port", Value: "500", Fixed: true}}},
		{Kind: "vs", Name: "gone"},
	}
	want := []Object{
		{Kind: "pool", Name: "p", Fields: []Field{{Name: "algo", Value: "lc"}}},
		{Kind: "pool", Name: "q"},
		{Kind: "vs", Name: "a", Fields: []Field{{Name: "port", Value: "4500", Fixed: true}}},
	}
	got := lines(DiffObjects(found, want))
	if got != "~ pool p: algo rr → lc\n+ pool q\n± vs a: port 500 → 4500\n- vs gone\n" {
		t.Error(got)
	}
	if n := DiffObjects(want, want); len(n) != 0 {
		t.Error(n)
	}
	swapped := []Object{found[2], found[1], found[0]}
	swapped[2].Fields = []Field{found[0].Fields[1], found[0].Fields[0]}
	if RevisionOf(found) != RevisionOf(swapped) || RevisionOf(found) == RevisionOf(want) {
		t.Error("RevisionOf")
	}
}
