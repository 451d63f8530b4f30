package filebox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
	"github.com/aovlb/aovlb/plugins/plugintest/filebox"
)

func TestConformance(t *testing.T) {
	plugintest.Suite{
		Site: "hq",
		Open: func(t *testing.T) plugintest.Target {
			return filebox.Target(t, func(t *testing.T, c plugins.Config) plugins.Driver {
				d := new(filebox.Driver)
				if err := d.Configure(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				return d
			})
		},
	}.Run(t)
}

func ExampleDriver() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "filebox")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	settings, _ := json.Marshal(filebox.Settings{File: filepath.Join(dir, "box.json")})
	d := new(filebox.Driver)
	if err := d.Configure(ctx, plugins.Config{Site: "hq", Settings: settings}); err != nil {
		fmt.Println(err)
		return
	}
	plan, err := d.Plan(ctx, plugintest.Intents(plugintest.Layout{}, "")[1].Deployment)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(plan.Changes[0])
	fmt.Println(d.Apply(ctx, plan, nil))
	// Output:
	// + pool aovlb_hq_ras: picker round-robin
	// <nil>
}
