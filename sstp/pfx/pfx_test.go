package pfx

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aovlb/aovlb/sstp"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "testdata", "certs", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	pem, err := sstp.ParseBundle(read(t, "leaf.pem"))
	if err != nil {
		t.Fatal(err)
	}
	want := sstp.FingerprintOf(pem.Certificates[0].Raw)
	for _, tt := range []struct {
		file, password string
		chain          int
	}{{"new.pfx", "hush", 1}, {"old.pfx", "hush", 1}, {"empty.pfx", "", 0}} {
		u, err := Parse(read(t, tt.file), tt.password)
		if err != nil {
			t.Errorf("%s: %v", tt.file, err)
			continue
		}
		c, err := sstp.NewCertificate(u)
		if err != nil || c.SHA256() != want || c.Key == nil || len(c.Chain) != tt.chain {
			t.Errorf("%s: got %+v, %v", tt.file, c, err)
		}
		if _, err := Parse(read(t, tt.file), "guess"); !errors.Is(err, ErrPassword) {
			t.Errorf("%s with another password: %v", tt.file, err)
		}
	}
	for _, bad := range [][]byte{nil, []byte("x"), read(t, "leaf.cer"), read(t, "new.pfx")[:500], make([]byte, sstp.MaxBundle+1)} {
		if _, err := Parse(bad, "hush"); err == nil {
			t.Errorf("%d bytes of something else are taken", len(bad))
		}
	}
}

// TestParseBoundsWork: a file can't keep a processor busy by the number of times it
// wants its password hashed, in whichever of its parts it says so.
func TestParseBoundsWork(t *testing.T) {
	for _, file := range []string{"new.pfx", "old.pfx", "empty.pfx"} {
		whole := read(t, file)
		n := work(whole, maxWork, 0)
		if n < 3*1000 || n > 3*10000 {
			t.Errorf("%s: %d iterations in all", file, n)
		}
		// Each of its numbers, one after the other, is made the largest of its size.
		found := 0
		for at := range whole {
			bad := bytes.Clone(whole)
			if !bytes.HasPrefix(bad[at:], []byte{2, 2, 8, 0}) { // INTEGER 2048
				continue
			}
			found++
			bad[at+2], bad[at+3] = 0x7f, 0xff
			if got := work(bad, maxWork, 0); got != n-2048+0x7fff {
				t.Errorf("%s: at %d %d iterations are counted, want %d", file, at, got, n-2048+0x7fff)
			}
			if _, err := parse(bad, "hush", 20000); err == nil || !strings.Contains(err.Error(), "20000 times") {
				t.Errorf("%s: at %d: %v", file, at, err)
			}
		}
		if found < 3 {
			t.Errorf("%s has %d numbers of iterations", file, found)
		}
	}
	for name, n := range map[string]*big.Int{"much": big.NewInt(maxWork + 1), "beyond 64 bits": new(big.Int).Lsh(big.NewInt(1), 100)} {
		b, err := asn1.Marshal(struct {
			Salt       []byte
			Iterations *big.Int
		}{[]byte("salt"), n})
		if err != nil {
			t.Fatal(err)
		}
		for depth := range 20 {
			if work(b, maxWork, 0) <= maxWork {
				t.Errorf("%s isn't noticed %d deep", name, depth)
			}
			if b, err = asn1.Marshal(asn1.RawValue{Tag: 4 + 12*(depth%2), IsCompound: depth%2 == 1, Bytes: b}); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Nor by its depth.
	deep := bytes.Repeat([]byte{0x30, 0x80}, sstp.MaxBundle/2)
	if _, err := Parse(deep, ""); err == nil {
		t.Error("nonsense is taken")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(read(f, "empty.pfx"))
	f.Add(read(f, "leaf.cer"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if len(b) < 4096 {
			_, _ = parse(b, "", 10_000) // fewer than usual, to be quick
		}
	})
}

func ExampleParse() {
	b, err := os.ReadFile("../testdata/certs/new.pfx")
	if err != nil {
		fmt.Println(err)
		return
	}
	u, err := Parse(b, "hush")
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := sstp.NewCertificate(u)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Leaf.DNSNames, c.SHA256())
	// Output: [vpn.example.com] ce7cd58c10d19a0915bf1a55b3343937c2afa04518fe2733237786926e25654e
}
