package ikev2

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tsharkFields are compared with ours, value by value. What is inside of
// encrypted payloads has no field.
var tsharkFields = []string{
	"isakmp.ispi", "isakmp.rspi", "isakmp.version", "isakmp.exchangetype", "isakmp.flags", "isakmp.messageid", "isakmp.length",
	"isakmp.typepayload", "isakmp.payloadlength", "isakmp.prop.number", "isakmp.prop.protoid", "isakmp.prop.transforms", "isakmp.spi",
	"isakmp.tf.type", "isakmp.tf.id.encr", "isakmp.tf.id.integ", "isakmp.tf.id.prf", "isakmp.tf.id.dh", "isakmp.tf.id.esn",
	"isakmp.ike2.attr.key_length", "isakmp.key_exchange.dh_group", "isakmp.key_exchange.data", "isakmp.nonce",
	"isakmp.notify.protoid", "isakmp.notify.msgtype", "isakmp.vid_bytes", "isakmp.certreq.type", "isakmp.ike.certreq.authority",
	"isakmp.frag.number", "isakmp.frag.total", "isakmp.id.type", "isakmp.auth.method", "isakmp.cert.encoding",
	"isakmp.delete.protoid", "isakmp.delete.spi", "isakmp.ts.number", "isakmp.ts.type", "isakmp.ts.start_ipv4", "isakmp.ts.end_ipv4",
	"isakmp.ts.start_ipv6", "isakmp.ts.end_ipv6", "isakmp.ts.start_port", "isakmp.ts.end_port", "isakmp.cfg.type", "isakmp.cfg.attr.type",
	"eap.code", "eap.id", "eap.type",
}

// view collects values by field.
type view map[string][]string

func (v view) add(field, format string, a ...any) {
	v[field] = append(v[field], fmt.Sprintf(format, a...))
}

// ourView returns what this package reads in a message.
func ourView(t testing.TB, msg []byte) view {
	t.Helper()
	m, err := ParseMessage(msg)
	if err != nil {
		t.Fatal(err)
	}
	v := view{}
	v.add("isakmp.ispi", "%v", m.SPIi)
	v.add("isakmp.rspi", "%v", m.SPIr)
	v.add("isakmp.version", "0x%02x", m.Version)
	v.add("isakmp.exchangetype", "%d", uint8(m.Exchange))
	v.add("isakmp.flags", "0x%02x", uint8(m.Flags))
	v.add("isakmp.messageid", "0x%08x", m.MessageID)
	v.add("isakmp.length", "%d", m.Length)
	w := m.Payloads()
	for w.Next() {
		v.add("isakmp.typepayload", "%d", uint8(w.Payload.Type))
		v.add("isakmp.payloadlength", "%d", len(w.Payload.Body)+4)
		if err := v.payload(w.Payload); err != nil {
			t.Error(err)
		}
	}
	if err := w.Err(); err != nil {
		t.Error(err)
	}
	return v
}

func (v view) payload(p Payload) error {
	switch p.Type {
	case PayloadSA:
		return v.sa(p.Body)
	case PayloadKE:
		k, err := ParseKE(p.Body)
		v.add("isakmp.key_exchange.dh_group", "%d", uint16(k.Group))
		v.add("isakmp.key_exchange.data", "%x", k.Data)
		return err
	case PayloadNonce:
		n, err := ParseNonce(p.Body)
		v.add("isakmp.nonce", "%x", n)
		return err
	case PayloadNotify:
		n, err := ParseNotify(p.Body)
		v.add("isakmp.notify.protoid", "%d", uint8(n.Protocol))
		v.add("isakmp.notify.msgtype", "%d", uint16(n.Type))
		if len(n.SPI) > 0 {
			v.add("isakmp.spi", "%x", n.SPI)
		}
		return err
	case PayloadVendor:
		v.add("isakmp.vid_bytes", "%x", p.Body)
	case PayloadCertReq:
		c, err := ParseCertRequest(p.Body)
		v.add("isakmp.certreq.type", "%d", uint8(c.Encoding))
		for i := range c.Len() {
			v.add("isakmp.ike.certreq.authority", "%x", c.Hash(i))
		}
		return err
	case PayloadSKF:
		f, err := ParseSKF(p.Body)
		v.add("isakmp.frag.number", "%d", f.Number)
		v.add("isakmp.frag.total", "%d", f.Total)
		return err
	case PayloadIDi, PayloadIDr:
		id, err := ParseID(p.Body)
		v.add("isakmp.id.type", "%d", uint8(id.Type))
		return err
	case PayloadAuth:
		a, err := ParseAuth(p.Body)
		v.add("isakmp.auth.method", "%d", uint8(a.Method))
		return err
	case PayloadCert:
		c, err := ParseCert(p.Body)
		v.add("isakmp.cert.encoding", "%d", uint8(c.Encoding))
		return err
	case PayloadDelete:
		d, err := ParseDelete(p.Body)
		v.add("isakmp.delete.protoid", "%d", uint8(d.Protocol))
		for i := range d.Len() {
			v.add("isakmp.delete.spi", "%x", d.SPI(i))
		}
		return err
	case PayloadTSi, PayloadTSr:
		return v.ts(p.Body)
	case PayloadCP:
		w := WalkConfig(p.Body)
		v.add("isakmp.cfg.type", "%d", uint8(w.Type))
		for w.Next() {
			v.add("isakmp.cfg.attr.type", "%d", uint16(w.Attribute.Type))
		}
		return w.Err()
	case PayloadEAP:
		e, err := ParseEAP(p.Body)
		v.add("eap.code", "%d", uint8(e.Code))
		v.add("eap.id", "%d", e.Identifier)
		if e.Type != 0 {
			v.add("eap.type", "%d", uint8(e.Type))
		}
		return err
	}
	return nil
}

