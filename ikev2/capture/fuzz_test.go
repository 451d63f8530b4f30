package capture_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/ikev2/capture"
)

func seeds(f *testing.F) [][]byte {
	f.Helper()
	paths, err := filepath.Glob("../testdata/captures/*.pcap")
	if err != nil || len(paths) == 0 {
		f.Fatalf("no captures: %v", err)
	}
	var all [][]byte
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// FuzzRead reads damaged files: nothing may panic, and the report must be one.
func FuzzRead(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tr := ikev2.Tracker{MaxConversations: 16, MaxExchanges: 8}
		_, _ = capture.Read(bytes.NewReader(b), &tr) // what came before a fault counts
		r := tr.Report()
		if len(r.Conversations) > 16 {
			t.Errorf("%d conversations", len(r.Conversations))
		}
		for _, c := range r.Conversations {
			if len(c.Steps) > 2*8+64+16 {
				t.Errorf("%d steps", len(c.Steps))
			}
		}
	})
}

// FuzzDecode decodes one damaged packet of any link type, as often as there are
// fragments in it.
func FuzzDecode(f *testing.F) {
	for _, b := range seeds(f) {
		r, err := capture.NewReader(bytes.NewReader(b))
		if err != nil {
			f.Fatal(err)
		}
		for range 6 {
			p, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint16(p.Link), p.Length, bytes.Clone(p.Data))
		}
	}
	f.Fuzz(func(t *testing.T, link uint16, length int, b []byte) {
		var tr ikev2.Tracker
		d := capture.Decoder{Event: func(e *ikev2.Event) {
			if len(e.Data) > len(b) {
				t.Errorf("%d octets of %d", len(e.Data), len(b))
			}
			tr.Observe(e)
		}}
		d.Decode(&capture.Packet{Number: 1, Time: time.Unix(1, 0), Link: capture.LinkType(link), Data: b, Length: max(length, len(b))})
		d.Flush()
		tr.Report()
	})
}
