package capture_test

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/ikev2/capture"
	"github.com/google/go-cmp/cmp"
)

// watched feeds the IKE messages of a capture to a Watch, as a balancer does, with
// the gateway's address as its name, and returns when the last was.
func watched(t *testing.T, name string, w *ikev2.Watch) (end time.Time) {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "testdata", "captures", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := capture.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	d := capture.Decoder{Event: func(e *ikev2.Event) {
		end = e.Time
		if k, _ := ikev2.Identify(e.Data); e.Kind != ikev2.EventDatagram || k != ikev2.KindIKE {
			return
		}
		e.Packet, e.Gateway = 0, "ras1"
		if e.From.Port() != ikev2.Port && e.From.Port() != ikev2.PortNATT && e.To.Port() != ikev2.Port && e.To.Port() != ikev2.PortNATT {
			t.Errorf("%s: from %v to %v", name, e.From, e.To)
		}
		w.Observe(e)
	}}
	if err := d.Run(r); err != nil {
		t.Fatal(err)
	}
	return end
}

// TestWatchNeverUsed: whether a tunnel that is given up at once was of use, a Watch
// must be told by who sees ESP. Without, and where that isn't known, it says
// nothing against it.
func TestWatchNeverUsed(t *testing.T) {
	says := func(yes, known bool) func(ikev2.SPI) (bool, bool) {
		return func(ikev2.SPI) (bool, bool) { return yes, known }
	}
	finished := ikev2.HandshakeCounts{Gateway: "ras1", Begun: 1, Finished: 1, Failed: map[ikev2.FindingID]uint64{}}
	unused := ikev2.HandshakeCounts{Gateway: "ras1", Begun: 1, Failed: map[ikev2.FindingID]uint64{"never-used": 1}}
	for _, x := range []struct {
		file    string
		carried func(ikev2.SPI) (bool, bool)
		want    ikev2.HandshakeCounts
	}{
		{"never-used.pcap", nil, finished},
		{"never-used.pcap", says(false, false), finished},
		{"never-used.pcap", says(true, true), finished},
		{"never-used.pcap", says(false, true), unused},
		{"eap.pcap", says(true, true), finished},
		{"eap.pcap", says(false, true), unused}, // ended 26 ms after it was made
		{"mobike.pcap", says(false, true), finished},
		{"dpd.pcap", says(false, true), finished},
		{"slow.pcap", says(false, true), ikev2.HandshakeCounts{Gateway: "ras1", Begun: 1, Finished: 1, Slow: 1, Failed: map[ikev2.FindingID]uint64{}}},
	} {
		w := ikev2.Watch{Carried: x.carried}
		end := watched(t, x.file, &w)
		if diff := cmp.Diff([]ikev2.HandshakeCounts{x.want}, w.Handshakes(end.Add(2*time.Minute))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", x.file, diff)
		}
	}
}

// TestWatch: what a balancer counts, without ever seeing ESP, is what the captures
// show.
func TestWatch(t *testing.T) {
	for _, x := range []struct {
		file string
		want ikev2.HandshakeCounts
	}{
		{"eap.pcap", ikev2.HandshakeCounts{Begun: 1, Finished: 1}},
		{"certificate-fragments.pcap", ikev2.HandshakeCounts{Begun: 1, Finished: 1}},
		{"certificate-ip-fragments.pcap", ikev2.HandshakeCounts{Begun: 1, Finished: 1, Unfragmented: 1}},
		{"ipv6.pcap", ikev2.HandshakeCounts{Begun: 1, Finished: 1}},
		{"cookie.pcap", ikev2.HandshakeCounts{Begun: 1, Finished: 1}},
		{"invalid-ke.pcap", ikev2.HandshakeCounts{Begun: 1, Finished: 1}},
		{"rekey-by-client.pcap", ikev2.HandshakeCounts{Begun: 1, Finished: 1}},
		{"rekey-by-gateway.pcap", ikev2.HandshakeCounts{Begun: 1, Finished: 1}},
		{"mobike.pcap", ikev2.HandshakeCounts{Begun: 1, Finished: 1}},
		{"dpd.pcap", ikev2.HandshakeCounts{Begun: 1, Finished: 1}},
		{"two-tunnels.pcap", ikev2.HandshakeCounts{Begun: 2, Finished: 2}},
		{"weak-suite.pcap", ikev2.HandshakeCounts{Begun: 1, Finished: 1, Weak: 1}},
		{"no-proposal.pcap", ikev2.HandshakeCounts{Begun: 1, Failed: map[ikev2.FindingID]uint64{"no-proposal": 1}}},
		{"never-4500-gateway.pcap", ikev2.HandshakeCounts{Begun: 2, Failed: map[ikev2.FindingID]uint64{"never-4500": 2}}},
		{"no-answer.pcap", ikev2.HandshakeCounts{Begun: 2, Failed: map[ikev2.FindingID]uint64{"no-answer": 2}}},
		{"wrong-gateway-client.pcap", ikev2.HandshakeCounts{Begun: 2, Failed: map[ikev2.FindingID]uint64{"auth-unanswered": 2}}},
		{"bad-password.pcap", ikev2.HandshakeCounts{Begun: 1, Failed: map[ikev2.FindingID]uint64{"auth-refused": 1}}},
		{"radius-silent.pcap", ikev2.HandshakeCounts{Begun: 2, Failed: map[ikev2.FindingID]uint64{"auth-stalled": 2}}},
		{"slow.pcap", ikev2.HandshakeCounts{Begun: 1, Finished: 1, Slow: 1}},
	} {
		t.Run(x.file, func(t *testing.T) {
			var w ikev2.Watch
			end := watched(t, x.file, &w)
			got := w.Handshakes(end.Add(2 * time.Minute))
			x.want.Gateway = "ras1"
			if x.want.Failed == nil {
				x.want.Failed = map[ikev2.FindingID]uint64{}
			}
			if diff := cmp.Diff([]ikev2.HandshakeCounts{x.want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			problems := w.Problems(end.Add(2 * time.Minute))
			found := map[ikev2.FindingID]uint64{}
			for _, p := range problems {
				if p.Gateway != "ras1" || p.Finding.Severity == ikev2.SeverityInfo {
					t.Errorf("problem %+v", p)
				}
				found[p.Finding.ID]++
			}
			for id, n := range maps.All(x.want.Failed) {
				if found[id] != n {
					t.Errorf("%d problems of %s, want %d", found[id], id, n)
				}
			}
		})
	}
}
