package plugins

import (
	"fmt"
	"slices"
	"strings"
)

// geoSite is what the name of a site of Geo begins with where a backend is named. A
// backend's own name has no colon.
const geoSite = "geo:"

// GeoRef returns what names a site of Geo where a drain names a backend: geo:berlin. A
// balancer that answers for the names of Geo then sends no new clients there.
func GeoRef(site string) BackendRef { return BackendRef{Backend: geoSite + site} }

// GeoSite returns the site of Geo that r names, and false if r names a backend.
func (r BackendRef) GeoSite() (string, bool) {
	name, ok := strings.CutPrefix(r.Backend, geoSite)
	return name, ok && r.Pool == ""
}

// Refs returns what r means of d, for the site of that name: its backends, each with its
// pool, or a site of Geo; none if d is nil.
func (d *Deployment) Refs(site string, r BackendRef) []BackendRef {
	name, ok := r.GeoSite()
	if !ok {
		return d.Site(site).Refs(r)
	}
	if d == nil || d.Geo == nil || !slices.ContainsFunc(d.Geo.Sites, func(s GeoSite) bool { return s.Name == name }) {
		return nil
	}
	return []BackendRef{r}
}

// Redrain is [Site.Redrain] for the site of that name, and for the sites of Geo.
func (d *Deployment) Redrain(site string, list []DrainRequest, r BackendRef, req *DrainRequest) (refs []BackendRef, after []DrainRequest, err error) {
	return redrain(d.Refs(site, r), list, r, req)
}

// redrain returns what list is once a drain of refs, which r means, has begun, or has
// ended if req is nil.
func redrain(refs []BackendRef, list []DrainRequest, r BackendRef, req *DrainRequest) ([]BackendRef, []DrainRequest, error) {
	if len(refs) == 0 {
		return nil, nil, fmt.Errorf("%v: %w", r, ErrNotFound)
	}
	after := slices.DeleteFunc(slices.Clone(list), func(x DrainRequest) bool { return slices.Contains(refs, x.BackendRef) })
	if req == nil && len(after) == len(list) {
		return nil, nil, fmt.Errorf("%v: %w", r, ErrNotDrained)
	}
	for _, x := range refs {
		if req != nil {
			after = append(after, DrainRequest{BackendRef: x, Deadline: req.Deadline})
		}
	}
	return refs, after, nil
}

// geoOnly is what the site is called of a Deployment that has only Geo.
const geoOnly = "geo"

// Served returns the site of that name as a driver of another balancer serves it. If d
// has no sites but Geo, it is one with nothing in it, whose name is that, or geo.
func (d *Deployment) Served(name string) *Site {
	if d != nil && d.Geo != nil && len(d.Sites) == 0 {
		if name == "" {
			name = geoOnly
		}
		return &Site{Name: name}
	}
	return d.Site(name)
}
