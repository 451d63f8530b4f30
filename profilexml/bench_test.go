package profilexml

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// largeProfile is a profile of about that many bytes: of routes, of which large
// profiles are made.
func largeProfile(t testing.TB, size int) []byte {
	t.Helper()
	text := string(read(t, "golden", "user-peap-tls.xml"))
	at := strings.Index(text, "  <Route>")
	var s strings.Builder
	s.WriteString(text[:at])
	for i := 0; s.Len() < size; i++ {
		fmt.Fprintf(&s, "  <Route>\n    <Address>10.%d.%d.%d</Address>\n    <PrefixSize>32</PrefixSize>\n    <Metric>1</Metric>\n  </Route>\n", i>>16, i>>8&255, i&255)
	}
	s.WriteString(text[at:])
	return []byte(s.String())
}

// BenchmarkCheck reads and checks a profile of 1 MB.
func BenchmarkCheck(b *testing.B) {
	file := largeProfile(b, 1<<20)
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		if _, list := new(Checker).CheckBytes(file); len(list) > 0 {
			b.Fatal(report(list))
		}
	}
}

// TestCheckIsQuick: a profile of 1 MB, which is far more than there is, is read
// and checked within 50 ms.
func TestCheckIsQuick(t *testing.T) {
	if os.Getenv("AOVLB_BENCH") != "1" {
		t.Skip("AOVLB_BENCH isn't 1: timed only on a machine that has nothing else to do")
	}
	r := testing.Benchmark(BenchmarkCheck)
	t.Log(r, r.MemString())
	if per := time.Duration(r.NsPerOp()); per > 50*time.Millisecond {
		t.Errorf("it takes %v", per)
	}
}

func BenchmarkParse(b *testing.B) {
	file := largeProfile(b, 1<<20)
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(file); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFormat(b *testing.B) {
	d, err := Parse(largeProfile(b, 1<<20))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		Format(d, EditorStyle())
	}
}
