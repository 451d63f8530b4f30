package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors"
)

var renderCommand = command{
	name: "render", usage: "--to PRODUCT [-o DIR] FILE", short: "write what an administrator would otherwise type into another balancer", run: runRender,
}

// products are what render knows by name; vendors.Renderers are those that this
// program can write for.
var products = []string{"f5", "haproxy", "keepalived", "kemp", "netscaler", "nginx"}

func runRender(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("render", flag.ContinueOnError)
	to := fs.String("to", "", "the `product` to write for: "+strings.Join(products, ", "))
	dir := fs.String("o", "", "write into this `folder`; without it, to standard output")
	site := fs.String("site", "", "the `site` to write for, if there are several")
	target := fs.String("target", "", "the `target` of the file whose settings count, if there are several for the product")
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
	}
	renderer, err := rendererFor(*to)
	if err != nil {
		return err
	}
	src, err := readConfig(args[0])
	if err != nil {
		return err
	}
	r := &rendering{Renderer: renderer, product: *to, src: src, site: *site}
	if err := r.configure(ctx, *target); err != nil {
		return err
	}
	files, err := r.files(ctx, env)
	if err != nil {
		return err
	}
	if *dir == "" {
		return printFiles(env, files)
	}
	return writeFiles(env, *dir, files)
}

func rendererFor(product string) (vendors.Renderer, error) {
	can := vendors.Renderers()
	if product == "" {
		return nil, &usageError{"--to says what to write for: " + strings.Join(can, ", ")}
	}
	if r, ok := vendors.FindRenderer(product); ok {
		return r, nil
	}
	if slices.Contains(products, product) {
		return nil, fmt.Errorf("%s isn't available in this version, %s are", product, strings.Join(can, ", "))
	}
	return nil, &usageError{fmt.Sprintf("%q is unknown, it can be %s", product, strings.Join(can, ", "))}
}

// rendering writes files for one site of a file.
type rendering struct {
	vendors.Renderer
	product string
	src     *source
	site    string
}

// configure has the settings of a target count, if there is one for the product.
func (r *rendering) configure(ctx context.Context, name string) error {
	var found []int
	for i, t := range r.src.config.Targets {
		if t.Driver == r.product && (name == "" || t.Name == name) && (r.site == "" || t.Site == "" || t.Site == r.site) {
			found = append(found, i)
		}
	}
	switch {
	case len(found) == 0 && name != "":
		return fmt.Errorf("%s has no target %q for %s and this site", r.src.file, name, r.product)
	case len(found) == 0:
		return r.choose("")
	case len(found) > 1:
		return fmt.Errorf("%s has %d targets for %s: say which one by --target", r.src.file, len(found), r.product)
	}
	t := &r.src.config.Targets[found[0]]
	if err := r.choose(t.Site); err != nil {
		return err
	}
	d, ok := r.Renderer.(plugins.Driver)
	if !ok {
		return nil
	}
	c, err := configOf(t, r.site)
	if err != nil {
		return err
	}
	if err := d.Configure(ctx, c); err != nil {
		return r.src.targetFault(fmt.Sprintf("targets[%d]", found[0]), err)
	}
	return nil
}

// choose says which site is written for.
func (r *rendering) choose(of string) error {
	list := r.src.config.Sites
	if r.site == "" {
		r.site = of
	}
	if r.site == "" {
		r.site = r.src.config.Site
	}
	switch {
	case r.site == "" && len(list) > 1:
		return fmt.Errorf("%s has %d sites: say which one by --site", r.src.file, len(list))
	case r.site == "" && len(list) == 1:
		r.site = list[0].Name
	case len(list) > 0 && r.src.config.Deployment.Site(r.site) == nil, len(list) == 0 && r.site != "":
		return fmt.Errorf("%s has no site %q", r.src.file, r.site)
	}
	return nil
}

// files writes the site alone, and says what can't be done of it.
func (r *rendering) files(ctx context.Context, env *environment) ([]plugins.File, error) {
	dep := r.src.config.Deployment
	at := max(slices.IndexFunc(dep.Sites, func(s plugins.Site) bool { return s.Name == r.site }), 0)
	if len(dep.Sites) > 0 { // or it has only names
		dep.Sites = dep.Sites[at : at+1]
	}
	var c plugins.Capabilities
	if d, ok := r.Renderer.(plugins.Driver); ok {
		var err error
		if c, err = d.Capabilities(ctx); err != nil {
			return nil, err
		}
	}
	elsewhere := geoElsewhere(&dep, c)
	list, err := r.Validate(ctx, &dep)
	if err != nil {
		return nil, err
	}
	f := &Faults{File: r.src.file}
	for _, g := range append(list, elsewhere...) {
		path := g.Path
		if path == "" && g.Severity != plugins.SeverityError {
			continue // it is about this machine, not about the deployment
		}
		if rest, ok := strings.CutPrefix(path, "sites[0]"); ok {
			path = fmt.Sprintf("sites[%d]", at) + rest
		}
		g.Path = ""
		f.List = append(f.List, r.src.fault(path, g.String()))
	}
	for i := range f.List {
		fmt.Fprintln(env.stderr, f.line(i))
	}
	files, err := r.Render(ctx, &dep)
	if errors.Is(err, plugins.ErrInvalid) && plugins.HasError(list) {
		return nil, fmt.Errorf("%s can't serve this", r.product)
	}
	return files, err
}

// printFiles writes files one after the other, with a line between them if there are
// several.
func printFiles(env *environment, files []plugins.File) error {
	for _, f := range files {
		if len(files) > 1 {
			fmt.Fprintf(env.stdout, "# ----- %s: %s\n", f.Name, f.Summary)
		}
		if _, err := env.stdout.Write(f.Content); err != nil {
			return err
		}
	}
	return nil
}

func writeFiles(env *environment, dir string, files []plugins.File) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		if f.Name != filepath.Base(f.Name) || !filepath.IsLocal(f.Name) {
			return fmt.Errorf("%q is not the name of a file", f.Name)
		}
		mode := os.FileMode(0o644)
		if bytes.HasPrefix(f.Content, []byte("#!")) {
			mode = 0o755
		}
		name := filepath.Join(dir, f.Name)
		if err := os.WriteFile(name, f.Content, mode); err != nil {
			return err
		}
		fmt.Fprintf(env.stdout, "%s: %s\n", name, f.Summary)
	}
	return nil
}
