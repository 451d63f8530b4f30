package rasphone

import (
	"os"
	"strings"
	"testing"
)

// TestDocs requires that the table of keys in the documentation is this one.
func TestDocs(t *testing.T) {
	const path = "../../docs/rasphone.md"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	start, end := strings.Index(page, "| key |"), strings.Index(page, "\n## For programs")
	if start < 0 || end < start {
		t.Fatalf("%s has no table of keys", path)
	}
	if page[start:end] == KeysMarkdown() {
		return
	}
	if os.Getenv("UPDATE") == "" {
		t.Fatalf("%s has an old table of keys: UPDATE=1 go test -run Docs writes it anew", path)
	}
	if err := os.WriteFile(path, []byte(page[:start]+KeysMarkdown()+page[end:]), 0o644); err != nil {
		t.Fatal(err)
	}
}
