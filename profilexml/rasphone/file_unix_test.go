//go:build !windows

package rasphone

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestBackupOfAnother: two programs may choose the same name for a backup, and
// the second must not write over the first's.
func TestBackupOfAnother(t *testing.T) {
	f := tempBook(t, before)
	with, backup := filepath.Join(t.TempDir(), "new"), f.Path+".bak"
	for name, text := range map[string]string{with: after, backup: "another's"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := replaceFile(f.Path, with, backup); !errors.Is(err, errChanged) {
		t.Error(err)
	}
	if b, err := os.ReadFile(backup); string(b) != "another's" || f.text(t) != before {
		t.Errorf("the backup holds %q (%v), the file %q", b, err, f.text(t))
	}
}
