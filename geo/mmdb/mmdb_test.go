package mmdb_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/geo/mmdb"
)

func testdata(t testing.TB, name string) string {
	dir := os.Getenv("AOVLB_TESTDATA")
	if dir == "" {
		t.Skip("AOVLB_TESTDATA is not set: it names the folder with MaxMind's test databases")
	}
	return filepath.Join(dir, "geo", name)
}

func open(t testing.TB, name string) *mmdb.Database {
	t.Helper()
	d, err := mmdb.Open(testdata(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestPlaces(t *testing.T) {
	for _, c := range []struct{ db, addr, want string }{
		{"GeoIP2-City-Test.mmdb", "81.2.69.142", "{EU GB GB-ENG 0 {51.5142 -0.0931} true } 81.2.69.142/31"},
		{"GeoIP2-City-Test.mmdb", "216.160.83.57", "{NA US US-WA 0 {47.2513 -122.3149} true } 216.160.83.56/29"},
		{"GeoIP2-City-Test.mmdb", "2001:480:10::1", "{NA US US-CA 0 {32.7203 -117.1552} true } 2001:480:10::/48"},
		{"GeoIP2-City-Test.mmdb", "127.0.0.1", "{   0 {0 0} false } 127.0.0.0/8"},
		{"GeoIP2-Country-Test.mmdb", "81.2.69.142", "{EU GB  0 {0 0} false } 81.2.69.142/31"},
		{"GeoLite2-ASN-Test.mmdb", "1.128.0.1", "{   1221 {0 0} false } 1.128.0.0/11"},
	} {
		place, block := open(t, c.db).Locate(netip.MustParseAddr(c.addr))
		if got := fmt.Sprint(place, " ", block); got != c.want {
			t.Errorf("%s %s: got %s, want %s", c.db, c.addr, got, c.want)
		}
	}
}

func TestForms(t *testing.T) {
	for _, c := range []struct {
		record map[string]any
		want   string
	}{
		{city("EU", "DE", "BE", 52.5, 13.4), "{EU DE DE-BE 0 {52.5 13.4} true }"},
		{map[string]any{"country_code": "gb", "continent_code": "eu", "asn": "AS64500"}, "{EU GB  64500 {0 0} false }"},
		{map[string]any{"country_code": "GB", "asn": uint64(64501)}, "{ GB  64501 {0 0} false }"},
		{map[string]any{"registered_country": map[string]any{"iso_code": "US"}}, "{ US  0 {0 0} false }"},
		{map[string]any{"country": map[string]any{"iso_code": "US"}, "location": map[string]any{"latitude": 91.0, "longitude": 0.0}}, "{ US  0 {0 0} false }"},
		{map[string]any{"country": map[string]any{"iso_code": "US"}, "location": map[string]any{"latitude": 1.0}}, "{ US  0 {0 0} false }"},
		{map[string]any{"autonomous_system_number": uint32(1221)}, "{   1221 {0 0} false }"},
	} {
		d, err := mmdb.Parse(build("Test", []entry{{"81.2.69.0/24", c.record}}))
		if err != nil {
			t.Errorf("%v: %v", c.record, err)
			continue
		}
		place, block := d.Locate(netip.MustParseAddr("81.2.69.142"))
		if got := fmt.Sprint(place); got != c.want || block.String() != "81.2.69.0/24" {
			t.Errorf("%v: got %s of %v, want %s", c.record, got, block, c.want)
		}
	}
	if _, err := mmdb.Parse(build("Test-Domain", []entry{{"81.2.69.0/24", map[string]any{"domain": "example.com"}}})); !errors.Is(err, mmdb.ErrUnsuitable) {
		t.Errorf("a database of something else: %v", err)
	}
}

// TestBlocksAreTrue compares each block's ends with what is beyond.
func TestBlocksAreTrue(t *testing.T) {
	d := open(t, "GeoIP2-City-Test.mmdb")
	for a, n := netip.IPv4Unspecified(), 0; a.IsValid() && n < 100_000; n++ {
		place, block := d.Locate(a)
		if block.Masked() != block || block.Addr() != a {
			t.Fatalf("%v is in block %v, which begins elsewhere", a, block)
		}
		last := end(block)
		if p, b := d.Locate(last); p != place || b != block {
			t.Fatalf("%v ends with %v of %v", block, p, b)
		}
		a = last.Next()
	}
}

func end(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func TestMergedWithASNs(t *testing.T) {
	l := geo.Merge(open(t, "GeoIP2-City-Test.mmdb"), open(t, "GeoLite2-ASN-Test.mmdb"))
	p, _ := l.Locate(netip.MustParseAddr("1.128.0.1"))
	if p.ASN != 1221 {
		t.Errorf("got %+v", p)
	}
	plan, err := (&geo.Policy{Order: []geo.Criterion{geo.ByASN, geo.ByCountry, geo.ByDistance}}).Compile([]geo.Site{
		{Name: "a", Place: geo.Place{Country: "GB", ASN: 1221}, Gateways: []geo.Gateway{{Name: "g", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}},
		{Name: "b", Place: geo.Place{Country: "US"}, Gateways: []geo.Gateway{{Name: "g", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}}},
	}, l, nil)
	if err != nil {
		t.Fatal(err)
	}
	class, bits := plan.Class(netip.MustParseAddr("216.160.83.57"))
	if got := fmt.Sprint(plan.Rankings()[class].Tiers, bits); got != "[[1] [0]] 29" {
		t.Errorf("got %s", got)
	}
}

func TestReplacedUnderUse(t *testing.T) {
	good := build("Test-City", small)
	f := &mmdb.File{Name: filepath.Join(t.TempDir(), "city.mmdb")}
	london := netip.MustParseAddr("81.2.69.142")
	if p, b := f.Locate(london); p != (geo.Place{}) || b.Bits() != 0 {
		t.Errorf("before anything is read: %v %v", p, b)
	}
	write := func(data []byte, age time.Duration) {
		t.Helper()
		at := time.Now().Add(-age)
		if err := errors.Join(os.WriteFile(f.Name, data, 0o600), os.Chtimes(f.Name, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	write(good, time.Hour)
	if ok, err := f.Reload(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, err := f.Reload(); ok || err != nil {
		t.Error("read again though it has not changed:", ok, err)
	}
	for i, bad := range [][]byte{good[:len(good)/2], nil, bytes.Repeat([]byte{0xff}, 5000)} {
		write(bad, time.Duration(i)*time.Minute)
		if ok, err := f.Reload(); ok || err == nil {
			t.Errorf("damaged file %d was taken", i)
		}
		if p, _ := f.Locate(london); p.Country != "GB" {
			t.Errorf("after damaged file %d: %+v", i, p)
		}
	}
	write(good, 0)
	if ok, err := f.Reload(); !ok || err != nil {
		t.Error(ok, err)
	}
}

func BenchmarkLocate(b *testing.B) {
	d := open(b, "GeoIP2-City-Test.mmdb")
	a := netip.MustParseAddr("81.2.69.142")
	b.ReportAllocs()
	for b.Loop() {
		d.Locate(a)
	}
}

func FuzzParse(f *testing.F) {
	if dir := os.Getenv("AOVLB_TESTDATA"); dir != "" {
		for _, name := range []string{"GeoIP2-Country-Test.mmdb", "GeoLite2-ASN-Test.mmdb"} {
			if data, err := os.ReadFile(filepath.Join(dir, "geo", name)); err == nil {
				f.Add(data)
			}
		}
	}
	f.Add([]byte("\xab\xcd\xefMaxMind.com\xe0"))
	f.Add(build("Test-City", small))
	f.Add(build("Test-Country", []entry{{"81.2.69.0/24", map[string]any{"country_code": "GB", "asn": "AS64500"}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := mmdb.Parse(data)
		if err != nil {
			return
		}
		for _, a := range []string{"81.2.69.142", "2001:480:10::1", "::", "255.255.255.255"} {
			addr := netip.MustParseAddr(a)
			if _, block := d.Locate(addr); !block.Contains(addr) {
				t.Fatalf("%v is not in %v", addr, block)
			}
		}
	})
}

func ExampleFile() {
	f := &mmdb.File{Name: "GeoLite2-City.mmdb"}
	if _, err := f.Reload(); err != nil {
		place, _ := f.Locate(netip.MustParseAddr("192.0.2.1"))
		fmt.Println("no database, so it is nowhere that is known:", place.Country == "")
	}
	// Output: no database, so it is nowhere that is known: true
}
