package capture_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/ikev2/capture"
)

// packets returns the packets of a capture in testdata.
func packets(t *testing.T, name string) []capture.Packet {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "testdata", "captures", name))
	if err != nil {
		t.Fatal(err)
	}
	r, err := capture.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	var out []capture.Packet
	for {
		p, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		p.Data = bytes.Clone(p.Data)
		out = append(out, p)
	}
}

// relinked returns b, an Ethernet frame, with another beginning.
func relinked(link capture.LinkType, tags []uint16, b []byte) []byte {
	kind, ip := b[12:14], b[14:]
	switch link {
	case capture.LinkEthernet:
		out := bytes.Clone(b[:12])
		for _, tag := range tags {
			out = binary.BigEndian.AppendUint16(out, tag)
			out = append(out, 0, 7)
		}
		return append(append(out, kind...), ip...)
	case capture.LinkSLL:
		return append(append(make([]byte, 14), kind...), ip...)
	case capture.LinkSLL2:
		return append(append(bytes.Clone(kind), make([]byte, 18)...), ip...)
	case capture.LinkNull, capture.LinkLoop:
		return append([]byte{2, 0, 0, 0}, ip...)
	}
	return ip
}

func report(t *testing.T, ps []capture.Packet) *ikev2.Report {
	t.Helper()
	var tr ikev2.Tracker
	d := capture.Decoder{Event: tr.Observe}
	for i := range ps {
		d.Decode(&ps[i])
	}
	d.Flush()
	if s := d.Stats(); s.NotIP+s.Malformed > 0 {
		t.Errorf("stats %+v", s)
	}
	return tr.Report()
}

// What packets begin with makes no difference to what is found.
func TestLinkTypes(t *testing.T) {
	for _, file := range []string{"certificate-ip-fragments.pcap", "ipv6-ip-fragments.pcap", "fragments-dropped-gateway.pcap", "closed.pcap", "small-mtu.pcap"} {
		ps := packets(t, file)
		want := report(t, ps)
		for _, x := range []struct {
			name string
			link capture.LinkType
			tags []uint16
		}{
			{"tag", capture.LinkEthernet, []uint16{0x8100}},
			{"two tags", capture.LinkEthernet, []uint16{0x88a8, 0x8100}},
			{"old tags", capture.LinkEthernet, []uint16{0x9100, 0x8100}},
			{"cooked", capture.LinkSLL, nil},
			{"cooked 2", capture.LinkSLL2, nil},
			{"null", capture.LinkNull, nil},
			{"loop", capture.LinkLoop, nil},
			{"raw", capture.LinkRaw, nil},
			{"raw BSD", capture.LinkRawBSD, nil},
			{"raw other", capture.LinkRawOther, nil},
		} {
			other := slices.Clone(ps)
			for i := range other {
				other[i].Link, other[i].Data = x.link, relinked(x.link, x.tags, ps[i].Data)
				other[i].Length = len(other[i].Data)
			}
			if diff := cmp.Diff(want, report(t, other), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", file, x.name, diff)
			}
		}
	}
}

// A pcapng file says the same as a pcap file.
func TestPcapng(t *testing.T) {
	ps := packets(t, "eap.pcap")
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: p.Time, CaptureLength: len(p.Data), Length: p.Length}, p.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer // as Wireshark compresses it
	zw := gzip.NewWriter(&z)
	if _, err := zw.Write(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	for _, file := range [][]byte{b.Bytes(), z.Bytes()} {
		got := read(t, file)
		if n := len(got.Conversations); n != 1 || got.Conversations[0].Outcome != ikev2.OutcomeEstablished || len(got.Findings) > 0 {
			t.Errorf("got %+v", got)
		}
	}
	// Packets may follow for as long as they like; what is kept of the rest is
	// bounded.
	header, rest := b.Bytes()[:bytes.Index(b.Bytes(), []byte{1, 0, 0, 0})], b.Bytes()
	packets := rest[bytes.Index(rest, []byte{6, 0, 0, 0}):]
	long := bytes.Clone(rest)
	for len(long) < 20<<20 {
		long = append(long, packets...)
	}
	var tr ikev2.Tracker
	if s, err := capture.Read(bytes.NewReader(long), &tr); err != nil || s.Packets < 1000 {
		t.Errorf("many packets: %+v, %v", s, err)
	}
	flood := append(bytes.Clone(header), bytes.Repeat([]byte{1, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0}, 1<<20)...)
	if _, err := capture.Read(bytes.NewReader(flood), &tr); err == nil || !strings.Contains(err.Error(), "no packets") {
		t.Errorf("a million interfaces: %v", err)
	}
	// Versions to come are skipped, until nothing is left.
	later := bytes.Clone(rest)
	later[12] = 2
	if _, err := capture.NewReader(bytes.NewReader(later)); err == nil || !strings.Contains(err.Error(), "version 1") {
		t.Errorf("version 2: %v", err)
	}
}

