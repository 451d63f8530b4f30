package geo_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aovlb/aovlb/geo"
)

func TestReadNetworks(t *testing.T) {
	const table = "\ufeffprefix,Country,continent, name,latitude,longitude,asn,subdivision\n" +
		"# offices\n10.1.0.0/16,DE,EU,\"Berlin, Mitte\",52.5,13.4,AS64500,DE-BE\n2001:db8::/32,,,lab,,,,\n"
	list, err := geo.ReadNetworks(strings.NewReader(table), "offices.csv")
	if err != nil {
		t.Fatal(err)
	}
	want := "[{10.1.0.0/16 {EU DE DE-BE 64500 {52.5 13.4} true Berlin, Mitte}} {2001:db8::/32 {   0 {0 0} false lab}}]"
	if got := fmt.Sprint(list); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestBadNetworks(t *testing.T) {
	for _, c := range []struct{ table, want string }{
		{"", "n.csv: it is empty"},
		{"network,country\n", `column "network" is unknown`},
		{"country\nDE\n", "no column prefix"},
		{"prefix,prefix\n", "twice"},
		{"prefix,country\n10.0.0.0/8,Germany\n", `n.csv:2: country: "Germany" is not 2 capital letters`},
		{"prefix\n10.0.0.1/8\n", "n.csv:2: prefix: 10.0.0.1/8 has bits"},
		{"prefix\n10.0.0.0\n", "n.csv:2: prefix: "},
		{"prefix,asn\n10.0.0.0/8,x\n", "n.csv:2: asn: "},
		{"prefix,latitude\n10.0.0.0/8,1\n", "need each other"},
		{"prefix,latitude,longitude\n10.0.0.0/8,91,0\n", "is no place"},
		{"prefix,latitude,longitude\n10.0.0.0/8,NaN,0\n", "is no place"},
		{"prefix,country\n10.0.0.0/8\n", "wrong number of fields"},
		{"prefix,country\n,DE\n", "there is no prefix"},
		{"prefix,subdivision\n10.0.0.0/8,Bavaria\n", "not like US-WA"},
	} {
		if list, err := geo.ReadNetworks(strings.NewReader(c.table), "n.csv"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, %v, want %q", c.table, list, err, c.want)
		}
	}
}

func FuzzReadNetworks(f *testing.F) {
	f.Add("prefix,country\n10.0.0.0/8,DE\n")
	f.Add("prefix,name,latitude,longitude\n2001:db8::/32,\"a\"\"b\",1,2\n# c\n")
	f.Fuzz(func(t *testing.T, table string) {
		list, err := geo.ReadNetworks(strings.NewReader(table), "n")
		if err != nil {
			return
		}
		n, err := geo.NewNetworks(list...)
		if err != nil {
			return // there twice
		}
		for _, w := range list {
			if _, block := n.Locate(w.Prefix.Addr()); !w.Prefix.Contains(block.Addr()) && !block.Contains(w.Prefix.Addr()) {
				t.Fatalf("%v is located in %v", w.Prefix, block)
			}
		}
	})
}
