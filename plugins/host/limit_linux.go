package host

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// limit bounds what a process may use. It writes no core dumps, which would have
// its secrets.
func limit(pid int, memory, files uint64) error {
	for _, l := range []struct {
		name     string
		resource int
		most     uint64
	}{
		{"memory", unix.RLIMIT_DATA, memory},
		{"open files", unix.RLIMIT_NOFILE, files},
		{"core dumps", unix.RLIMIT_CORE, 0},
	} {
		var now unix.Rlimit
		if err := unix.Prlimit(pid, l.resource, nil, &now); err != nil {
			return fmt.Errorf("limit of %s: %w", l.name, err)
		}
		most := min(l.most, now.Max)
		if err := unix.Prlimit(pid, l.resource, &unix.Rlimit{Cur: most, Max: most}, nil); err != nil {
			return fmt.Errorf("limit of %s: %w", l.name, err)
		}
	}
	return nil
}
