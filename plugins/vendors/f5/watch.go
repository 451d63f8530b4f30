package f5

import (
	"cmp"
	"context"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/poll"
)

// Watch tells of backends and listeners that change their state, and of another
// declaration. It looks every 5 seconds, as each look costs a BIG-IP several requests.
func (d *Driver) Watch(ctx context.Context, f func(plugins.Event)) error {
	s, err := d.setup(ctx)
	if err != nil {
		return err
	}
	w := poll.Watcher{Name: "f5", Every: cmp.Or(d.looks, 5*time.Second), Again: "the BIG-IP answers again", Look: s.look}
	return w.Run(ctx, f)
}

func (s *target) look(ctx context.Context) (poll.View, error) {
	stats, f, err := s.stats(ctx)
	if err != nil {
		return poll.View{}, err
	}
	mark := poll.Mark{Value: f.applied + plugins.RevisionOf(f.objects), Severity: plugins.SeverityInfo, Text: "the BIG-IP serves another declaration"}
	return poll.View{Stats: stats, Marks: []poll.Mark{mark}}, nil
}
