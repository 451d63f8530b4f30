package capture_test

import (
	"os"
	"testing"
)

func judge(t *testing.T, path string, v view) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
