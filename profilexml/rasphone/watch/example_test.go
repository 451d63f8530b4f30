package watch_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/aovlb/aovlb/profilexml/rasphone"
	"github.com/aovlb/aovlb/profilexml/rasphone/watch"
)

func ExampleWatcher() {
	dir, err := os.MkdirTemp("", "pbk")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "rasphone.pbk")
	if err := os.WriteFile(path, []byte("[Always On VPN]\r\nVpnStrategy=6\r\n"), 0o600); err != nil {
		panic(err)
	}

	ctx, stop := context.WithCancel(context.Background())
	w := &watch.Watcher{
		Files: []string{path},
		Edit:  rasphone.Edit{Entries: []string{"Always On VPN"}, Set: []rasphone.Setting{rasphone.IKEv2SSTP.Setting()}},
	}
	w.Trace.Looked = func(_ string, r rasphone.Result, err error) {
		fmt.Println(r.Changes, err)
		stop() // a real one goes on
	}
	fmt.Println(w.Run(ctx))
	// Output:
	// [[Always On VPN] VpnStrategy: 6 (SstpFirst) -> 14 (Ikev2Sstp)] <nil>
	// context canceled
}
