package sstp

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A vector is an example of a crypto binding.
type vector struct {
	Alg           string
	HLAK          string
	CallConnected string `json:"call_connected"`
	CMK           string
	CMAC          string
	Source        string
}

// vectors reads the specification's examples, and more where there are more.
func vectors(t *testing.T) []vector {
	t.Helper()
	files := []string{"testdata/binding.json"}
	if dir := os.Getenv("AOVLB_TESTDATA"); dir != "" {
		files = append(files, filepath.Join(dir, "sstp", "vectors.json"))
	}
	var all []vector
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var v []vector
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		all = append(all, v...)
	}
	return all
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBindingVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Source+" "+v.Alg, func(t *testing.T) {
			key := Key(unhex(t, v.HLAK))
			whole := unhex(t, v.CallConnected)
			m, n, err := ParseMessage(whole)
			if err != nil || n != len(whole) || m.Type != CallConnected {
				t.Fatalf("%v, %d, %v", m.Type, n, err)
			}
			value, _ := m.Value(AttrBinding)
			b, err := ParseBinding(value)
			if err != nil {
				t.Fatal(err)
			}
			if b.Hash != map[string]Hashes{"sha1": HashSHA1, "sha256": HashSHA256}[v.Alg] {
				t.Errorf("hash %v, want %s", b.Hash, v.Alg)
			}
			if got := hex.EncodeToString(CompoundMACKey(b.Hash, key)); got != v.CMK {
				t.Errorf("CMK %s, want %s", got, v.CMK)
			}
			if got := b.mac(key); hex.EncodeToString(got[:b.Hash.size()]) != v.CMAC {
				t.Errorf("CMAC %x, want %s", got, v.CMAC)
			}
			ask := &BindingRequest{Hashes: HashSHA1 | HashSHA256, Nonce: b.Nonce}
			var f1 FingerprintSHA1
			copy(f1[:], b.CertHash[:])
			if err := b.Verify(ask, b.CertHash, f1, key); err != nil {
				t.Errorf("Verify: %v", err)
			}
			if got := AppendConnected(nil, &b); !bytes.Equal(got, whole) {
				t.Errorf("%x comes back as %x", whole, got)
			}
		})
	}
}

func TestVerifySaysWhatIsWrong(t *testing.T) {
	der := []byte("a leaf")
	key := Key{1, 2, 3}
	for _, h := range []Hashes{HashSHA1, HashSHA256} {
		ask := &BindingRequest{Hashes: h, Nonce: [32]byte{7}}
		good, err := NewBinding(ask, der, key)
		if err != nil {
			t.Fatal(err)
		}
		f, f1 := FingerprintOf(der), FingerprintSHA1Of(der)
		if err := good.Verify(ask, f, f1, key); err != nil {
			t.Errorf("%v: %v", h, err)
		}
		for _, tc := range []struct {
			name string
			bend func(b *Binding)
			want error
		}{
			{"nonce", func(b *Binding) { b.Nonce[31]++ }, ErrNonce},
			{"hash not offered", func(b *Binding) { b.Hash = (HashSHA1 | HashSHA256) &^ h }, ErrHashProtocol},
			{"two hashes", func(b *Binding) { b.Hash = HashSHA1 | HashSHA256 }, ErrHashProtocol},
			{"no hash", func(b *Binding) { b.Hash = 0 }, ErrHashProtocol},
			{"certificate", func(b *Binding) { b.CertHash[0]++ }, ErrCertHash},
			{"padding of the certificate's hash", func(b *Binding) { b.CertHash[31]++ }, ErrCertHash},
			{"MAC", func(b *Binding) { b.MAC[0]++ }, ErrMAC},
		} {
			b := good
			tc.bend(&b)
			if err := b.Verify(ask, f, f1, key); !errors.Is(err, tc.want) {
				t.Errorf("%v, %s: %v, want %v", h, tc.name, err, tc.want)
			}
		}
		if err := good.Verify(ask, f, f1, Key{}); !errors.Is(err, ErrMAC) {
			t.Errorf("%v, other key: %v", h, err)
		}
		if err := good.Verify(ask, Fingerprint{}, FingerprintSHA1{}, key); !errors.Is(err, ErrCertHash) {
			t.Errorf("%v, server without a hash: %v", h, err)
		}
	}
	if _, err := NewBinding(&BindingRequest{Hashes: 4}, der, key); err == nil {
		t.Error("a client took a hash that nobody knows")
	}
}

