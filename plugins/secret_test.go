package plugins

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestMisplacedSecret: a secret that is written where the name of a file or a variable
// belongs isn't repeated; the path of a file that isn't there is.
func TestMisplacedSecret(t *testing.T) {
	const secret = "hunter2-correct-horse"
	for _, s := range []Secret{{File: secret}, {File: strings.Repeat(secret, 50)}, {Env: secret}} {
		if _, err := s.Read(); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v", err)
		}
	}
	path := filepath.Join(t.TempDir(), "radius.secret")
	if _, err := (Secret{File: path}).Read(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
}
