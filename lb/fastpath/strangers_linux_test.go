package fastpath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

// strangersHere has strangers be handed on to processors, by XDP, that come in by va.
func (x *bench) strangersHere(on ...int) {
	x.t.Helper()
	x.p.c.StrangersOn, x.p.c.At = on, []netip.AddrPort{ap("192.0.2.1:500"), ap("[2001:db8:1::1]:4500")}
	if err := x.p.handOn(); err != nil {
		x.t.Fatal(err)
	}
	x.p.devices[x.a*deviceSize+14] = 1
}

// Of what comes to listeners' ports, only what is of no flow is handed on, unchanged.
func TestStrangers(t *testing.T) {
	x := newBench(t)
	x.enableXDP()
	x.carry(natFlow4)
	x.carry(natFlow6)
	x.strangersHere(0)
	handed := uint64(0)
	for _, c := range []struct {
		name string
		want uint32
		edit func(*packet)
	}{
		{"a flow's", ranRedirect, func(*packet) {}},
		{"control of a flow", ranPass, func(p *packet) { copy(p.b, make([]byte, 4)) }},
		{"a flow's new SPI", ranPass, func(p *packet) { p.b[0]++ }},
		{"a stranger", ranSend, func(p *packet) { p.src = netip.AddrPortFrom(p.src.Addr(), 99) }},
		{"a stranger to port 500", ranSend, func(p *packet) { p.dst = netip.AddrPortFrom(p.dst.Addr(), 500) }},
		{"a stranger with a tag", ranSend, func(p *packet) { p.src, p.vlan = netip.AddrPortFrom(p.src.Addr(), 99), 7 }},
		{"a stranger to another service", ranPass, func(p *packet) { p.dst = netip.AddrPortFrom(p.dst.Addr(), 501) }},
		{"a stranger to another machine", ranPass, func(p *packet) { p.src, p.to = netip.AddrPortFrom(p.src.Addr(), 99), macG }},
		{"TCP", ranPass, func(p *packet) { p.proto = 6 }},
		{"a fragment", ranPass, func(p *packet) {
			if p.src.Addr().Is4() {
				p.frag = 0x2000
			} else {
				p.proto = 44
			}
		}},
	} {
		for _, d := range []direction{directions(natFlow4)[0], directions(natFlow6)[0]} {
			p := d.in
			c.edit(&p)
			want := c.want
			if want == ranSend { // here: handed on
				want = ranRedirect
				handed++
			}
			ret, out := x.xdp(p.bytes(), x.a)
			if ret != want || (ret == ranPass || c.want == ranSend) && !bytes.Equal(out, p.bytes()) {
				t.Errorf("%s, from %v: returned %d, want %d, or it was changed", c.name, p.src, ret, want)
			}
			if got := x.p.Stats().Handed; got != handed {
				t.Fatalf("%s, from %v: %d were handed on, want %d", c.name, p.src, got, handed)
			}
		}
	}
	stranger := directions(natFlow4)[0].in
	stranger.src = ap("192.0.2.200:99")
	want := func(what string, handed bool) {
		t.Helper()
		if ret, _ := x.xdp(stranger.bytes(), x.a); (ret == ranRedirect) != handed {
			t.Errorf("%s: returned %d", what, ret)
		}
	}
	want("at first", true)
	x.p.Watch([]netip.AddrPort{ap("192.0.2.1:4501")}, nil)
	want("with listeners elsewhere", false)
	x.p.Watch([]netip.AddrPort{ap("192.0.2.1:4500")}, nil)
	want("with them again", true)
	x.p.devices[x.a*deviceSize+14] = 0
	want("by a device where that can't be", false)
	x.strangersHere()
	want("without processors", false)
	// The kernel has a processor's number only while it is wanted.
	var v uint32
	if err := x.p.maps.Processors.Lookup(uint32(0), &v); err == nil {
		t.Errorf("processor 0 is still there")
	}
	x.strangersHere(0)
	if binary.NativeEndian.Uint32(x.p.devices[x.a*deviceSize:]) != x.a {
		t.Error("the device's entry isn't what the test takes it for")
	}
	want("with one again", true)
}

func TestInList(t *testing.T) {
	for list, want := range map[string][]int{"0": {0}, "0-3,8": {0, 1, 2, 3, 8}, "": nil, "2-1": nil, "x-4": nil} {
		var got []int
		for n := range 10 {
			if inList(list, n) {
				got = append(got, n)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%q: %v, want %v", list, got, want)
		}
	}
}
