package lb

import (
	"net/netip"
	"strings"
	"testing"
)

func TestKeyNames(t *testing.T) {
	f6 := Flow{Client: netip.MustParseAddrPort("[2001:db8::7]:4500"), Service: 500}
	for _, c := range []struct {
		k    Key
		want string
	}{
		{Key{}, "nobody"},
		{AddrKey(netip.Addr{}), "nobody"},
		{FlowKey(Flow{Service: 4500}), "nobody"},
		{AddrKey(netip.MustParseAddr("192.0.2.7")), "192.0.2.7"},
		{AddrKey(netip.MustParseAddr("::ffff:192.0.2.7")), "192.0.2.7"},
		{AddrKey(netip.MustParseAddr("fe80::1%eth0")), "fe80::1"},
		{FlowKey(flow("192.0.2.7", 1024, 4500)), "192.0.2.7:1024>4500"},
		{FlowKey(f6), "[2001:db8::7]:4500>500"},
		{Uint64Key(17, 0xabcdef), "17:0000000000abcdef"},
		{NewKey(18, [16]byte{1, 15: 2}), "18:01000000000000000000000000000002"},
	} {
		if got := c.k.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	if got := FlowKey(f6).Flow(); got != f6 {
		t.Errorf("flow of its key: %v, want %v", got, f6)
	}
	if Uint64Key(16, 1).Addr().IsValid() || (AddrKey(netip.MustParseAddr("::1")).Flow() != Flow{}) {
		t.Error("a key of another space has an address or a flow")
	}
}

func TestHashKey(t *testing.T) {
	long := []byte(strings.Repeat("x", 300))
	seen := make(map[Key]string)
	for _, c := range [][]string{
		{},
		{""},
		{"", ""},
		{"a"},
		{"a", ""},
		{"", "a"},
		{"a", "b"},
		{"ab"},
		{"ab", ""},
		{string(long)},
		{string(long), "a"},
		{"a", string(long)},
		{string(long[:255])},
		{string(long[:254])},
		{string(long), string(long)},
		{string(long[:200]), string(long[:200])},
		{string(long[:200]), string(long[:199])},
	} {
		parts := make([][]byte, len(c))
		for i := range c {
			parts[i] = []byte(c[i])
		}
		k := HashKey(20, parts...)
		if was, ok := seen[k]; ok {
			t.Errorf("%q and %q have the same key", was, c)
		}
		seen[k] = strings.Join(c, "|")
		if k != HashKey(20, parts...) || k == HashKey(21, parts...) || k.Space() != 20 {
			t.Errorf("%q: the key isn't stable, or not of its space", c)
		}
	}
}

// Keys are the same names that FlowKey and AddrKey give.
func TestFlowKeys(t *testing.T) {
	for _, s := range []string{"192.0.2.1:500", "[2001:db8::1%eth0]:4500", "[::ffff:192.0.2.1]:1"} {
		f := Flow{Client: netip.MustParseAddrPort(s), Service: 4500}
		if flow, client := f.Keys(); flow != FlowKey(f) || client != AddrKey(f.Client.Addr()) {
			t.Errorf("%s: %v, %v", s, flow, client)
		}
	}
	if flow, client := (Flow{}).Keys(); !flow.IsZero() || !client.IsZero() {
		t.Errorf("%v, %v", flow, client)
	}
}
