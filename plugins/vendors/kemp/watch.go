package kemp

import (
	"context"
	"strconv"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/poll"
)

// Watch tells of backends and listeners that change their state, and of what is
// altered, whoever did it. It looks every 2 s, since a LoadMaster doesn't call.
func (d *Driver) Watch(ctx context.Context, f func(plugins.Event)) error {
	if _, _, _, err := d.setup(ctx); err != nil {
		return err
	}
	w := poll.Watcher{Name: "kemp", Every: 2 * time.Second, Again: "the LoadMaster answers again", Look: d.view}
	return w.Run(ctx, f)
}

func (d *Driver) view(ctx context.Context) (poll.View, error) {
	altered := d.altered.Load() // what was altered and put back is told, too, if this driver did it
	s, revision, err := d.look(ctx)
	if err != nil {
		return poll.View{}, err
	}
	mark := poll.Mark{Value: strconv.FormatUint(altered, 10) + " " + revision, Severity: plugins.SeverityInfo, Text: "what the LoadMaster serves was altered"}
	return poll.View{Stats: s, Marks: []poll.Mark{mark}}, nil
}
