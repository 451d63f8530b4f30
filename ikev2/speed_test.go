package ikev2

import (
	"os"
	"testing"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// windowsInit is the largest first message of Windows: 18 proposals with 66
// transforms in 1104 octets.
func windowsInit() []byte {
	p, _ := LookUpPolicy(PolicyWindows11)
	return WindowsInit(1, make([]byte, 48), p.IKE, true)
}

// readInit reads header and SA of an IKE_SA_INIT, down to each transform, and
// returns how many there were.
func readInit(b []byte) (n int) {
	m, err := ParseMessage(b)
	if err != nil {
		return -1
	}
	w := m.Payloads()
	if !w.Next() || w.Payload.Type != PayloadSA {
		return -1
	}
	sa := WalkSA(w.Payload.Body)
	for sa.Next() {
		t := sa.Proposal.Transforms()
		for t.Next() {
			n++
		}
		if t.Err() != nil {
			return -1
		}
	}
	if sa.Err() != nil {
		return -1
	}
	return n
}

// TestReadingDoesNotAllocate: nor does any walker or parser that returns no list.
func TestReadingDoesNotAllocate(t *testing.T) {
	b := windowsInit()
	if n := readInit(b); n != 66 {
		t.Fatalf("%d transforms, want 66", n)
	}
	if n := testing.AllocsPerRun(100, func() { readInit(b) }); n != 0 {
		t.Errorf("reading an IKE_SA_INIT allocates %v times", n)
	}
	var sink int
	for _, p := range everyPayload() {
		n := testing.AllocsPerRun(100, func() {
			switch p.Type {
			case PayloadSA:
				for w := WalkSA(p.Body); w.Next(); {
					for x := w.Proposal.Transforms(); x.Next(); {
						sink++
					}
				}
			case PayloadTSi, PayloadTSr:
				for w := WalkTS(p.Body); w.Next(); {
					sink++
				}
			case PayloadCP:
				for w := WalkConfig(p.Body); w.Next(); {
					sink++
				}
			case PayloadKE:
				_, _ = ParseKE(p.Body)
			case PayloadIDi, PayloadIDr:
				_, _ = ParseID(p.Body)
			case PayloadCert:
				_, _ = ParseCert(p.Body)
			case PayloadCertReq:
				_, _ = ParseCertRequest(p.Body)
			case PayloadAuth:
				_, _ = ParseAuth(p.Body)
			case PayloadNonce:
				_, _ = ParseNonce(p.Body)
			case PayloadNotify:
				_, _ = ParseNotify(p.Body)
			case PayloadDelete:
				_, _ = ParseDelete(p.Body)
			case PayloadEAP:
				_, _ = ParseEAP(p.Body)
			}
		})
		if n != 0 {
			t.Errorf("%v allocates %v times", p.Type, n)
		}
	}
}

func BenchmarkReadInit(b *testing.B) {
	msg := windowsInit()
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		readInit(msg)
	}
}

// TestSpeed asserts the times that the design counts on: an IKE_SA_INIT is read
// within a microsecond, and any datagram judged within 30 ns.
func TestSpeed(t *testing.T) {
	if os.Getenv("AOVLB_BENCH") != "1" {
		t.Skip("timed: set AOVLB_BENCH=1, and leave the machine alone")
	}
	best := func(f func(b *testing.B)) time.Duration {
		d := time.Hour
		for range 5 {
			r := testing.Benchmark(f)
			d = min(d, r.T/time.Duration(r.N))
		}
		return d
	}
	msg := windowsInit()
	d := best(func(b *testing.B) {
		for b.Loop() {
			readInit(msg)
		}
	})
	t.Logf("reading header and SA of an IKE_SA_INIT of Windows 11 takes %v", d)
	if d >= time.Microsecond {
		t.Errorf("it takes %v, over 1 µs", d)
	}
	for name, data := range hotDatagrams() {
		var c lb.Classifier = Classifier{} // as an engine calls it
		d := best(func(b *testing.B) {
			for b.Loop() {
				c.Classify(data, testFlow)
			}
		})
		t.Logf("judging %s takes %v", name, d)
		if d >= 30*time.Nanosecond {
			t.Errorf("judging %s takes %v, over 30 ns", name, d)
		}
	}
}
