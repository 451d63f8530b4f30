package builtin

import (
	"testing"

	"github.com/aovlb/aovlb/plugins"
)

// Plan says what a change of the fast path costs: nothing, if it goes on.
func TestFastChange(t *testing.T) {
	site := func(mode plugins.FastPath, o *plugins.FastPathOptions) *plugins.Site {
		return &plugins.Site{Name: "hq", FastPath: mode, FastPathOptions: o}
	}
	auto, require := plugins.FastPathAuto, plugins.FastPathRequire
	for name, c := range map[string]struct {
		old, now *plugins.Site
		changes  bool
		effect   string
	}{
		"nothing":        {site(auto, nil), site(auto, nil), false, ""},
		"none":           {site(plugins.FastPathOff, nil), site(plugins.FastPathOff, &plugins.FastPathOptions{MaxFlows: 5}), false, ""},
		"the first":      {nil, site(auto, nil), true, effectFast},
		"off":            {site(auto, nil), site(plugins.FastPathOff, nil), true, effectFast},
		"mode":           {site(auto, nil), site(require, nil), true, ""},
		"first messages": {site(auto, nil), site(auto, &plugins.FastPathOptions{FirstMessages: 5}), true, ""},
		"flows":          {site(auto, nil), site(auto, &plugins.FastPathOptions{MaxFlows: 5}), true, effectFast},
		"both": {
			site(auto, &plugins.FastPathOptions{MaxFlows: 5}), site(auto, &plugins.FastPathOptions{MaxFlows: 6, FirstMessages: 7}), true, effectFast,
		},
	} {
		got := fastChange(c.old, c.now)
		if len(got) > 0 != c.changes || c.changes && got[0].Effect != c.effect {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
