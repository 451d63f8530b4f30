package ikev2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aovlb/aovlb/lb"
	"github.com/google/go-cmp/cmp"
)

// datagram is one UDP datagram of a capture, whole.
type datagram struct {
	frame    int // of its last fragment, from 1
	src, dst netip.AddrPort
	data     []byte
}

// readPcap reads a little-endian pcap file of Ethernet and IPv4, and reassembles
// IP fragments that come in order.
func readPcap(b []byte) ([]datagram, error) {
	if len(b) < 24 || binary.LittleEndian.Uint32(b) != 0xa1b2c3d4 && binary.LittleEndian.Uint32(b) != 0xa1b23c4d {
		return nil, fmt.Errorf("no pcap file")
	}
	if link := binary.LittleEndian.Uint32(b[20:]); link != 1 {
		return nil, fmt.Errorf("link type %d isn't Ethernet", link)
	}
	var out []datagram
	parts := map[string][]byte{}
	b = b[24:]
	for frame := 1; len(b) >= 16; frame++ {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		if n > len(b)-16 {
			return nil, fmt.Errorf("frame %d is cut off", frame)
		}
		p := b[16 : 16+n]
		b = b[16+n:]
		if n < 14+20 || binary.BigEndian.Uint16(p[12:]) != 0x0800 {
			continue
		}
		ip := p[14:]
		if ip[9] != 17 {
			continue
		}
		ip = ip[:binary.BigEndian.Uint16(ip[2:])]
		frag := binary.BigEndian.Uint16(ip[6:])
		id := string(ip[4:6]) + string(ip[12:20])
		udp := ip[int(ip[0]&15)*4:]
		if int(frag&0x1fff)*8 != len(parts[id]) {
			return nil, fmt.Errorf("frame %d: fragments out of order", frame)
		}
		udp = append(parts[id], udp...)
		if frag&0x2000 != 0 {
			parts[id] = udp
			continue
		}
		delete(parts, id)
		if int(binary.BigEndian.Uint16(udp[4:])) != len(udp) {
			return nil, fmt.Errorf("frame %d: UDP length is wrong", frame)
		}
		port := func(addr, at int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[addr:])), binary.BigEndian.Uint16(udp[at:]))
		}
		out = append(out, datagram{frame, port(12, 0), port(16, 2), udp[8:]})
	}
	return out, nil
}

// captures calls f for each public capture.
func captures(t testing.TB, f func(path string, ds []datagram)) {
	t.Helper()
	dir := os.Getenv("AOVLB_TESTDATA")
	if dir == "" {
		t.Skip("AOVLB_TESTDATA is unset: it names the folder of public captures")
	}
	paths, err := filepath.Glob(filepath.Join(dir, "ikev2", "*.pcap"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no captures in %s: %v", dir, err)
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		ds, err := readPcap(b)
		if err != nil {
			t.Fatalf("%s: %v", filepath.Base(p), err)
		}
		f(p, ds)
	}
}

// vip is the balancer in the captures.
var vip = netip.MustParseAddr("198.51.100.100")

func (d *datagram) fromClient() bool { return d.dst.Addr() == vip }

func (d *datagram) flow() lb.Flow {
	if d.fromClient() {
		return lb.Flow{Client: d.src, Service: d.dst.Port()}
	}
	return lb.Flow{Client: d.dst, Service: d.src.Port()}
}

func TestCapturesParse(t *testing.T) {
	kinds := map[Kind]int{}
	captures(t, func(path string, ds []datagram) {
		for _, d := range ds {
			kind, msg := Identify(d.data)
			kinds[kind]++
			var c Classifier
			judge := c.Answer
			if d.fromClient() {
				judge = c.Classify
			}
			if v := judge(d.data, d.flow()); v.Drop {
				t.Errorf("%s frame %d: dropped: %s", filepath.Base(path), d.frame, v.Reason)
			}
			if kind != KindIKE {
				continue
			}
			m, err := ParseMessage(msg)
			if err != nil {
				t.Errorf("%s frame %d: %v", filepath.Base(path), d.frame, err)
				continue
			}
			if again := rebuild(t, m); !bytes.Equal(again, msg) {
				t.Errorf("%s frame %d: appending what was parsed makes another message", filepath.Base(path), d.frame)
			}
		}
	})
	t.Logf("%v", kinds)
	if kinds[KindIKE] == 0 || kinds[KindESP] == 0 || kinds[KindKeepalive] == 0 || kinds[KindNone] != 0 {
		t.Errorf("kinds are %v", kinds)
	}
}

// rebuild appends what was parsed of m, down to the proposals.
func rebuild(t testing.TB, m Message) []byte {
	t.Helper()
	var ps []Payload
	w := m.Payloads()
	for w.Next() {
		p := w.Payload
		var err error
		switch p.Type {
		case PayloadSA:
			var sa []Proposal
			if sa, err = ParseSA(p.Body); err == nil {
				p.Body = AppendSA(nil, sa...)
			}
		case PayloadKE:
			var k KeyExchange
			if k, err = ParseKE(p.Body); err == nil {
				p.Body = AppendKE(nil, k)
			}
		case PayloadNotify:
			var n Notify
			if n, err = ParseNotify(p.Body); err == nil {
				p.Body = AppendNotify(nil, n)
			}
		}
		if err != nil {
			t.Error(err)
		}
		ps = append(ps, p)
	}
	if err := w.Err(); err != nil {
		t.Error(err)
	}
	return AppendMessage(nil, m.Header, ps...)
}

// TestCapturesAgreeWithWireshark compares each datagram with Wireshark's view.
func TestCapturesAgreeWithWireshark(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Skip(err)
	}
	captures(t, func(path string, ds []datagram) {
		args := []string{"-n", "-r", path, "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,"}
		for _, f := range []string{
			"frame.number", "isakmp.ispi", "isakmp.rspi", "isakmp.exchangetype", "isakmp.flags", "isakmp.messageid",
			"isakmp.length", "isakmp.typepayload", "isakmp.notify.msgtype", "isakmp.tf.type", "esp.spi", "udpencap.nat_keepalive",
		} {
			args = append(args, "-e", f)
		}
		out, err := exec.Command("tshark", args...).Output()
		if err != nil {
			t.Fatal(err)
		}
		theirs := map[string]string{}
		for line := range strings.Lines(string(out)) {
			frame, rest, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
			theirs[frame] = rest
		}
		for _, d := range ds {
			frame := fmt.Sprint(d.frame)
			if diff := cmp.Diff(theirs[frame], wiresharkView(d.data)); diff != "" {
				t.Errorf("%s frame %s (-tshark +ours):\n%s", filepath.Base(path), frame, diff)
			}
		}
	})
}

