package main

import (
	"crypto/sha256"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// contents tells whether files have other contents than before, by their names.
type contents map[string][sha256.Size]byte

// read reads a file and keeps what tells its contents.
func (c contents) read(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if err == nil {
		c.note(name, b)
	}
	return b, err
}

// note keeps what tells the contents of a file.
func (c contents) note(name string, b []byte) { c[name] = sha256.Sum256(b) }

// changes tells what b changes of what is served: in the file, and in the files
// that it names. At the start there is nothing to compare with.
func (g *geoServer) changes(b *geoBuilt) (list []plugins.Change) {
	g.mu.Lock()
	was, old := g.spec, g.contents
	serials := g.serials
	g.mu.Unlock()
	if was == nil {
		return nil
	}
	now := b.spec
	add := func(kind string, before, after map[string]any) {
		list = append(list, compare(kind, before, after)...)
	}
	add("zone", byName(was.Zones, zoneName), byName(now.Zones, zoneName))
	add("geo site", byName(was.Sites, func(s *plugins.GeoSite) string { return s.Name }), byName(now.Sites, func(s *plugins.GeoSite) string { return s.Name }))
	add("name", byName(was.Names, func(n *plugins.GeoName) string { return n.Name }), byName(now.Names, func(n *plugins.GeoName) string { return n.Name }))
	add("network", byName(was.Networks, networkName), byName(now.Networks, networkName))
	add("horizon", byName(was.Horizons, func(h *plugins.GeoHorizon) string { return h.Name }), byName(now.Horizons, func(h *plugins.GeoHorizon) string { return h.Name }))
	add("geo", map[string]any{"settings": rest(was)}, map[string]any{"settings": rest(now)})

	changed := func(file string) bool {
		before, known := old[file]
		return known && before != b.contents[file]
	}
	for i := range now.Zones {
		z := &now.Zones[i]
		if changed(z.File) {
			c := plugins.Change{Action: plugins.ActionChange, Kind: "zone file", Name: z.File}
			if before, after := serials[zoneName(z)], b.serials[zoneName(z)]; before == after {
				c.Effect = "the serial is still " + strconv.Itoa(int(after))
			} else {
				c.Fields = []plugins.FieldChange{{Name: "serial", Before: strconv.Itoa(int(before)), After: strconv.Itoa(int(after))}}
			}
			list = append(list, c)
		}
		for _, k := range z.Keys {
			if changed(k.File+".key") || changed(k.File+".private") {
				list = append(list, plugins.Change{Action: plugins.ActionChange, Kind: "key", Name: k.File})
			}
		}
	}
	for _, f := range now.NetworkFiles {
		if changed(f) {
			list = append(list, plugins.Change{Action: plugins.ActionChange, Kind: "network file", Name: f})
		}
	}
	if f := now.CookieSecretFile; changed(f) {
		list = append(list, plugins.Change{Action: plugins.ActionChange, Kind: "secret of cookies", Name: f, Effect: "cookies made with the one before are good for another hour"})
	}
	for _, f := range b.reread {
		list = append(list, plugins.Change{Action: plugins.ActionChange, Kind: "database", Name: f})
	}
	return list
}

func zoneName(z *plugins.GeoZone) string { return strings.ToLower(strings.TrimSuffix(z.Origin, ".")) }

func networkName(n *plugins.GeoNetwork) string { return n.Prefix.String() }

func byName[T any](list []T, name func(*T) string) map[string]any {
	m := make(map[string]any, len(list))
	for i := range list {
		m[name(&list[i])] = &list[i]
	}
	return m
}

// rest is what is left of a section without its lists of objects.
func rest(g *plugins.Geo) *plugins.Geo {
	c := *g
	c.Zones, c.Sites, c.Names, c.Networks, c.Horizons = nil, nil, nil, nil, nil
	return &c
}

// compare tells what differs between two sets of objects of one kind, by name.
func compare(kind string, before, after map[string]any) (list []plugins.Change) {
	names := maps.Clone(before)
	maps.Copy(names, after)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		c := plugins.Change{Action: plugins.ActionChange, Kind: kind, Name: name}
		old, was := before[name]
		now, is := after[name]
		switch {
		case !was:
			c.Action = plugins.ActionAdd
		case !is:
			c.Action = plugins.ActionRemove
		default:
			if c.Fields = differences(old, now); c.Fields == nil {
				continue
			}
		}
		list = append(list, c)
	}
	return list
}

// differences returns the fields of two objects that differ, as they are in a
// file.
func differences(a, b any) (list []plugins.FieldChange) {
	x, y := fields(a), fields(b)
	names := maps.Clone(x)
	maps.Copy(names, y)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if before, after := text(x[name]), text(y[name]); before != after {
			list = append(list, plugins.FieldChange{Name: name, Before: before, After: after})
		}
	}
	return list
}

// text is a value without the quotation marks of one word.
func text(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	if string(v) == "null" {
		return ""
	}
	return string(v)
}

func fields(v any) map[string]json.RawMessage {
	m := make(map[string]json.RawMessage)
	if b, err := json.Marshal(v); err == nil {
		_ = json.Unmarshal(b, &m) // what is an object is one again
	}
	return m
}
