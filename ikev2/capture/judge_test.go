package capture_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/ikev2/capture"
	"github.com/google/go-cmp/cmp"
)

// read returns what is made of a capture file.
func read(t testing.TB, b []byte) *ikev2.Report {
	t.Helper()
	var tr ikev2.Tracker
	if _, err := capture.Read(bytes.NewReader(b), &tr); err != nil {
		t.Fatal(err)
	}
	return tr.Report()
}

// judge holds what is found in a capture against what is to be found.
func judge(t *testing.T, path string, v view) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := read(t, b)
	var serious, info []string
	for _, f := range r.Findings {
		if f.Severity == ikev2.SeverityInfo {
			info = append(info, string(f.ID))
		} else {
			serious = append(serious, string(f.ID))
		}
	}
	if diff := cmp.Diff(v.want, serious); diff != "" {
		t.Errorf("%s: findings (-want +got):\n%s", filepath.Base(path), diff)
	}
	for _, id := range v.info {
		if !slices.Contains(info, id) {
			t.Errorf("%s: %s isn't among the findings %v", filepath.Base(path), id, info)
		}
	}
	if t.Failed() {
		for _, c := range r.Conversations {
			t.Logf("%s %v %v: %v %s, at %s and %s", c.SPI, c.Client, c.Gateway, c.Outcome, c.Cause, c.InitAt, c.AuthAt)
			for _, s := range c.Steps {
				t.Logf("  %4d %v %-8s %s", s.Packet, s.At, s.From, s.Text)
			}
		}
		for _, f := range r.Findings {
			t.Logf("%v %s: %s\n%s", f.Severity, f.ID, f.Title, f.What)
		}
	}
}

// TestCaptures judges every capture of testdata.
func TestCaptures(t *testing.T) {
	for _, s := range scenarios {
		for _, v := range s.views {
			t.Run(s.name+v.from, func(t *testing.T) {
				judge(t, filepath.Join("..", "testdata", "captures", v.file(s.name)), v)
			})
		}
	}
}
