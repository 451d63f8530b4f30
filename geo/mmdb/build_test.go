package mmdb_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"maps"
	"math"
	"net/netip"
	"os"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew")

// entry is a network and its record. A record is a value, or a map of such.
type entry struct {
	net    string
	record map[string]any
}

// small is a database with records of every form that matters.
var small = []entry{
	{"81.2.69.0/24", city("EU", "GB", "ENG", 51.5, -0.1)},
	{"89.160.20.0/24", city("EU", "SE", "E", 58.4, 15.6)},
	{"216.160.83.56/29", city("NA", "US", "WA", 47.3, -122.3)},
	{"2.125.160.216/29", city("EU", "GB", "", 51.8, -1.3)},
	{"175.16.199.0/24", city("AS", "CN", "", 43.9, 125.3)},
	{"2a02:d180::/29", city("EU", "DE", "BE", 52.5, 13.4)},
	{"2001:480:10::/48", map[string]any{"registered_country": map[string]any{"iso_code": "US"}}},
	{"1.128.0.0/11", map[string]any{"autonomous_system_number": uint32(1221), "autonomous_system_organization": "Telstra Pty Ltd"}},
}

func city(continent, country, sub string, lat, lon float64) map[string]any {
	m := map[string]any{
		"continent": map[string]any{"code": continent},
		"country":   map[string]any{"iso_code": country},
		"location":  map[string]any{"latitude": lat, "longitude": lon},
	}
	if sub != "" {
		m["subdivisions"] = []any{map[string]any{"iso_code": sub}}
	}
	return m
}

// build makes a database in MaxMind's form: a binary tree of all addresses, IPv4
// at ::/96, whose leaves point to records. Its nodes have records of 24 bits.
func build(typ string, list []entry) []byte {
	type node struct{ child [2]int } // 0 none, less: ^offset of data
	nodes := []node{{}}
	var data bytes.Buffer
	for _, e := range list {
		p := netip.MustParsePrefix(e.net)
		addr, n := p.Addr().As16(), p.Bits()
		if p.Addr().Is4() {
			copy(addr[:12], make([]byte, 12))
			n += 96
		}
		at := 0
		for i := range n {
			b := addr[i/8] >> (7 - i%8) & 1
			if i == n-1 {
				nodes[at].child[b] = ^data.Len()
				break
			}
			if nodes[at].child[b] == 0 {
				nodes = append(nodes, node{})
				nodes[at].child[b] = len(nodes) - 1
			}
			at = nodes[at].child[b]
		}
		encode(&data, e.record)
	}
	var out bytes.Buffer
	for _, n := range nodes {
		for _, c := range n.child {
			switch {
			case c == 0:
				c = len(nodes)
			case c < 0:
				c = len(nodes) + 16 + ^c
			}
			out.Write([]byte{byte(c >> 16), byte(c >> 8), byte(c)})
		}
	}
	out.Write(make([]byte, 16))
	out.Write(data.Bytes())
	out.WriteString("\xab\xcd\xefMaxMind.com")
	encode(&out, map[string]any{
		"binary_format_major_version": uint16(2), "binary_format_minor_version": uint16(0), "build_epoch": uint64(1_780_000_000),
		"database_type": typ, "description": map[string]any{"en": "made for tests"}, "ip_version": uint16(6), "languages": []any{"en"},
		"node_count": uint32(len(nodes)), "record_size": uint16(24),
	})
	return out.Bytes()
}

// encode appends a value of the data section.
func encode(w *bytes.Buffer, v any) {
	control := func(typ, size int) {
		first, ext := typ<<5, -1
		if typ > 7 {
			first, ext = 0, typ-7
		}
		w.WriteByte(byte(first | min(size, 29)))
		if ext >= 0 {
			w.WriteByte(byte(ext))
		}
		if size >= 29 {
			w.WriteByte(byte(size - 29))
		}
	}
	number := func(typ int, v uint64) {
		b := bytes.TrimLeft(binary.BigEndian.AppendUint64(nil, v), "\x00")
		control(typ, len(b))
		w.Write(b)
	}
	switch v := v.(type) {
	case string:
		control(2, len(v))
		w.WriteString(v)
	case float64:
		control(3, 8)
		w.Write(binary.BigEndian.AppendUint64(nil, math.Float64bits(v)))
	case uint16:
		number(5, uint64(v))
	case uint32:
		number(6, uint64(v))
	case uint64:
		number(9, v)
	case map[string]any:
		control(7, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			encode(w, k)
			encode(w, v[k])
		}
	case []any:
		control(11, len(v))
		for _, e := range v {
			encode(w, e)
		}
	}
}

// TestSmall keeps testdata/small.mmdb, which other packages' tests read, as it is
// built here.
func TestSmall(t *testing.T) {
	const file = "testdata/small.mmdb"
	want := build("Test-City", small)
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what build makes (%v): go test -run TestSmall -update", file, err)
	}
}
