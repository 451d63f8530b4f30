package host_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/aovlb/aovlb/plugins/host"
)

// What isn't pinned doesn't run.
func Example() {
	dir, err := os.MkdirTemp("", "plugins")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "aovlb-plugin-box"), []byte("#!/bin/sh\n"), 0o755); err != nil { //nolint:gosec // it is a program
		fmt.Println(err)
		return
	}
	found, err := host.Find(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	lock, err := host.ReadLock("plugins.lock")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = lock.Plugin(found, "box")
	fmt.Println(err)
	// Output:
	// host: plugin box isn't in the lock file plugins.lock: look at it, then pin it with aovlb plugin lock box
}