// wiresharkView returns the fields of TestCapturesAgreeWithWireshark as tshark
// prints them.
func wiresharkView(b []byte) string {
	fields := make([]string, 11)
	kind, msg := Identify(b)
	switch kind {
	case KindKeepalive:
		fields[10] = "1"
	case KindESP:
		fields[9] = fmt.Sprintf("0x%08x", binary.BigEndian.Uint32(b))
	case KindIKE:
		m, _ := ParseMessage(msg)
		fields[0], fields[1] = m.SPIi.String(), m.SPIr.String()
		fields[2], fields[3] = fmt.Sprint(uint8(m.Exchange)), fmt.Sprintf("0x%02x", uint8(m.Flags))
		fields[4], fields[5] = fmt.Sprintf("0x%08x", m.MessageID), fmt.Sprint(m.Length)
		var types, notifies, transforms []string
		for w := m.Payloads(); w.Next(); {
			types = append(types, fmt.Sprint(uint8(w.Payload.Type)))
			switch w.Payload.Type {
			case PayloadNotify:
				n, _ := ParseNotify(w.Payload.Body)
				notifies = append(notifies, fmt.Sprint(uint16(n.Type)))
			case PayloadSA:
				ps, _ := ParseSA(w.Payload.Body)
				for _, p := range ps {
					types = append(types, "2")
					for _, x := range p.Transforms {
						types = append(types, "3")
						transforms = append(transforms, fmt.Sprint(uint8(x.Type)))
					}
				}
			}
		}
		fields[6], fields[7], fields[8] = strings.Join(types, ","), strings.Join(notifies, ","), strings.Join(transforms, ",")
	}
	return strings.Join(fields, "\t")
}

// TestCapturesRoute replays the captures through a balancer with four gateways,
// as if each answer came from where the client's datagram went: every datagram
// of an SA must go to the same one.
func TestCapturesRoute(t *testing.T) {
	captures(t, func(path string, ds []datagram) {
		w := newWorld(t, AffinitySPI, 4)
		at := map[lb.Flow]*flowRecord{}
		homes := map[SPI]*gateway{}
		for _, d := range ds {
			f := d.flow()
			_, msg := Identify(d.data)
			if !d.fromClient() {
				v, rec := w.c.Answer(d.data, f), at[f]
				if rec == nil || rec.gw == nil {
					t.Fatalf("%s frame %d: an answer to nothing", filepath.Base(path), d.frame)
				}
				w.b.Answered(rec.gw.member, f, v.Stage, rec.why, slices.Concat(v.Keys[:], rec.pending)...)
				continue
			}
			v := w.c.Classify(d.data, f)
			r, err := w.b.Route(&v, f)
			if err != nil || r.Member == nil {
				t.Fatalf("%s frame %d: route %+v, %v", filepath.Base(path), d.frame, r, err)
			}
			g := w.gateway(r.Member)
			at[f] = &flowRecord{gw: g, why: r.Why, pending: v.Keys[:]}
			if msg == nil {
				continue
			}
			spi := initiatorSPI(msg)
			if home := homes[spi]; home != nil && home != g {
				t.Errorf("%s frame %d: SPI %v goes to %s, was at %s", filepath.Base(path), d.frame, spi, g.member.Name, home.member.Name)
			}
			homes[spi] = g
		}
	})
}
