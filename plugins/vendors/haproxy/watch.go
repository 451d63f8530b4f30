package haproxy

import (
	"context"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/poll"
)

// Watch tells of backends and listeners that change their state, and of files that are
// loaded. It looks once a second.
func (d *Driver) Watch(ctx context.Context, f func(plugins.Event)) error {
	if _, _, _, err := d.setup(ctx); err != nil {
		return err
	}
	w := poll.Watcher{Name: "haproxy", Every: time.Second, Again: "HAProxy answers again", Look: d.look}
	return w.Run(ctx, f)
}

func (d *Driver) look(ctx context.Context) (poll.View, error) {
	s, err := d.Stats(ctx)
	if err != nil {
		return poll.View{}, err
	}
	c, _, b, err := d.setup(ctx)
	if err != nil {
		return poll.View{}, err
	}
	edition, _, err := b.serving(ctx, c.Owner.Prefix(s.Site))
	if err != nil {
		return poll.View{}, err
	}
	return poll.View{Stats: s, Marks: []poll.Mark{{Value: edition, Severity: plugins.SeverityInfo, Text: "HAProxy has loaded another file"}}}, nil
}