func TestAppendIsAsSpecified(t *testing.T) {
	nonce := [32]byte{}
	for i := range nonce {
		nonce[i] = byte(i)
	}
	for name, tc := range map[string]struct{ got, want []byte }{
		"request":      {AppendConnectRequest(nil), unhex(t, "1001000e0001000100010006"+"0001")},
		"ack":          {AppendConnectAck(nil, &BindingRequest{HashSHA256, nonce}), append(unhex(t, "100100300002000100040028"+"00000002"), nonce[:]...)},
		"abort":        {AppendStatus(nil, CallAbort, StatusInfo{AttrBinding, StatusValueNotSupported, nil}), unhex(t, "1001001400050001"+"0002000c"+"0000000300000004")},
		"disconnect":   {AppendStatus(nil, CallDisconnect, StatusInfo{}), unhex(t, "1001001400060001"+"0002000c"+"0000000000000000")},
		"ack of that":  {AppendControl(nil, CallDisconnectAck), unhex(t, "1001000800070000")},
		"echo request": {AppendControl(nil, EchoRequest), unhex(t, "1001000800080000")},
		"echo reply":   {AppendControl(nil, EchoResponse), unhex(t, "1001000800090000")},
	} {
		if !bytes.Equal(tc.got, tc.want) {
			t.Errorf("%s: %x, want %x", name, tc.got, tc.want)
		}
		m, n, err := ParseMessage(append(tc.got, 0x10))
		if err != nil || n != len(tc.want) {
			t.Errorf("%s: parsed %d bytes, %v", name, n, err)
		}
		if again, err := m.Append(nil); err != nil || !bytes.Equal(again, tc.want) {
			t.Errorf("%s: appended %x, %v", name, again, err)
		}
		for cut := range tc.want {
			if _, _, err := ParseMessage(tc.want[:cut]); !errors.Is(err, ErrShort) {
				t.Errorf("%s cut to %d: %v", name, cut, err)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, s := range map[string]string{
		"version":                 "20010008" + "00080000",
		"version of a first byte": "20",
		"length under 4":          "10000003",
		"control under 8":         "1001000700",
		"more attributes":         "1001000e" + "00010002" + "000100060001",
		"attribute under 4":       "1001000e" + "00010001" + "000100030001",
		"attribute too long":      "1001000e" + "00010001" + "000100070001",
		"data":                    "10000008" + "ff03c021",
	} {
		if _, _, err := ParseMessage(unhex(t, s)); !errors.Is(err, ErrPacket) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Reserved bits, a length that isn't that of the attributes, and aborts
	// without any attribute are what real peers send.
	for _, s := range []string{"10fff008" + "00080000", "1001000800050000", "1001000a00080000" + "ffff"} {
		if _, _, err := ParseMessage(unhex(t, s)); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	long := &Message{Type: CallAbort, Attributes: []Attribute{{AttrStatus, make([]byte, MaxPacket)}}}
	if b, err := long.Append([]byte("x")); err == nil || string(b) != "x" {
		t.Errorf("a message over the limit: %d bytes, %v", len(b), err)
	}
	if _, err := AppendData(nil, make([]byte, MaxPacket-3)); err == nil {
		t.Error("a frame over the limit was taken")
	}
}

func TestStrings(t *testing.T) {
	var b Binding
	b.Hash, b.MAC = HashSHA1, [32]byte{0xab, 0xcd}
	for _, tc := range []struct {
		b    []byte
		want string
	}{
		{AppendStatus(nil, CallAbort, StatusInfo{AttrBinding, StatusValueNotSupported, nil}), "CALL_ABORT STATUS_INFO{CRYPTO_BINDING VALUE_NOT_SUPPORTED}"},
		{AppendConnectAck(nil, &BindingRequest{Hashes: HashSHA1 | HashSHA256}), "CALL_CONNECT_ACK CRYPTO_BINDING_REQ{SHA-1+SHA-256}"},
		{AppendConnected(nil, &b), "CALL_CONNECTED CRYPTO_BINDING{SHA-1 0000000000000000000000000000000000000000}"},
		{unhexs("1001000c" + "00990001" + "00770004"), "message type 153 attribute 119"},
	} {
		m, _, err := ParseMessage(tc.b)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.String(); got != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
	if (Key{1}).String() != (Key{2}).String() {
		t.Error("a key shows itself")
	}
}

func unhexs(s string) []byte { b, _ := hex.DecodeString(s); return b }

func FuzzParseMessage(f *testing.F) {
	f.Add(AppendConnectRequest(nil))
	f.Add(AppendConnectAck(nil, &BindingRequest{Hashes: HashSHA256}))
	f.Add(AppendConnected(nil, &Binding{Hash: HashSHA256}))
	f.Add(AppendStatus(nil, CallConnectNak, StatusInfo{AttrProtocol, StatusValueNotSupported, []byte{0, 2}}))
	f.Add(AppendControl(nil, EchoRequest))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, n, err := ParseMessage(b)
		if err != nil {
			if !errors.Is(err, ErrShort) && !errors.Is(err, ErrPacket) {
				t.Fatalf("error of an unknown kind: %v", err)
			}
			return
		}
		if n < controlLen || n > MaxPacket || n > len(b) {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		_ = m.String()
		again, err := m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		m2, _, err := ParseMessage(again)
		if err != nil {
			t.Fatalf("%x comes back as %x: %v", b[:n], again, err)
		}
		if d := cmp.Diff(m, m2); d != "" {
			t.Fatal(d)
		}
	})
}
