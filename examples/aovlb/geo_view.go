package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/geo/geodns"
	"github.com/aovlb/aovlb/plugins"
)

// GeoStatus is what GET /v1/geo returns, and a part of the status.
type GeoStatus struct {
	Sites []GeoSiteStatus `json:"sites"`
	Names []GeoNameStatus `json:"names"`
	DNS   geodns.Stats    `json:"dns"`
	Peers []GeoPeerStatus `json:"peers,omitempty"`
}

// GeoSiteStatus is how a site is.
type GeoSiteStatus struct {
	Name     string    `json:"name"`
	State    string    `json:"state"`
	Admin    string    `json:"admin,omitempty"`
	Until    time.Time `json:"until,omitzero"`
	Cause    string    `json:"cause,omitempty"`
	Since    time.Time `json:"since"`
	Held     bool      `json:"held,omitempty"`
	Unstable bool      `json:"unstable,omitempty"`
	// Failovers counts how often it went down.
	Failovers uint64             `json:"failovers,omitempty"`
	Load      *float64           `json:"load,omitempty"`
	Gateways  []GeoGatewayStatus `json:"gateways"`
}

// GeoGatewayStatus is how a gateway is.
type GeoGatewayStatus struct {
	Name  string    `json:"name"`
	State string    `json:"state"`
	Cause string    `json:"cause,omitempty"`
	Since time.Time `json:"since"`
}

// GeoNameStatus is what a name was answered.
type GeoNameStatus struct {
	Name string `json:"name"`
	// Answers are counts by site; under the empty name are those with several
	// sites or none.
	Answers map[string]uint64 `json:"answers"`
}

// GeoPeerStatus is whether a peer can be asked.
type GeoPeerStatus struct {
	URL   string    `json:"url"`
	Heard time.Time `json:"heard,omitzero"`
	Error string    `json:"error,omitempty"`
}

func (g *geoServer) status() *GeoStatus {
	out := &GeoStatus{DNS: g.dns.Stats(), Names: []GeoNameStatus{}, Sites: []GeoSiteStatus{}}
	for _, s := range g.health.View().Sites {
		st := GeoSiteStatus{Name: s.Name, State: s.State.String(), Until: s.Until, Cause: s.Cause, Since: s.Since.Round(0), Held: s.Held, Unstable: s.Unstable, Failovers: s.Failovers}
		if s.Admin != geo.AdminNone {
			st.Admin = s.Admin.String()
		}
		if s.Load >= 0 {
			st.Load = &s.Load
		}
		for _, gw := range s.Gateways {
			st.Gateways = append(st.Gateways, GeoGatewayStatus{Name: gw.Name, State: gw.State.String(), Cause: gw.Cause, Since: gw.Since.Round(0)})
		}
		out.Sites = append(out.Sites, st)
	}
	if set := g.setting.Load(); set != nil {
		for _, n := range set.names {
			out.Names = append(out.Names, GeoNameStatus{Name: n.spec.Name, Answers: n.dns.Answers()})
		}
	}
	g.votes.mu.Lock()
	defer g.votes.mu.Unlock()
	for u, p := range g.votes.peers {
		st := GeoPeerStatus{URL: u, Heard: p.at.Round(0)}
		if p.err != nil {
			st.Error = p.err.Error()
		}
		out.Peers = append(out.Peers, st)
	}
	slices.SortFunc(out.Peers, func(a, b GeoPeerStatus) int { return strings.Compare(a.URL, b.URL) })
	return out
}

// explain says which site a client gets for a name.
func (g *geoServer) explain(name string, c geo.Client) (geo.Explanation, error) {
	var known []string
	if set := g.setting.Load(); set != nil {
		for _, n := range set.names {
			if strings.EqualFold(strings.TrimSuffix(n.spec.Name, "."), strings.TrimSuffix(name, ".")) {
				return n.plan.Select(g.health.View(), n.spec.Name).Explain(c, time.Now()), nil
			}
			known = append(known, n.spec.Name)
		}
	}
	return geo.Explanation{}, fmt.Errorf("no name %q depends on who asks; there are %s: %w", name, strings.Join(known, ", "), plugins.ErrNotFound)
}

// geoBody is the body of POST /v1/geo/ACTION.
type geoBody struct {
	Site string `json:"site"`
	// State is up or down, for force.
	State string `json:"state,omitempty"`
	// For is how long it lasts; 0 is until it is released.
	For plugins.Duration `json:"for,omitempty"`
}

