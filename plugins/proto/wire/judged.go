package wire

import (
	"context"
	"fmt"
	"sync"

	"github.com/aovlb/aovlb/plugins"
)

// featureJudged says in Hello that the host adds to the plugin's diagnostics what
// the model and the plugin's Capabilities say, so that a plugin in another
// language needs neither.
const featureJudged = "judged-by-host"

// judged is a driver whose deployments are judged at this end.
type judged struct {
	plugins.Driver

	mu   sync.Mutex
	site string
}

// Configure remembers which site is meant.
func (j *judged) Configure(ctx context.Context, c plugins.Config) error {
	err := j.Driver.Configure(ctx, c)
	if err == nil {
		j.mu.Lock()
		j.site = c.Site
		j.mu.Unlock()
	}
	return err
}

// judge returns what needs no plugin.
func (j *judged) judge(ctx context.Context, d *plugins.Deployment) ([]plugins.Diagnostic, error) {
	if d == nil {
		return nil, nil
	}
	j.mu.Lock()
	site := j.site
	j.mu.Unlock()
	list := plugins.Errors(d.Validate())
	if d.Site(site) == nil {
		list = append(list, plugins.Diagnostic{
			Severity: plugins.SeverityError, Path: "sites", Summary: fmt.Sprintf("there is no site %q, which the driver is to serve", site),
		})
	}
	c, err := j.Capabilities(ctx)
	if err != nil {
		return nil, err
	}
	return append(list, plugins.Judge(d, site, c)...), nil
}

// Validate has the plugin's own diagnostics last. A plugin isn't asked about what
// is wrong already.
func (j *judged) Validate(ctx context.Context, d *plugins.Deployment) ([]plugins.Diagnostic, error) {
	list, err := j.judge(ctx, d)
	if err != nil || plugins.HasError(list) || d == nil {
		return list, err
	}
	more, err := j.Driver.Validate(ctx, d)
	return append(list, more...), err
}

// Plan asks the plugin only for what it can do.
func (j *judged) Plan(ctx context.Context, d *plugins.Deployment) (*plugins.Plan, error) {
	list, err := j.Validate(ctx, d)
	if err != nil {
		return nil, err
	}
	if plugins.HasError(list) {
		return &plugins.Plan{Deployment: d.Clone(), Diagnostics: list}, nil
	}
	p, err := j.Driver.Plan(ctx, d)
	if err == nil {
		p.Diagnostics = list
	}
	return p, err
}

// Apply refuses what can't be done.
func (j *judged) Apply(ctx context.Context, p *plugins.Plan, progress func(plugins.Progress)) error {
	list, err := j.Validate(ctx, p.Deployment)
	if err != nil {
		return err
	}
	if plugins.HasError(list) {
		return fmt.Errorf("%w: see what its plan says", plugins.ErrInvalid)
	}
	return j.Driver.Apply(ctx, p, progress)
}
