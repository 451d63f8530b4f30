package poll

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/plugins"
)

// view returns a view of one backend and one listener.
func view(backend, listener string, marks ...string) View {
	v := View{Stats: &plugins.Stats{
		Pools:     []plugins.PoolStats{{Name: "ras", Backends: []plugins.BackendStats{{Name: "ras1", State: backend}}}},
		Listeners: []plugins.ListenerStats{{Group: "vpn", Name: "sstp", State: listener}},
	}}
	for i, m := range marks {
		v.Marks = append(v.Marks, Mark{Value: m, Severity: plugins.SeverityInfo, Text: fmt.Sprintf("mark %d", i)})
	}
	return v
}

func TestRun(t *testing.T) {
	gone := errors.New("no route to it")
	down := view("up", "open", "b", "3")
	down.Down = "it has ended"
	looks := []struct {
		view View
		err  error
		want []string
	}{
		{err: gone}, // since the first look; nobody was told it worked
		{view: view("up", "open", "a", "1"), want: []string{"info listener box: it answers again"}},
		{view: view("up", "open", "a", "1")},
		{view: view("down", "open", "a", "1"), want: []string{"warning backend ras/ras1: up → down"}},
		{view: view("up", "failed", "a", "1"), want: []string{"info backend ras/ras1: down → up", "warning listener vpn/sstp: open → failed"}},
		{err: gone, want: []string{"error listener box: no route to it"}},
		{err: gone},
		{view: view("up", "open", "b", "2"), want: []string{"info listener box: it answers again", "info apply box: mark 0", "info listener vpn/sstp: failed → open"}},
		{view: view("up", "open", "b", "3"), want: []string{"info apply box: mark 1"}},
		{view: down, want: []string{"error listener box: it has ended"}},
		{view: down},
		{view: View{Marks: down.Marks}, want: []string{"info listener box: it answers again"}}, // nothing is served any more
		{view: view("down", "open", "b", "3")},                                                 // and what is new isn't a change
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		var got []string
		n := 0
		w := Watcher{Name: "box", Every: time.Second, Again: "it answers again", Look: func(context.Context) (View, error) {
			if n > 0 {
				if diff := cmp.Diff(looks[n-1].want, got); diff != "" {
					t.Errorf("look %d (-want +got):\n%s", n-1, diff)
				}
				got = nil
			}
			if n == len(looks) {
				cancel(gone)
				return View{}, nil
			}
			n++
			return looks[n-1].view, looks[n-1].err
		}}
		start := time.Now()
		err := w.Run(ctx, func(e plugins.Event) {
			got = append(got, fmt.Sprintf("%v %s %s: %s", e.Severity, e.Kind, e.Name, e.Text))
		})
		if !errors.Is(err, gone) {
			t.Errorf("Run: %v, want the cause", err)
		}
		if took := time.Since(start); n != len(looks) || took != time.Duration(n)*time.Second {
			t.Errorf("%d of %d looks in %v", n, len(looks), took)
		}
	})
}