// routes adds the API of the DNS server.
func (g *geoServer) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/geo", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, g.status()) })
	mux.HandleFunc("GET /v1/geo/votes", func(w http.ResponseWriter, _ *http.Request) {
		out := geoVotes{Votes: g.votes.list(), Clients: make(map[string]int)}
		if set := g.setting.Load(); set != nil && g.load != nil {
			for i := range set.spec.Sites {
				s := &set.spec.Sites[i]
				if n, ok := g.load(cmp.Or(s.LoadOf, s.Name)); ok {
					out.Clients[s.Name] = n
				}
			}
		}
		reply(w, http.StatusOK, out)
	})
	mux.HandleFunc("GET /v1/geo/explain", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		client, err := netip.ParseAddr(q.Get("client"))
		if err != nil {
			reply(w, http.StatusBadRequest, problem{Error: fmt.Sprintf("client: %q is no address", q.Get("client"))})
			return
		}
		e, err := g.explain(q.Get("name"), geo.Client{Addr: client, Resolver: client})
		if err != nil {
			fail(w, err)
			return
		}
		reply(w, http.StatusOK, geoExplained{e, e.String()})
	})
	for action, do := range map[string]func(b *geoBody, until time.Time) error{
		"drain":    func(b *geoBody, until time.Time) error { return g.health.Drain(b.Site, until) },
		"release":  func(b *geoBody, _ time.Time) error { return g.health.Release(b.Site) },
		"failback": func(b *geoBody, _ time.Time) error { return g.health.FailbackNow(b.Site) },
		"force": func(b *geoBody, until time.Time) error {
			switch b.State {
			case "up":
				return g.health.Force(b.Site, geo.Up, until)
			case "down":
				return g.health.Force(b.Site, geo.Down, until)
			}
			return fmt.Errorf("state: %q is neither up nor down", b.State)
		},
	} {
		mux.HandleFunc("POST /v1/geo/"+action, func(w http.ResponseWriter, r *http.Request) {
			var b geoBody
			if !read(w, r, &b) {
				return
			}
			var until time.Time
			if b.For != 0 {
				until = time.Now().Add(b.For.D())
			}
			if err := do(&b, until); err != nil {
				fail(w, err)
				return
			}
			g.log.Info("an administrator: "+action, "site", b.Site, "state", b.State, "for", b.For)
			g.save()
			reply(w, http.StatusOK, g.status())
		})
	}
}

// geoExplained is an Explanation, and its text.
type geoExplained struct {
	geo.Explanation
	Text string `json:"text"`
}

const geoUsage = "status | drain SITE | force SITE up|down | release SITE | failback SITE | key ZONE"

var geoCommand = command{
	name: "geo", usage: geoUsage,
	short: "see and steer the sites that DNS chooses from", run: runGeo,
}

func runGeo(ctx context.Context, env *environment, args []string) error {
	if len(args) == 0 {
		return &usageError{"geo needs one of " + geoUsage}
	}
	action, args := args[0], args[1:]
	if action == "key" {
		return runGeoKey(env, args)
	}
	fs := flag.NewFlagSet("geo "+action, flag.ContinueOnError)
	r := env.flags(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	duration := fs.Duration("for", 0, "how `long` drain and force last; 0 means until release")
	words := map[string]int{"status": 0, "drain": 1, "force": 2, "release": 1, "failback": 1}
	n, ok := words[action]
	if !ok {
		return &usageError{fmt.Sprintf("geo: there is no %q; there are %s", action, geoUsage)}
	}
	args, err := parse(env, fs, args, n)
	if err != nil {
		return err
	}
	out := new(GeoStatus)
	if action == "status" {
		err = r.call(ctx, http.MethodGet, "/v1/geo", nil, out)
	} else {
		b := geoBody{Site: args[0], For: plugins.Duration(*duration)}
		if n == 2 {
			b.State = args[1]
		}
		err = r.call(ctx, http.MethodPost, "/v1/geo/"+action, b, out)
	}
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(env.stdout, out)
	}
	printGeo(env.stdout, out)
	return nil
}

// printGeo prints the status of sites and names.
func printGeo(w io.Writer, g *GeoStatus) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SITE\tSTATE\tFOR\tADMIN\tLOAD\tGATEWAYS\tFAILOVERS\tCAUSE")
	for _, s := range g.Sites {
		up := 0
		for _, gw := range s.Gateways {
			if gw.State == geo.Up.String() {
				up++
			}
		}
		admin, load := "-", "-"
		if s.Admin != "" {
			admin = s.Admin
			if !s.Until.IsZero() {
				admin += " until " + s.Until.Local().Format(time.DateTime)
			}
		}
		if s.Load != nil {
			load = fmt.Sprintf("%.0f%%", 100**s.Load)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d/%d up\t%d\t%s\n", s.Name, s.State, ago(s.Since), admin, load, up, len(s.Gateways), s.Failovers, s.Cause)
	}
	fmt.Fprintln(t)
	fmt.Fprintln(t, "NAME\tANSWERS")
	for _, n := range g.Names {
		var list []string
		for site, count := range n.Answers {
			if count > 0 {
				if site == "" {
					site = "several or none"
				}
				list = append(list, fmt.Sprintf("%s %d", site, count))
			}
		}
		slices.Sort(list)
		fmt.Fprintf(t, "%s\t%s\n", n.Name, strings.Join(list, ", "))
	}
	_ = t.Flush()
	if len(g.DNS.Countries) > 0 {
		fmt.Fprintf(w, "\nanswers by country: %s\n", most(g.DNS.Countries, 12))
	}
	for _, p := range g.Peers {
		if p.Error != "" {
			fmt.Fprintf(w, "peer %s: %s\n", p.URL, p.Error)
		}
	}
}

// runExplainDNS says which site a client gets.
func runExplainDNS(ctx context.Context, env *environment, r *remote, name, client string, asJSON bool) error {
	var out json.RawMessage
	if err := r.call(ctx, http.MethodGet, "/v1/geo/explain?name="+url.QueryEscape(name)+"&client="+url.QueryEscape(client), nil, &out); err != nil {
		return err
	}
	if asJSON {
		return printJSON(env.stdout, out)
	}
	var e struct{ Text string }
	if err := json.Unmarshal(out, &e); err != nil {
		return err
	}
	fmt.Fprint(env.stdout, e.Text)
	return nil
}

// most tells the largest of some counts, in order.
func most(counts map[string]uint64, n int) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	var list []string
	var rest uint64
	for i, name := range names {
		if i >= n {
			rest += counts[name]
			continue
		}
		list = append(list, fmt.Sprintf("%s %d", cmp.Or(name, "unknown"), counts[name]))
	}
	if rest > 0 {
		list = append(list, fmt.Sprintf("others %d", rest))
	}
	return strings.Join(list, ", ")
}
