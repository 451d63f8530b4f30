package plugins

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func lines(changes []Change) string {
	var b strings.Builder
	for _, c := range changes {
		b.WriteString(c.String() + "\n")
	}
	return b.String()
}

func TestDiff(t *testing.T) {
	old, now := &good().Sites[0], &good().Sites[0]
	if d := Diff(old, now); len(d) != 0 {
		t.Errorf("equal sites differ: %v", d)
	}
	now.Pools[0].Picker = PickRoundRobin
	now.Pools[0].Backends[0].Weight = new(3)
	now.Pools[0].Backends[1] = Backend{Name: "ras3", Address: netip.MustParseAddr("10.0.1.13")}
	now.Pools[0].Checks[1].Interval = Duration(time.Minute)
	now.Groups[0].Limits.MaxPerSource = 7
	now.Groups = now.Groups[:1]
	now.Groups[0].Listeners = now.Groups[0].Listeners[:2]
	got := lines(Diff(old, now))
	want := `~ pool ras: picker none → round-robin
~ backend ras/ras1: weight none → 3
+ backend ras/ras3: address 10.0.1.13
~ check ras/sstp: interval none → 1m
~ group vpn: limits none → {"max_per_source":7}
- listener nps/auth
- group nps
- listener vpn/sstp
- backend ras/ras2
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if n := len(Diff(nil, now)); n != 11 {
		t.Errorf("%d changes from nothing: %s", n, lines(Diff(nil, now)))
	}
	if got := lines(Diff(old, nil)); strings.Count(got, "\n- ")+1 != strings.Count(got, "\n") {
		t.Errorf("to nothing: %s", got)
	}
}

// A clone is equal, shares nothing, and survives JSON.
func TestCloneAndRevision(t *testing.T) {
	d := good()
	d.Sites[0].Pools[0].Panic = new(false)
	d.Sites[0].Pools[0].Backends[0].Weight = new(2)
	c := d.Clone()
	if !reflect.DeepEqual(c, d) || c.Revision() != d.Revision() {
		t.Fatal("a clone differs")
	}
	before := d.Revision()
	*c.Sites[0].Pools[0].Panic = true
	*c.Sites[0].Pools[0].Backends[0].Weight = 5
	c.Sites[0].Pools[0].Backends[1].Name = "x"
	c.Sites[0].Pools[0].Checks[1].Expect = 200
	c.Sites[0].Groups[0].Listeners[0].Name = "x"
	if d.Revision() != before {
		t.Error("a clone shares something")
	}
	if c.Revision() == before {
		t.Error("different deployments have the same revision")
	}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var back Deployment
	if err := json.Unmarshal(b, &back); err != nil || back.Revision() != before {
		t.Errorf("JSON: %v\n%s", err, b)
	}
	if (*Deployment)(nil).Clone() != nil || (*Deployment)(nil).Revision() != "" {
		t.Error("nil")
	}
}
