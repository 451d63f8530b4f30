package capture_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/ikev2/capture"
)

// wiresharkFields are what is compared, packet by packet.
var wiresharkFields = []string{
	"udp.srcport", "udp.dstport", "isakmp.ispi", "isakmp.rspi", "isakmp.exchangetype", "isakmp.flags", "isakmp.messageid", "isakmp.length",
	"isakmp.notify.msgtype", "isakmp.frag.number", "isakmp.frag.total",
}

// TestAgreesWithWireshark compares every IKE message of the captures with
// Wireshark's view, field by field: link types, IP fragments, fragments of IKE.
func TestAgreesWithWireshark(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Skip(err)
	}
	paths, err := filepath.Glob("../testdata/captures/*.pcap")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		theirs := tshark(t, path)
		d := capture.Decoder{Event: func(e *ikev2.Event) {
			k, msg := ikev2.Identify(e.Data)
			if e.Kind != ikev2.EventDatagram || k != ikev2.KindIKE {
				return
			}
			frame := fmt.Sprint(e.Packet)
			if diff := cmp.Diff(theirs[frame], viewOf(e, msg)); diff != "" {
				t.Errorf("%s packet %s (-tshark +ours):\n%s", filepath.Base(path), frame, diff)
			}
			delete(theirs, frame)
		}}
		r, err := capture.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Run(r); err != nil {
			t.Fatal(err)
		}
		for frame, fields := range theirs {
			t.Errorf("%s packet %s: only tshark sees IKE in it: %s", filepath.Base(path), frame, fields)
		}
	}
}

// tshark returns the fields of all packets in which it sees IKE, but for ICMP,
// which quotes some.
func tshark(t *testing.T, path string) map[string]string {
	t.Helper()
	args := []string{"-n", "-r", path, "-Y", "isakmp.ispi and not icmp and not icmpv6", "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,", "-e", "frame.number"}
	for _, f := range wiresharkFields {
		args = append(args, "-e", f)
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(out)) {
		frame, rest, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
		all[frame] = rest
	}
	return all
}

// viewOf returns the fields as tshark prints them.
func viewOf(e *ikev2.Event, msg []byte) string {
	m, err := ikev2.ParseMessage(msg)
	if err != nil {
		return err.Error()
	}
	var notifies []string
	number, total := "", ""
	for w := m.Payloads(); w.Next(); {
		switch w.Payload.Type {
		case ikev2.PayloadNotify:
			n, _ := ikev2.ParseNotify(w.Payload.Body)
			notifies = append(notifies, fmt.Sprint(uint16(n.Type)))
		case ikev2.PayloadSKF:
			f, _ := ikev2.ParseSKF(w.Payload.Body)
			number, total = fmt.Sprint(f.Number), fmt.Sprint(f.Total)
		}
	}
	return strings.Join([]string{
		fmt.Sprint(e.From.Port()), fmt.Sprint(e.To.Port()), m.SPIi.String(), m.SPIr.String(), fmt.Sprint(uint8(m.Exchange)),
		fmt.Sprintf("0x%02x", uint8(m.Flags)), fmt.Sprintf("0x%08x", m.MessageID), fmt.Sprint(m.Length), strings.Join(notifies, ","), number, total,
	}, "\t")
}
