package builtin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/radius"
	"github.com/aovlb/aovlb/radius/accounting"
	"github.com/aovlb/aovlb/radius/spool"
)

// A ledger keeps the accounting of a group on disk until a server takes it. It is
// the radius.Spool of the group's proxies, and lives as long as a group has its
// folder, whatever else is applied: what is in it outlives a process in any case.
type ledger struct {
	d   *Driver
	dir string

	group atomic.Pointer[string]
	store atomic.Pointer[accounting.Store] // nil while it can't be opened

	// Under Driver.applying:
	conf   plugins.RADIUSAccounting
	cancel context.CancelFunc // of the store's Run; nil if it doesn't run
	done   chan struct{}
}

var _ radius.Spool = (*ledger)(nil)

// ledgerDir is where ledgers are kept, below the state of a site.
const ledgerDir = "accounting"

var errNoLedger = errors.New("builtin: the folder of accounting can't be used at this moment")

// ledgerFolder returns where the accounting of g is kept; empty if it isn't.
func (d *Driver) ledgerFolder(site string, g *plugins.Group) (string, error) {
	switch {
	case !g.Proxies() || g.RADIUS.Accounting == nil:
		return "", nil
	case g.RADIUS.Accounting.Directory != "":
		return filepath.Clean(g.RADIUS.Accounting.Directory), nil
	case d.StateDir == "":
		return "", errors.New("no state is kept here, so it must say where accounting is")
	}
	return filepath.Join(d.stateDir(site), ledgerDir, g.Name), nil
}

// stageLedger finds or makes the ledger of a group; nil if it has none.
func (d *Driver) stageLedger(old *running, next *staged, g *plugins.Group, at string) (*ledger, error) {
	dir, err := d.ledgerFolder(next.site.Name, g)
	if err != nil {
		return nil, &plugins.FieldError{Path: at + ".radius.accounting.directory", Err: err}
	}
	if dir == "" {
		return nil, nil
	}
	l := find(old.ledgers, func(l *ledger) bool { return l.dir == dir })
	if l == nil {
		l = &ledger{d: d, dir: dir}
		l.group.Store(&g.Name)
		if err := l.open(*g.RADIUS.Accounting); err != nil {
			return nil, &plugins.FieldError{Path: at + ".radius.accounting.directory", Err: err}
		}
		next.newLedgers = append(next.newLedgers, l)
	}
	next.ledgers = append(next.ledgers, l)
	next.ledgerSpecs = append(next.ledgerSpecs, stagedLedger{l, g.Name, *g.RADIUS.Accounting})
	return l, nil
}

type stagedLedger struct {
	*ledger
	group string
	conf  plugins.RADIUSAccounting
}

// open opens the folder.
func (l *ledger) open(c plugins.RADIUSAccounting) error {
	l.conf = c
	s, err := accounting.Open(accounting.Config{
		Always: c.Store == plugins.StoreAlways,
		Spool: spool.Config{
			Dir: l.dir, MaxBytes: int64(c.MaxMiB) << 20, MaxAge: c.MaxAge.D(),
			Logger: l.d.logger().With("group", *l.group.Load()),
		},
	})
	if err != nil {
		return err
	}
	l.store.Store(s)
	return nil
}

