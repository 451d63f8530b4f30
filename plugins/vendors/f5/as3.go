package f5

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/rest"
)

const declarePath = "/mgmt/shared/appsvcs/declare/"

// schemaVersion is the version of AS3 that declarations are written for. It is
// older than those that are used, so that they take it.
const schemaVersion = "3.50.0"

// result is what AS3 says became of a tenant.
type result struct {
	Code     int    `json:"code"`
	Message  string `json:"message"`
	Response string `json:"response"`
	Tenant   string `json:"tenant"`
}

func (r result) said() string { return strings.TrimSpace(r.Message + " " + r.Response) }

// task is a declaration that AS3 works on.
type task struct {
	ID      string   `json:"id"`
	Results []result `json:"results"`
}

// stored is what AS3 has of a tenant.
type stored struct {
	tenant map[string]any // nil if there is none
	key    string         // its optimistic lock
}

// fetch reads what AS3 has of a tenant.
func (c *client) fetch(ctx context.Context, tenant string) (*stored, error) {
	var doc map[string]any
	status, err := c.get(ctx, declarePath+tenant, url.Values{"showHash": {"true"}}, &doc)
	switch {
	case statusOf(err) == http.StatusNotFound && strings.Contains(err.Error(), "not registered"):
		return nil, fmt.Errorf("AS3 isn't installed on this BIG-IP: %w", err)
	case statusOf(err) == http.StatusNotFound:
		return new(stored), nil
	case err != nil:
		return nil, err
	case status == http.StatusNoContent:
		return new(stored), nil
	}
	t, ok := doc[tenant].(map[string]any)
	if !ok {
		return new(stored), nil
	}
	key, _ := t["optimisticLockKey"].(string)
	return &stored{tenant: t, key: key}, nil
}

// declare has AS3 make a tenant what it is to be, or only say whether it would. With it
// goes the tenant that others have a part in, if we have one. AS3 makes what is new
// there first, and removes what is old there last.
func (s *target) declare(ctx context.Context, w *wanted, f *found, dry bool, waits func(string)) error {
	tenants := map[string]map[string]any{w.name: locked(w.tenant, f.key, dry)}
	if t := w.withShared(f, s.config.Owner); t != nil {
		tenants[common] = locked(t, f.common.key, dry)
	}
	return hide(s.client.post(ctx, tenants, dry, waits), w.hide...)
}

// locked returns a tenant that AS3 takes only if what it has is what was read.
func locked(tenant map[string]any, key string, dry bool) map[string]any {
	tenant = maps.Clone(tenant)
	if key != "" && !dry {
		tenant["optimisticLockKey"] = key
	}
	return tenant
}

func (c *client) post(ctx context.Context, tenants map[string]map[string]any, dry bool, waits func(string)) error {
	query := url.Values{"async": {"true"}}
	if dry {
		query.Set("controls.dryRun", "true")
	}
	var t task
	status, err := c.do(ctx, call{method: http.MethodPost, path: declarePath + strings.Join(slices.Sorted(maps.Keys(tenants)), ","), query: query, body: request(tenants), patient: true}, &t)
	if err != nil {
		return lockError(err)
	}
	if status == http.StatusAccepted {
		if t, err = c.await(ctx, t.ID, waits); err != nil {
			return err
		}
	}
	if len(t.Results) == 0 {
		return errors.New("AS3 doesn't say what became of the declaration")
	}
	var errs []error
	for _, r := range t.Results {
		if r.Code < 200 || r.Code > 299 {
			errs = append(errs, lockError(&statusError{r.Code, "tenant " + r.Tenant, rest.Hide(r.said())}))
		}
	}
	return errors.Join(errs...)
}

// request is what is posted.
func request(tenants map[string]map[string]any) map[string]any {
	adc := map[string]any{"class": "ADC", "schemaVersion": schemaVersion, "id": "aovlb", "updateMode": "selective"}
	for name, t := range tenants {
		adc[name] = t
		if name != common {
			adc["id"] = name
		}
	}
	return map[string]any{"class": "AS3", "action": "deploy", "persist": true, "declaration": adc}
}

// lockError returns ErrStale if AS3 says that the tenant isn't what it was.
func lockError(err error) error {
	if strings.Contains(strings.ToLower(err.Error()), "optimistic") {
		return plugins.ErrStale
	}
	return err
}

// await asks for a task until it has ended.
func (c *client) await(ctx context.Context, id string, waits func(string)) (task, error) {
	if id == "" || strings.ContainsAny(id, "/?#%") {
		return task{}, errors.New("AS3 takes the declaration and doesn't name its task")
	}
	limit := c.settings.TaskTimeout.D()
	began, wait := time.Now(), c.pause/4
	for {
		if err := rest.Sleep(ctx, wait); err != nil {
			return task{}, fmt.Errorf("AS3 goes on with task %s by itself: %w", id, err)
		}
		var t task
		if _, err := c.get(ctx, "/mgmt/shared/appsvcs/task/"+id, nil, &t); err != nil {
			return t, fmt.Errorf("AS3's task %s may go on: %w", id, err)
		}
		if len(t.Results) > 0 && t.Results[0].Code != 0 {
			return t, nil
		}
		spent := time.Since(began)
		if spent > limit {
			return t, fmt.Errorf("AS3 has worked on task %s for more than %v, and may go on", id, c.settings.TaskTimeout)
		}
		if waits != nil {
			waits(fmt.Sprintf("AS3 works on it for %v", spent.Round(time.Second)))
		}
		wait = min(wait*2, 4*c.pause)
	}
}
