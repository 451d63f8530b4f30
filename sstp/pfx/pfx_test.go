package pfx

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

func FuzzParse(f *testing.F) {
	f.Add(read(f, "empty.pfx"))
	f.Add(read(f, "leaf.cer"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if len(b) < 4096 {
			_, _ = Parse(b, "")
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