// run has the records written and delivered.
func (l *ledger) run() {
	s := l.store.Load()
	if s == nil || l.cancel != nil {
		return
	}
	if w := s.Stats().Waiting; w > 0 {
		l.d.logger().Info("accounting that no server has taken is on disk", "group", *l.group.Load(), "records", w, "folder", l.dir)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	l.cancel, l.done = cancel, done
	l.d.wg.Go(func() {
		defer close(done)
		_ = s.Run(ctx, l) // it ends with ctx, and for no other reason
	})
}

// close ends the store, if it runs, and closes the folder.
func (l *ledger) close() {
	s := l.store.Swap(nil)
	if l.cancel != nil {
		l.cancel()
		<-l.done
		l.cancel = nil
	}
	if s == nil {
		return
	}
	if err := s.Close(); err != nil {
		l.d.logger().Error("the folder of accounting was not closed well", "folder", l.dir, "error", err)
	}
}

// reopen opens the folder with other bounds.
func (l *ledger) reopen(c plugins.RADIUSAccounting) {
	l.close()
	if err := l.open(c); err != nil {
		name := *l.group.Load()
		l.d.logger().Error("accounting can't be kept", "group", name, "folder", l.dir, "error", err)
		l.d.events.send(plugins.SeverityError, "accounting", name, "it can't be kept: "+err.Error())
	}
}

// commitLedgers has the ledgers be what was staged, before listeners need them.
func (d *Driver) commitLedgers(next *staged) {
	for _, s := range next.ledgerSpecs {
		s.ledger.group.Store(&s.group)
		if s.ledger.conf != s.conf {
			s.ledger.reopen(s.conf)
		}
		s.ledger.run()
	}
}

// dropLedgers closes the ledgers that nobody has any longer.
func (d *Driver) dropLedgers(old *running, next *staged) {
	for _, l := range old.ledgers {
		if slices.Contains(next.ledgers, l) {
			continue
		}
		if s := l.stats(); s != nil && s.Waiting > 0 {
			text := fmt.Sprintf("%d records stay in %s, and nobody delivers them", s.Waiting, l.dir)
			d.logger().Error("accounting is left behind", "group", *l.group.Load(), "records", s.Waiting, "folder", l.dir)
			d.events.send(plugins.SeverityError, "accounting", *l.group.Load(), text)
		}
		l.close()
	}
}

// reviveLedgers opens those again that could not be.
func (d *Driver) reviveLedgers() {
	for _, l := range d.current().ledgers {
		if l.store.Load() == nil {
			l.reopen(l.conf)
			l.run()
		}
	}
}

// Behind and Store are what a proxy asks.
func (l *ledger) Behind(p radius.Packet) bool {
	s := l.store.Load()
	return s != nil && s.Behind(p)
}

// Store keeps a record.
func (l *ledger) Store(r radius.Record) error {
	if s := l.store.Load(); s != nil {
		return s.Store(r)
	}
	return errNoLedger
}

// Forward gives a record to a server, by a proxy of the group: by that to which
// the record came, if it is there still.
func (l *ledger) Forward(ctx context.Context, client string, request radius.Packet, f lb.Flow) ([]byte, error) {
	var by *listener
	for _, o := range l.d.current().listeners {
		if o.rad == nil || o.group.ledger != l || !takesAccounting(&o.spec) {
			continue
		}
		if port := o.spec.Address.Port(); port == f.Service || by == nil {
			by = o
		}
	}
	if by == nil {
		return nil, fmt.Errorf("builtin: no listener takes accounting: %w", radius.ErrNotSent)
	}
	f.Service = by.spec.Address.Port()
	return by.rad.Forward(ctx, client, request, f)
}

// takesAccounting reports whether accounting may come to a listener: anywhere but
// at the ports that are for authentication.
func takesAccounting(l *plugins.Listener) bool {
	p := l.Address.Port()
	return p != 1812 && p != 1645
}

// stats returns what is counted, or nil if the ledger isn't open.
func (l *ledger) stats() *plugins.RADIUSStoreStats {
	if l == nil {
		return nil
	}
	s := l.store.Load()
	if s == nil {
		return nil
	}
	c := s.Stats()
	return &plugins.RADIUSStoreStats{
		Directory: l.dir, Waiting: c.Waiting, Oldest: c.Oldest.Round(0), Bytes: c.Bytes,
		Kept: c.Appended, Delivered: c.Delivered, Repeated: c.Repeated, Full: c.Full + c.Busy,
		SetAside: c.Refused, Damaged: c.Damaged, Failed: c.Failed,
	}
}

// wakeLedgers has what waits for a server of pool p tried at once, since one was
// found alive.
func (d *Driver) wakeLedgers(p *pool) {
	for _, g := range d.current().groups {
		if g.pool != p || g.ledger == nil {
			continue
		}
		if s := g.ledger.store.Load(); s != nil && s.Stats().Waiting > 0 {
			s.Wake()
		}
	}
}

// ledgerOf says what of a group's accounting its listeners depend on.
func ledgerOf(g *plugins.Group) string {
	if !g.Proxies() || g.RADIUS.Accounting == nil {
		return ""
	}
	return cmp.Or(g.RADIUS.Accounting.Directory, "state")
}
