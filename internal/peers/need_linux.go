package peers

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Need skips the test, with the reason, unless it may run peers: AOVLB_PEERS=1
// is set, the user is root, and the programs named are installed, besides ip and
// nft, which every test of this kind uses.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	if os.Getenv("AOVLB_PEERS") != "1" {
		t.Skip("needs real peers: set AOVLB_PEERS=1 and run as root")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	var missing []string
	for _, p := range append([]string{"ip", "nft", "ping"}, programs...) {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if missing != nil {
		t.Skipf("needs programs that are not installed: %s", strings.Join(missing, ", "))
	}
}
