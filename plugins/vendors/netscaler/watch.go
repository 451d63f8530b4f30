package netscaler

import (
	"context"
	"strconv"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/poll"
)

// Watch tells of backends and listeners that change their state, of drains and of what
// was applied. It looks every two seconds.
func (d *Driver) Watch(ctx context.Context, f func(plugins.Event)) error {
	if _, _, _, err := d.setup(ctx); err != nil {
		return err
	}
	w := poll.Watcher{Name: "netscaler", Every: 2 * time.Second, Again: "the appliance answers again", Look: d.view}
	return w.Run(ctx, f)
}

func (d *Driver) view(ctx context.Context) (poll.View, error) {
	altered := d.altered.Load() // what was altered and put back is told, too, if this driver did it
	s, f, err := d.look(ctx)
	if err != nil {
		return poll.View{}, where(err)
	}
	number := 0
	if f.memory != nil {
		number = f.memory.number
	}
	return poll.View{Stats: s, Marks: []poll.Mark{
		{Value: strconv.FormatUint(altered, 10) + " " + strconv.Itoa(number), Severity: plugins.SeverityInfo, Text: "a deployment was applied, or a backend drained"},
		{Value: plugins.RevisionOf(objects(f.items)), Severity: plugins.SeverityWarning, Text: "what the driver owns on the appliance was changed"},
	}}, nil
}
