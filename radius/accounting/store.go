package accounting

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/radius"
	"github.com/aovlb/aovlb/radius/spool"
)

// DefaultPatience is how long a Store waits for a server's answer.
const DefaultPatience = 7 * time.Second

// A Config says how a Store works.
type Config struct {
	// Spool says where and how records are kept.
	Spool spool.Config
	// Always has every record stored before it is acknowledged, and not only
	// those that no server takes. Clients are then answered as fast as the
	// disk syncs, whatever the servers do; and a record that is repeated after
	// the balancer was killed is known, even if its client doesn't raise
	// Acct-Delay-Time.
	Always bool
	// Patience is how long to wait for a server's answer to a record before it
	// is tried anew; 0 means DefaultPatience.
	Patience time.Duration
}

// A Forwarder sends a request to a server, and returns the answer: a
// [radius.Proxy]. The error wraps [radius.ErrNotSent] if it sent nothing.
type Forwarder interface {
	Forward(ctx context.Context, client string, request radius.Packet, f lb.Flow) ([]byte, error)
}

// A Store keeps accounting on disk until a server takes it. It is a
// [radius.Spool]. Open makes it, Run works it.
type Store struct {
	c     Config
	spool *spool.Spool
}

var _ radius.Spool = (*Store)(nil)

// Open opens a Store, with all that a former life left in it.
func Open(c Config) (*Store, error) {
	s, err := spool.Open(c.Spool)
	if err != nil {
		return nil, err
	}
	return &Store{c: c, spool: s}, nil
}

// Run syncs and delivers records until ctx is done. It must run while the Proxy
// that uses the Store serves, and is called once.
func (s *Store) Run(ctx context.Context, to Forwarder) error {
	return s.spool.Run(ctx, func(ctx context.Context, d spool.Delivery) error { return s.deliver(ctx, to, d) })
}

// Close closes the files. Run must have returned.
func (s *Store) Close() error { return s.spool.Close() }

// Stats returns what has been counted, and what is kept.
func (s *Store) Stats() spool.Stats { return s.spool.Stats() }

// Wake has the Store try to deliver at once, since a server is back.
func (s *Store) Wake() { s.spool.Wake() }

// Behind reports whether p must be stored although a server could take it: older
// records of its session wait, or it was stored before.
func (s *Store) Behind(p radius.Packet) bool {
	if s.c.Always {
		return true
	}
	if s.spool.Idle() {
		return false
	}
	return s.spool.Holds(names(p))
}

// Store keeps a request, and returns once it is synced.
func (s *Store) Store(r radius.Record) error {
	b, err := encode(&r)
	if err != nil {
		return err
	}
	rec := spool.Record{Data: b, Time: time.Now()}
	rec.Key, rec.ID = names(r.Packet)
	if r.Sent {
		rec.Last = rec.Time
	}
	done := make(chan error, 1)
	s.spool.Append(rec, func(err error) { done <- err })
	return <-done
}

// deliver gives one record to a server.
func (s *Store) deliver(ctx context.Context, to Forwarder, d spool.Delivery) error {
	client, p, f, err := decode(d.Data, delay(d.Time, d.Last, time.Now()))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(s.c.Patience, DefaultPatience))
	defer cancel()
	_, err = to.Forward(ctx, client, p, f)
	if errors.Is(err, radius.ErrNotSent) {
		return fmt.Errorf("%w: %w", spool.ErrNotSent, err)
	}
	return err
}

// Describe says what a stored record is about, for a person who looks at records
// that were set aside: whose it is, which session, which kind.
func Describe(data []byte) (Description, error) {
	client, p, f, err := decode(data, 0)
	if err != nil {
		return Description{}, err
	}
	user, _ := p.Lookup(radius.UserName)
	session, _ := p.Lookup(radius.AcctSessionID)
	d := Description{Client: client, From: f.Client, User: string(user), Session: string(session)}
	if v, ok := p.Lookup(radius.AcctStatusType); ok && len(v) == 4 {
		d.Status = int(v[3])
	}
	return d, nil
}

// A Description is what a stored record is about.
type Description struct {
	// Client is the name of who sent it, From its address.
	Client string
	From   netip.AddrPort
	// User is its User-Name, Session its Acct-Session-Id.
	User, Session string
	// Status is its Acct-Status-Type: 1 for Start, 2 for Stop, 3 for an
	// interim one.
	Status int
}
