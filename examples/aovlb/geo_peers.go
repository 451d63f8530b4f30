package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/plugins"
)

// Several servers share what their checks say: a gateway is down if a quorum of
// those that have a view find it down, so that a server whose own network is
// broken takes no site out of service. Each tells what it has found out itself,
// never what it has heard.

// geoVote is what one server says of one gateway.
type geoVote struct {
	Site    string `json:"site"`
	Gateway string `json:"gateway"`
	State   string `json:"state"`
	Cause   string `json:"cause,omitempty"`
}

// geoVotes is what GET /v1/geo/votes returns.
type geoVotes struct {
	Votes []geoVote `json:"votes"`
	// Clients are those of the sites this server serves itself.
	Clients map[string]int `json:"clients,omitempty"`
}

// votes are what all servers say.
type votes struct {
	mu    sync.Mutex // below
	own   map[[2]string]geoVote
	peers map[string]*peerVotes
}

type peerVotes struct {
	byGateway map[[2]string]geoVote
	at        time.Time
	err       error
}

const (
	peerInterval = 2 * time.Second
	// peerFresh is how old a peer's view may be and count.
	peerFresh = 10 * time.Second
	// maxPeerAnswer bounds what a peer says, in bytes.
	maxPeerAnswer = 4 << 20
)

// vote takes in what the own checks say.
func (g *geoServer) vote(site, gateway string, s geo.State, cause string) {
	v := &g.votes
	key := [2]string{site, gateway}
	now := geoVote{Site: site, Gateway: gateway, State: s.String(), Cause: cause}
	v.mu.Lock()
	if v.own == nil {
		v.own = make(map[[2]string]geoVote)
	}
	changed := v.own[key] != now
	v.own[key] = now
	v.mu.Unlock()
	if changed {
		g.count()
	}
}

func (v *votes) forget(site string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for k := range v.own {
		if k[0] == site {
			delete(v.own, k)
		}
	}
}

// keep forgets what was heard from all but these peers.
func (v *votes) keep(peers []plugins.GeoPeer) {
	v.mu.Lock()
	defer v.mu.Unlock()
	maps.DeleteFunc(v.peers, func(url string, _ *peerVotes) bool {
		return !slices.ContainsFunc(peers, func(p plugins.GeoPeer) bool { return p.URL == url })
	})
}

// list returns the own votes.
func (v *votes) list() []geoVote {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := []geoVote{}
	for _, w := range v.own {
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b geoVote) int {
		return strings.Compare(a.Site+"/"+a.Gateway, b.Site+"/"+b.Gateway)
	})
	return out
}

// count decides about each gateway.
func (g *geoServer) count() {
	quorum := 0
	if set := g.setting.Load(); set != nil {
		quorum = set.spec.Quorum
	}
	v := &g.votes
	v.mu.Lock()
	type result struct {
		geoVote
		state geo.State
	}
	var list []result
	for key, own := range v.own {
		down, voters, causes := 0, 1, []string(nil)
		hear := func(w geoVote, who string) {
			if w.State == geo.Down.String() {
				down++
				causes = append(causes, strings.TrimPrefix(who+w.Cause, ": "))
			}
		}
		hear(own, "")
		for url, p := range v.peers {
			if w, ok := p.byGateway[key]; ok && time.Since(p.at) < peerFresh {
				voters++
				hear(w, url+": ")
			}
		}
		need := quorum
		if need == 0 {
			need = voters/2 + 1
		}
		r := result{own, geo.Up}
		if down >= min(need, voters) {
			r.state, r.Cause = geo.Down, strings.Join(causes, "; ")
		}
		list = append(list, r)
	}
	v.mu.Unlock()
	for _, r := range list {
		// A site that has just gone from the file is no fault.
		if err := g.health.Mark(r.Site, r.Gateway, r.state, r.Cause); err != nil && !errors.Is(err, geo.ErrUnknownSite) {
			g.log.Error("marking a gateway", "error", err)
		}
	}
}

// askPeers asks the peers again and again.
func (g *geoServer) askPeers(ctx context.Context) {
	tick := time.NewTicker(peerInterval)
	defer tick.Stop()
	client := &http.Client{Timeout: peerInterval}
	for {
		if set := g.setting.Load(); set != nil {
			var wg sync.WaitGroup
			for _, p := range set.spec.Peers {
				wg.Go(func() { g.hearPeer(ctx, client, &p) })
			}
			wg.Wait()
			// Also without peers: those that have left the file count no more.
			g.votes.keep(set.spec.Peers)
			g.count()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// hearPeer takes in what a peer says.
func (g *geoServer) hearPeer(ctx context.Context, client *http.Client, p *plugins.GeoPeer) {
	said, err := askPeer(ctx, client, p)
	v := &g.votes
	v.mu.Lock()
	if v.peers == nil {
		v.peers = make(map[string]*peerVotes)
	}
	old := v.peers[p.URL]
	if err != nil {
		if old == nil {
			v.peers[p.URL] = &peerVotes{err: err}
		} else {
			old.err = err
		}
	} else {
		n := &peerVotes{byGateway: make(map[[2]string]geoVote), at: time.Now()}
		for _, w := range said.Votes {
			n.byGateway[[2]string{w.Site, w.Gateway}] = w
		}
		v.peers[p.URL] = n
	}
	v.mu.Unlock()
	if (err != nil) != (old != nil && old.err != nil) && ctx.Err() == nil {
		if err != nil {
			g.log.Warn("a peer can't be asked", "peer", p.URL, "error", err)
		} else {
			g.log.Info("a peer answers", "peer", p.URL)
		}
	}
	if said != nil {
		for site, n := range said.Clients {
			_ = g.health.Report(site, n) // of sites that only the peer has, nothing is to be said
		}
	}
}

func askPeer(ctx context.Context, client *http.Client, p *plugins.GeoPeer) (*geoVotes, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(p.URL, "/")+"/v1/geo/votes", nil)
	if err != nil {
		return nil, err
	}
	if p.TokenFile != "" {
		token, err := plugins.Secret{File: p.TokenFile}.Read()
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+string(token))
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", res.Status)
	}
	out := new(geoVotes)
	return out, json.NewDecoder(io.LimitReader(res.Body, maxPeerAnswer)).Decode(out)
}
