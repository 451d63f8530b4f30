package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/plugins"
)

// TestGeoWords: the model has the words of the policy as package geo has them.
func TestGeoWords(t *testing.T) {
	var orders, methods, allDowns []string
	for c := geo.Criterion(1); !strings.HasPrefix(c.String(), "criterion "); c++ {
		orders = append(orders, c.String())
	}
	for m := geo.Method(0); !strings.HasPrefix(m.String(), "method "); m++ {
		methods = append(methods, m.String())
	}
	for a := geo.AllDown(0); !strings.HasPrefix(a.String(), "all-down "); a++ {
		allDowns = append(allDowns, a.String())
	}
	for _, c := range []struct{ model, policy []string }{{plugins.GeoOrders, orders}, {plugins.GeoMethods, methods}, {plugins.GeoAllDowns, allDowns}} {
		if !slices.Equal(c.model, c.policy) || len(c.model) < 3 {
			t.Errorf("the model has %v, the policy %v", c.model, c.policy)
		}
	}
}

// TestGeoMetricsAreWritten: the page of metrics has what is collected.
func TestGeoMetricsAreWritten(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan *prometheus.Desc, 100)
	geoMetrics{}.Describe(ch)
	close(ch)
	n := 0
	for d := range ch {
		n++
		name, _, _ := strings.Cut(strings.TrimPrefix(d.String(), `Desc{fqName: "`), `"`)
		if !strings.Contains(string(page), "| `"+name+"` |") {
			t.Errorf("docs/metrics.md has no %s", name)
		}
	}
	if n < 15 {
		t.Errorf("%d metrics", n)
	}
}

// TestQuorum: a gateway is down if enough of those that have a view say so, and a
// view that has grown old doesn't count.
func TestQuorum(t *testing.T) {
	const up, down = "up", "down"
	for _, c := range []struct {
		name   string
		quorum int
		own    string
		peers  []string // a view that is old begins with "old "
		want   geo.State
	}{
		{"alone", 0, down, nil, geo.Down},
		{"one of two is no majority", 0, down, []string{up}, geo.Up},
		{"two of two", 0, down, []string{down}, geo.Down},
		{"one of three, this one", 0, down, []string{up, up}, geo.Up},
		{"two of three, others", 0, up, []string{down, down}, geo.Down},
		{"one is enough", 1, up, []string{down, up}, geo.Down},
		{"all are needed", 3, down, []string{down, up}, geo.Up},
		{"a peer that is silent", 0, down, []string{"old up", "old up"}, geo.Down},
		{"a peer that is silent, of three", 2, down, []string{"old up", down}, geo.Down},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGeoServer(slog.New(slog.DiscardHandler), "", nil)
			defer g.health.Close()
			site := geo.Site{Name: "berlin", Gateways: []geo.Gateway{{Name: "ras1", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}}
			if err := g.health.Set(site); err != nil {
				t.Fatal(err)
			}
			g.setting.Store(&geoSetting{spec: &plugins.Geo{Quorum: c.quorum}})
			key := [2]string{"berlin", "ras1"}
			g.votes.peers = make(map[string]*peerVotes)
			for i, state := range c.peers {
				at := time.Now()
				if s, old := strings.CutPrefix(state, "old "); old {
					state, at = s, at.Add(-time.Minute)
				}
				g.votes.peers[fmt.Sprint("peer", i)] = &peerVotes{at: at, byGateway: map[[2]string]geoVote{key: {Site: "berlin", Gateway: "ras1", State: state, Cause: "timeout"}}}
			}
			state := geo.Up
			if c.own == down {
				state = geo.Down
			}
			g.vote("berlin", "ras1", state, "no answer")
			if got := g.health.View().Site("berlin"); got.State != c.want {
				t.Errorf("it is %v (%s), want %v", got.State, got.Cause, c.want)
			}
		})
	}
}

// TestPeersThatLeave: what peers said that are no longer in the file counts no more.
func TestPeersThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGeoServer(slog.New(slog.DiscardHandler), "", nil)
		defer g.health.Close()
		site := geo.Site{Name: "berlin", Gateways: []geo.Gateway{{Name: "ras1", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}}
		if err := g.health.Set(site); err != nil {
			t.Fatal(err)
		}
		g.votes.peers = make(map[string]*peerVotes)
		for _, url := range []string{"a", "b"} {
			g.votes.peers[url] = &peerVotes{at: time.Now(), byGateway: map[[2]string]geoVote{{"berlin", "ras1"}: {Site: "berlin", Gateway: "ras1", State: "down"}}}
		}
		g.vote("berlin", "ras1", geo.Up, "")
		if got := g.health.View().Site("berlin").State; got != geo.Down {
			t.Fatalf("it is %v, though two of three find it down", got)
		}
		g.setting.Store(&geoSetting{spec: new(plugins.Geo)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); g.askPeers(ctx) }()
		synctest.Wait()
		if got := g.health.View().Site("berlin").State; got != geo.Up || len(g.status().Peers) != 0 {
			t.Errorf("it is %v after the peers have left; there are %v", got, g.status().Peers)
		}
		cancel()
		<-done
	})
}

// TestLoadOf: a site's load that goes by another name is told to the peers.
func TestLoadOf(t *testing.T) {
	g := newGeoServer(slog.New(slog.DiscardHandler), "", func(site string) (int, bool) { return 7, site == "hq" })
	g.setting.Store(&geoSetting{spec: &plugins.Geo{Sites: []plugins.GeoSite{{Name: "berlin", LoadOf: "hq"}, {Name: "rome"}}}})
	mux := http.NewServeMux()
	g.routes(mux)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/geo/votes", nil))
	var got geoVotes
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || !maps.Equal(got.Clients, map[string]int{"berlin": 7}) {
		t.Errorf("%v: %s", err, w.Body)
	}
}

func TestMost(t *testing.T) {
	if got := most(map[string]uint64{"DE": 5, "": 7, "GB": 5, "US": 1, "JP": 2}, 3); got != "unknown 7, DE 5, GB 5, others 3" {
		t.Error(got)
	}
}

func TestRCodes(t *testing.T) {
	for code, want := range map[int]string{0: "noerror", 3: "nxdomain", 16: "badvers", 23: "badcookie", 99: "99"} {
		if got := rcode(code); got != want {
			t.Errorf("%d is %s, want %s", code, got, want)
		}
	}
}