// A capture that has only the beginnings of packets is said to, and what is known
// nevertheless is told.
func TestTruncated(t *testing.T) {
	ps := packets(t, "never-4500-gateway.pcap")
	for i := range ps {
		ps[i].Data = ps[i].Data[:min(len(ps[i].Data), 96)]
	}
	r := report(t, ps)
	var ids []ikev2.FindingID
	for _, f := range r.Findings {
		ids = append(ids, f.ID)
	}
	if !slices.Contains(ids, ikev2.FindingTruncated) || !slices.Contains(ids, ikev2.FindingNever4500) {
		t.Errorf("found %v", ids)
	}
	if r.Counts.Truncated != len(ps) {
		t.Errorf("%d of %d packets truncated", r.Counts.Truncated, len(ps))
	}
}

// IP fragments come in any order, twice, or not; memory is bounded.
func TestReassembly(t *testing.T) {
	ps := packets(t, "certificate-ip-fragments.pcap")
	want := report(t, ps)
	var frags []int
	for i, p := range ps {
		if binary.BigEndian.Uint16(p.Data[20:])&0x3fff != 0 {
			frags = append(frags, i)
		}
	}
	if len(frags) < 2 {
		t.Fatalf("%d fragments", len(frags))
	}
	swapped := slices.Clone(ps)
	a, b := frags[0], frags[1]
	swapped[a].Data, swapped[b].Data = ps[b].Data, ps[a].Data
	swapped[a].Length, swapped[b].Length = ps[b].Length, ps[a].Length
	if got := report(t, swapped); len(got.Conversations) != 1 || got.Conversations[0].Outcome != want.Conversations[0].Outcome || got.Counts.IKE != want.Counts.IKE {
		t.Errorf("swapped: %+v", got.Counts)
	}
	twice := slices.Insert(slices.Clone(ps), a, ps[a])
	if got := report(t, twice); got.Counts != want.Counts {
		t.Errorf("twice: %+v, want %+v", got.Counts, want.Counts)
	}
	d := capture.Decoder{}
	flood := bytes.Clone(ps[a].Data)
	for i := range 100000 {
		binary.BigEndian.PutUint16(flood[18:], uint16(i))
		flood[14+12+3] = byte(i >> 16)
		d.Decode(&capture.Packet{Time: ps[a].Time, Link: capture.LinkEthernet, Data: flood, Length: len(flood)})
	}
	if s := d.Stats(); s.Incomplete < 60000 {
		t.Errorf("stats %+v: nothing made room", s)
	}
}

// Native ESP, which strongSwan can't be had to send without IPsec in the kernel.
func TestNativeESP(t *testing.T) {
	ip := make([]byte, 60)
	ip[0], ip[3], ip[9] = 0x45, 60, 50
	copy(ip[12:], []byte{198, 51, 100, 7, 203, 0, 113, 11})
	r := report(t, []capture.Packet{{Number: 1, Time: time.Unix(1, 0), Link: capture.LinkRaw, Data: ip, Length: 60}})
	if r.Counts.NativeESP != 1 {
		t.Errorf("counts %+v", r.Counts)
	}
}
