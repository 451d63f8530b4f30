package keepalived

import (
	"cmp"
	"context"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/poll"
)

// Watch tells of backends that change their state, of files that are written, and of
// keepalived's end. It looks once a second.
func (d *Driver) Watch(ctx context.Context, f func(plugins.Event)) error {
	if _, _, _, err := d.setup(ctx); err != nil {
		return err
	}
	w := poll.Watcher{Name: "keepalived", Every: time.Second, Again: "keepalived runs", Look: d.look}
	return w.Run(ctx, f)
}

func (d *Driver) look(ctx context.Context) (poll.View, error) {
	c, s, b, err := d.setup(ctx)
	if err != nil {
		return poll.View{}, err
	}
	f, err := find(ctx, c, s, b, nil)
	if err != nil {
		return poll.View{}, err
	}
	list, err := stats(ctx, c, s, b, f)
	if err != nil {
		return poll.View{}, err
	}
	revision := plugins.RevisionOf(f.objects)
	v := poll.View{Stats: list, Marks: []poll.Mark{{Value: revision, Severity: plugins.SeverityInfo, Text: "the files have changed, to revision " + revision}}}
	if !f.running {
		v.Down = cmp.Or(f.why, "keepalived has ended")
	}
	return v, nil
}
