package mmdb

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/geo"
)

// A File is a database that is read again when its file has changed. The zero
// File with a Name knows no address until Reload is called. It is safe for
// concurrent use.
type File struct {
	// Name is the name of the file.
	Name string

	db atomic.Pointer[Database]

	mu    sync.Mutex // below
	stamp stamp
}

// stamp tells whether a file is another.
type stamp struct {
	size int64
	mod  time.Time
}

var _ geo.Locator = (*File)(nil)

// Reload reads the file if it has changed since it was last read, and reports
// whether it did. If it can't be read or is damaged, the database read before
// stays in use.
func (f *File) Reload() (changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, err := os.Stat(f.Name)
	if err != nil {
		return false, fmt.Errorf("mmdb: %w", err)
	}
	now := stamp{st.Size(), st.ModTime()}
	if now == f.stamp {
		return false, nil
	}
	db, err := Open(f.Name)
	if err != nil {
		return false, err
	}
	f.db.Store(db)
	f.stamp = now
	return true, nil
}

// Database returns the database in use; nil before the first Reload.
func (f *File) Database() *Database { return f.db.Load() }

// Locate returns where an address is.
func (f *File) Locate(addr netip.Addr) (geo.Place, netip.Prefix) {
	if db := f.db.Load(); db != nil {
		return db.Locate(addr)
	}
	return geo.Nowhere{}.Locate(addr)
}