func (v view) sa(body []byte) error {
	w := WalkSA(body)
	for w.Next() {
		p := w.Proposal
		v.add("isakmp.typepayload", "2")
		v.add("isakmp.prop.number", "%d", p.Number)
		v.add("isakmp.prop.protoid", "%d", uint8(p.Protocol))
		v.add("isakmp.prop.transforms", "%d", p.Count)
		if len(p.SPI) > 0 {
			v.add("isakmp.spi", "%x", p.SPI)
		}
		size := len(v["isakmp.payloadlength"])
		v.add("isakmp.payloadlength", "")
		n := proposalHeaderLen + len(p.SPI)
		t := p.Transforms()
		for t.Next() {
			v.add("isakmp.typepayload", "3")
			v.add("isakmp.payloadlength", "%d", transformHeaderLen+len(t.Attributes))
			n += transformHeaderLen + len(t.Attributes)
			v.add("isakmp.tf.type", "%d", uint8(t.Transform.Type))
			if id, ok := map[TransformType]string{
				TransformEncr: "encr", TransformInteg: "integ", TransformPRF: "prf", TransformKE: "dh", TransformESN: "esn",
			}[t.Transform.Type]; ok {
				v.add("isakmp.tf.id."+id, "%d", t.Transform.ID)
			}
			if t.Transform.KeyBits != 0 {
				v.add("isakmp.ike2.attr.key_length", "%d", t.Transform.KeyBits)
			}
		}
		if err := t.Err(); err != nil {
			return err
		}
		v["isakmp.payloadlength"][size] = fmt.Sprint(n)
	}
	return w.Err()
}

func (v view) ts(body []byte) error {
	v.add("isakmp.ts.number", "%d", body[0])
	w := WalkTS(body)
	for w.Next() {
		s, family := w.Selector, "ipv4"
		if s.Type == TSIPv6 {
			family = "ipv6"
		}
		v.add("isakmp.ts.type", "%d", uint8(s.Type))
		v.add("isakmp.ts.start_port", "%d", s.StartPort)
		v.add("isakmp.ts.end_port", "%d", s.EndPort)
		v.add("isakmp.ts.start_"+family, "%v", s.Start)
		v.add("isakmp.ts.end_"+family, "%v", s.End)
	}
	return w.Err()
}

// compareTshark compares every IKE message in a capture with tshark's view of it,
// and returns how many there were.
func compareTshark(t *testing.T, path string) int {
	t.Helper()
	args := []string{
		"-n", "-r", path, "-Y", "isakmp && udp.payload", "-T", "fields",
		"-E", "occurrence=a", "-E", "aggregator=;", "-e", "frame.number", "-e", "udp.payload",
	}
	for _, f := range tsharkFields {
		args = append(args, "-e", f)
	}
	cmd := exec.Command("tshark", args...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, &complaints)
	}
	n := 0
	for line := range strings.Lines(string(out)) {
		cols := strings.Split(strings.TrimRight(line, "\n"), "\t")
		// What comes in an ICMP error is cut off, and comes twice.
		if strings.Contains(cols[0], ";") || strings.Contains(cols[1], ";") {
			continue
		}
		b, err := hex.DecodeString(cols[1])
		if err != nil {
			t.Fatal(err)
		}
		kind, msg := Identify(b)
		if kind != KindIKE {
			continue // a keepalive, or what is cut off
		}
		n++
		ours := ourView(t, msg)
		for i, f := range tsharkFields {
			if theirs := cols[2+i]; theirs != strings.Join(ours[f], ";") {
				t.Errorf("%s frame %s: %s (-tshark +ours):\n%s", filepath.Base(path), cols[0], f, cmp.Diff(theirs, strings.Join(ours[f], ";")))
			}
		}
	}
	return n
}

// TestTsharkAgrees compares with Wireshark's dissector, field by field: the
// captures of testdata, the public ones, and messages of our own with every
// payload there is.
func TestTsharkAgrees(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Skip(err)
	}
	paths, err := filepath.Glob(filepath.Join("testdata", "captures", "*.pcap*"))
	if err != nil {
		t.Fatal(err)
	}
	if dir := os.Getenv("AOVLB_TESTDATA"); dir != "" {
		more, err := filepath.Glob(filepath.Join(dir, "ikev2", "*.pcap*"))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, more...)
	}
	own := filepath.Join(t.TempDir(), "own.pcap")
	if err := os.WriteFile(own, ownCapture(), 0o600); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, p := range append(slices.Clone(paths), own) {
		n := compareTshark(t, p)
		if n == 0 && p == own {
			t.Error("tshark finds nothing in our own messages")
		}
		total += n
	}
	t.Logf("%d messages of %d captures, %d fields each", total, len(paths)+1, len(tsharkFields))
}

// ownCapture returns a capture (pcap, raw IPv4) of one message for each payload of
// everyPayload, without encryption, as no peer would send most of them.
func ownCapture() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	b = append(b, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0)
	b = binary.LittleEndian.AppendUint32(b, 101) // raw IP
	for _, p := range everyPayload() {
		msg := AppendMessage(nil, Header{SPIi: 1, SPIr: 2, Exchange: ExchangeAuth, Flags: FlagInitiator, MessageID: 1}, p)
		size := 28 + len(msg)
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
		b = binary.LittleEndian.AppendUint32(b, uint32(size))
		b = binary.LittleEndian.AppendUint32(b, uint32(size))
		b = append(b, 0x45, 0, byte(size>>8), byte(size), 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2)
		b = append(b, 1, 0xf4, 1, 0xf4, byte((size-20)>>8), byte(size-20), 0, 0)
		b = append(b, msg...)
	}
	return b
}
