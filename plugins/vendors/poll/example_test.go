package poll_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/poll"
)

// A box whose backend goes down.
func ExampleWatcher() {
	ctx, cancel := context.WithCancelCause(context.Background())
	states := []string{"up", "up", "down"}
	w := poll.Watcher{Name: "box", Every: time.Millisecond, Again: "the box answers again", Look: func(context.Context) (poll.View, error) {
		if len(states) == 0 {
			cancel(errors.New("seen enough"))
			return poll.View{}, nil
		}
		b := plugins.BackendStats{Name: "ras1", State: states[0]}
		states = states[1:]
		return poll.View{Stats: &plugins.Stats{Pools: []plugins.PoolStats{{Name: "ras", Backends: []plugins.BackendStats{b}}}}}, nil
	}}
	err := w.Run(ctx, func(e plugins.Event) { fmt.Println(e.Severity, e.Kind, e.Name, e.Text) })
	fmt.Println(err)
	// Output:
	// warning backend ras/ras1 up → down
	// seen enough
}
