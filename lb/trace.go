package lb

// A Trace hears of rare events. Any of its functions may be nil. They are
// called synchronously, some with locks held, so they must be quick and must
// not call back into the package.
type Trace struct {
	// Changed is called when a backend has come into another State or has
	// been added (old is nil) or removed (new is nil).
	Changed func(old, new *Member)
	// Bound is called when a client has been recorded or proven further.
	Bound func(c Client, m *Member)
	// Moved is called when a client that was at one backend is now at another.
	Moved func(k Key, from, to *Member)
	// Asked is called when a datagram is sent to every usable backend.
	Asked func(k Key, n int)
	// Refused is called when a client could not be served.
	Refused func(k Key, err error)
}

func (t *Trace) changes(old, now *View) {
	if t == nil || t.Changed == nil {
		return
	}
	for _, m := range now.Members {
		was := old.ByName(m.Name)
		if was == nil || was.State != m.State || was.ID != m.ID {
			t.Changed(was, m)
		}
	}
	for _, m := range old.Members {
		if now.ByName(m.Name) == nil {
			t.Changed(m, nil)
		}
	}
}

func (t *Trace) bound(c Client, m *Member) {
	if t != nil && t.Bound != nil {
		t.Bound(c, m)
	}
}

func (t *Trace) moved(k Key, from, to *Member) {
	if t != nil && t.Moved != nil {
		t.Moved(k, from, to)
	}
}

func (t *Trace) asked(k Key, n int) {
	if t != nil && t.Asked != nil {
		t.Asked(k, n)
	}
}

func (t *Trace) refused(k Key, err error) {
	if t != nil && t.Refused != nil {
		t.Refused(k, err)
	}
}
