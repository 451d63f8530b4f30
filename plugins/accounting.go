package plugins

import (
	"path/filepath"
	"time"
)

// RADIUSAccounting says what becomes of accounting that no server takes.
type RADIUSAccounting struct {
	// Store says which records are written to disk before they are
	// acknowledged; empty means StoreDown.
	Store RADIUSStore `json:"store,omitempty"`
	// Directory is the folder they are kept in, which must be the group's
	// alone; empty means one in the driver's state.
	Directory string `json:"directory,omitempty"`
	// MaxMiB bounds what is kept; 0 means 1024. At the bound nothing more is
	// acknowledged, so that clients keep it.
	MaxMiB int `json:"max_mib,omitempty"`
	// MaxAge is how long the oldest record may wait before nothing more is
	// acknowledged; 0 means a week.
	MaxAge Duration `json:"max_age,omitempty"`
}

// A RADIUSStore says which accounting records are written to disk.
type RADIUSStore string

const (
	// StoreDown has those written that no server takes in time, and what
	// comes after them in the same session.
	StoreDown RADIUSStore = "when-down"
	// StoreAlways has each one written: clients are answered as fast as the
	// disk syncs, whatever the servers do.
	StoreAlways RADIUSStore = "always"
)

// radiusAccounting checks what a group says of accounting.
func (v *validator) radiusAccounting(at string, a *RADIUSAccounting) {
	if a == nil {
		return
	}
	at += ".accounting"
	oneOf(v, at+".store", a.Store, StoreDown, StoreAlways)
	v.between(at+".max_mib", a.MaxMiB, 1, 1<<20)
	v.span(at+".max_age", a.MaxAge, time.Minute, 365*24*time.Hour)
	if a.Directory == "" {
		return
	}
	if !filepath.IsAbs(a.Directory) {
		v.add(at+".directory", "%s must begin at the root: what a relative path means depends on where the program is started", a.Directory)
	}
}

// storeFolders checks that no two groups of a site keep accounting in one folder.
func (v *validator) storeFolders(at string, s *Site) {
	taken := make(map[string]string)
	for i := range s.Groups {
		r := s.Groups[i].RADIUS
		if r == nil || r.Accounting == nil || r.Accounting.Directory == "" {
			continue
		}
		path, dir := index(at, ".groups", i)+".radius.accounting.directory", filepath.Clean(r.Accounting.Directory)
		if other, dup := taken[dir]; dup {
			v.add(path, "%s is that of %s already", dir, other)
		}
		taken[dir] = path
	}
}
