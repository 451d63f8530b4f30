package vendors

import (
	"context"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/nginx"
)

// A Renderer writes files for a product, and says what the product can't do.
type Renderer interface {
	plugins.Renderer
	// Validate says what can't be done of a deployment, or only in part.
	Validate(ctx context.Context, d *plugins.Deployment) ([]plugins.Diagnostic, error)
}

// Renderers returns the names of all that files can be written for: the vendors whose
// drivers write files, and products that have no driver.
func Renderers() []string {
	var out []string
	for _, v := range All() {
		if _, ok := v.New().(Renderer); ok {
			out = append(out, v.Name)
		}
	}
	return append(out, "nginx")
}

// FindRenderer returns what writes files for the product of that name. If it is a
// [plugins.Driver] it may be configured.
func FindRenderer(name string) (Renderer, bool) {
	if name == "nginx" {
		return new(nginx.Renderer), true
	}
	v, ok := Find(name)
	if !ok {
		return nil, false
	}
	r, ok := v.New().(Renderer)
	return r, ok
}
