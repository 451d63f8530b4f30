package kemp

import (
	"bytes"
	"cmp"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// A LoadMaster knows real servers by their addresses, and has no comments. What the
// driver must know besides, it keeps there in content rules which no virtual service
// uses: the names of the deployment, and which backends are being drained. The text
// is packed and parted among rules, which are named
//
//	PREFIXmemory_GENERATION_PART_PARTS_SUM
//
// A new text gets rules of a new generation before those of the old one go, so that
// there is a whole one at any moment.

// memory is what is kept.
type memory struct {
	// Revision is that of the deployment.
	Revision string `json:"revision"`
	// Site has the names, addresses and states of the site.
	Site *plugins.Site `json:"site,omitempty"`
	// Drained are the backends that Drain was called for.
	Drained []drain `json:"drained,omitempty"`
	// Geo has the names, and where they lead.
	Geo *plugins.Geo `json:"geo,omitempty"`
	// Names are those that are ours on the LoadMaster, or are about to be.
	Names []string `json:"names,omitempty"`
}

// drain is a drain under way.
type drain struct {
	Pool     string    `json:"pool"`
	Backend  string    `json:"backend"`
	Deadline time.Time `json:"deadline,omitzero"`
	// Cut says that the backend's clients were cut off.
	Cut bool `json:"cut,omitempty"`
}

const (
	maxParts    = 200     // rules of a generation
	partSize    = 180     // characters of a rule
	maxUnpacked = 4 << 20 // bytes
)

// deployment returns what is kept, as a deployment.
func (m *memory) deployment() *plugins.Deployment {
	if m.Site == nil {
		return nil
	}
	d := &plugins.Deployment{Geo: m.Geo}
	if len(m.Site.Pools) > 0 {
		d.Sites = []plugins.Site{*m.Site}
	}
	return d
}

// remembered returns what has to be kept of a site: no certificates, and nothing of
// checks but what they are called.
func remembered(s *plugins.Site) *plugins.Site {
	if s == nil {
		return nil
	}
	out := &plugins.Site{Name: s.Name}
	for i := range s.Pools {
		p := s.Pools[i]
		checks := p.Checks
		p.Checks = nil
		for _, c := range checks {
			p.Checks = append(p.Checks, plugins.Check{Name: c.Name, Type: c.Type, Port: c.Port, Advisory: c.Advisory})
		}
		out.Pools = append(out.Pools, p)
	}
	for i := range s.Groups {
		g := s.Groups[i]
		g.RADIUS = nil
		out.Groups = append(out.Groups, g)
	}
	return out
}

// rule is a content rule of the driver's.
type rule struct {
	name, text              string
	generation, part, parts int
	sum                     string
}

func parseRule(prefix, name, text string) (rule, bool) {
	rest, ok := strings.CutPrefix(name, prefix+"memory_")
	if !ok {
		return rule{}, false
	}
	r := rule{name: name, text: text}
	if n, err := fmt.Sscanf(rest, "%d_%d_%d_%s", &r.generation, &r.part, &r.parts, &r.sum); err != nil || n != 4 || r.parts > maxParts {
		r.parts = 0 // it is ours, and says nothing
	}
	return r, true
}

// pack returns the rules for m.
func (m *memory) pack(prefix string, generation int) ([]rule, error) {
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(raw)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	text := base64.RawURLEncoding.EncodeToString(b.Bytes())
	digest := sha256.Sum256([]byte(text))
	sum := hex.EncodeToString(digest[:4])
	parts := slices.Collect(slices.Chunk([]byte(text), partSize))
	if len(parts) > maxParts {
		return nil, fmt.Errorf("the site has too many names to be kept: %d rules, the most is %d", len(parts), maxParts)
	}
	var out []rule
	for i, p := range parts {
		out = append(out, rule{name: fmt.Sprintf("%smemory_%d_%d_%d_%s", prefix, generation, i, len(parts), sum), text: string(p), generation: generation})
	}
	return out, nil
}

// unpack returns the newest memory that is whole, its generation, and whether it is
// the only one.
func unpack(rules []rule) (m memory, generation int, alone bool) {
	byGeneration := map[int][]rule{}
	for _, r := range rules {
		byGeneration[r.generation] = append(byGeneration[r.generation], r)
	}
	for g, list := range byGeneration {
		var x memory
		if (generation == 0 || g > generation) && x.join(list) {
			m, generation = x, g
		}
	}
	return m, generation, generation != 0 && len(byGeneration) == 1
}

// join reads the parts of one generation.
func (m *memory) join(list []rule) bool {
	slices.SortFunc(list, func(a, b rule) int { return cmp.Compare(a.part, b.part) })
	var text strings.Builder
	for i, r := range list {
		if r.part != i || r.parts != len(list) || r.sum != list[0].sum {
			return false
		}
		text.WriteString(r.text)
	}
	digest := sha256.Sum256([]byte(text.String()))
	if hex.EncodeToString(digest[:4]) != list[0].sum {
		return false
	}
	packed, err := base64.RawURLEncoding.DecodeString(text.String())
	if err != nil {
		return false
	}
	raw, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), maxUnpacked))
	return err == nil && json.Unmarshal(raw, m) == nil
}

// memoryObject stands for the memory in a plan.
func memoryObject(revision, state string) plugins.Object {
	return plugins.Object{Kind: kindMemory, Name: "what aovlb keeps", Fields: []plugins.Field{
		{Name: "deployment", Value: revision}, {Name: "state", Value: state},
	}}
}

const memoryWhole = "whole"

// remember keeps m, and removes what was kept before.
func (d *Driver) remember(ctx context.Context, c *client, f *found, m *memory) error {
	generation := 1
	for _, r := range f.rules {
		generation = max(generation, r.generation+1)
	}
	rules, err := m.pack(f.prefix, generation)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if _, err := c.do(ctx, "addrule", params{"type": "0", "name": r.name, "pattern": r.text, "matchtype": "regex"}); err != nil {
			return err
		}
	}
	old := f.rules
	f.rules = rules
	return d.forget(ctx, c, old)
}

// forget removes rules.
func (d *Driver) forget(ctx context.Context, c *client, rules []rule) error {
	for _, r := range rules {
		if _, err := c.do(ctx, "delrule", params{"name": r.name}); err != nil {
			return err
		}
	}
	return nil
}
