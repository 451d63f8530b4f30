package udp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func cmsg(level, typ int32, data ...byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	d, _ := putCmsg(b, level, typ, len(data))
	copy(d, data)
	return b
}

func FuzzControl(f *testing.F) {
	var b [64]byte
	f.Add(b[:putPktinfo(b[:], netip.MustParseAddr("192.0.2.1"), 3, false)])
	f.Add(b[:putPktinfo(b[:], netip.MustParseAddr("fe80::1"), 3, true)])
	f.Add(b[:putSegment(b[:], 1400)])
	f.Add(append(cmsg(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1, 2, 3, 4), cmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, make([]byte, 12)...)...))
	f.Add(cmsg(unix.IPPROTO_IP, unix.IP_RECVERR, make([]byte, 32)...))
	f.Add(cmsg(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, 1)) // too short
	f.Add(append(cmsg(unix.IPPROTO_UDP, unix.UDP_GRO, 0x78, 5, 0, 0), cmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, make([]byte, 12)...)...))
	f.Add(cmsg(unix.IPPROTO_UDP, unix.UDP_GRO, 1, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		// The kernel's buffers are aligned.
		words := make([]uint64, len(b)/8+1)
		in := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*8)[:len(b)]
		copy(in, b)
		a, e := parseArrival(in), parseError(in)
		// The slow way to the same: x/sys's parser, which gives up at the
		// first message that isn't whole.
		msgs, err := unix.ParseSocketControlMessage(in)
		if err != nil {
			return
		}
		var want arrival
		var wantErr unix.Errno
		for _, m := range msgs {
			h := m.Header
			switch {
			case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(m.Data) >= 4:
				want.segment = int(uint16(binary.NativeEndian.Uint32(m.Data)))
			case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
				want.addr, want.to = netip.AddrFrom4([4]byte(m.Data[8:12])).As16(), true
				want.ifindex = binary.NativeEndian.Uint32(m.Data)
			case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(m.Data) >= 20:
				want.addr, want.to = [16]byte(m.Data[:16]), true
				want.ifindex = binary.NativeEndian.Uint32(m.Data[16:])
			case wantErr == 0 && len(m.Data) >= 4 &&
				(h.Level == unix.IPPROTO_IP && h.Type == unix.IP_RECVERR || h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_RECVERR):
				wantErr = unix.Errno(binary.NativeEndian.Uint32(m.Data))
			}
		}
		if a != want {
			t.Errorf("parseArrival(%x) = %+v, want %+v", b, a, want)
		}
		if e != wantErr {
			t.Errorf("parseError(%x) = %v, want %v", b, e, wantErr)
		}
	})
}

// However much the kernel says it has merged, the datagrams cut off are all there is.
func FuzzCut(f *testing.F) {
	f.Add([]byte("abcdefg"), 3)
	f.Add([]byte{}, 0)
	f.Add([]byte("abc"), 0)
	f.Add([]byte("abc"), 0xffff)
	f.Fuzz(func(t *testing.T, all []byte, size int) {
		size &= 0xffff
		var w worker
		n, got := uint64(0), []byte{}
		for b := all; ; n++ {
			var d []byte
			d, b = cutOne(b, size)
			if len(b) > 0 && len(d) != size || cap(d) != len(d) {
				t.Fatalf("cut %d of %d, of size %d", len(d), len(all), size)
			}
			if got = append(got, d...); len(b) == 0 {
				break
			}
		}
		if n++; n != w.datagrams(all, size) || !bytes.Equal(got, all) {
			t.Errorf("%d datagrams, %x", n, got)
		}
		if (n > 1) != (w.shard.counters.merged.Load() == 1) {
			t.Errorf("%d counted as merged", w.shard.counters.merged.Load())
		}
	})
}

// Whatever is received in pieces, judged, put in runs and sent in trains, the kernel
// makes the same datagrams of it again.
func FuzzRuns(f *testing.F) {
	f.Add([]byte{16, 100, 7, 0xff, 1, 0, 0, 0xff, 60, 100, 0, 0x5b})
	f.Add([]byte{255, 1, 1, 0xff, 255, 1, 0, 0xff, 70, 255, 9, 0xfe})
	f.Add([]byte{3, 10, 0, 0xff, 3, 10, 5, 0xff, 3, 10, 0, 0xff, 3, 9, 0, 0xff})
	s, err := newSlab()
	if err != nil {
		f.Fatal(err)
	}
	for i := range s[:4*slotSize] {
		s[i] = byte(i * 7 / 5)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var want [][]byte
		var runs []run
		for i := 0; i < batch && len(in) >= 4; i, in = i+1, in[4:] {
			count, size, last, keep := int(in[0]), int(in[1])*256/(int(in[0])+1), int(in[2]), in[3]
			b := s.at(i, min(count*size+min(last, size), maxDatagram))
			for j := 0; ; j++ {
				var d []byte
				d, b = cutOne(b, size)
				if keep>>(j%8)&1 != 0 {
					want = append(want, d)
					if n := len(runs); n == 0 || !runs[n-1].extend(d) {
						runs = append(runs, run{b: d, size: len(d), n: 1})
					}
				}
				if len(b) == 0 {
					break
				}
			}
		}
		var o trains
		o.init()
		check := func() {
			for i := range o.n {
				var all []byte
				for _, v := range unsafe.Slice(o.hdr[i].Iov, o.hdr[i].Iovlen) {
					all = append(all, unsafe.Slice(v.Base, v.Len)...)
				}
				if o.count[i] > maxSegments || o.count[i] > 1 && len(all) > maxTrain || (o.count[i] > 1) != (o.hdr[i].Controllen > 0) {
					t.Fatalf("a train of %d, with %d bytes", o.count[i], len(all))
				}
				for range o.count[i] {
					var d []byte
					if d, all = cutOne(all, o.size[i]); !bytes.Equal(d, want[0]) {
						t.Fatalf("a datagram of %d bytes, want %d", len(d), len(want[0]))
					}
					want = want[1:]
				}
				if len(all) > 0 {
					t.Fatalf("%d bytes more than %d datagrams", len(all), o.count[i])
				}
				if n := 0; o.count[i] > 1 {
					for range o.datagrams(i) {
						n++
					}
					if n != o.count[i] {
						t.Fatalf("%d datagrams one by one, want %d", n, o.count[i])
					}
				}
			}
			o.n, o.iovs = 0, 0
		}
		for _, r := range runs {
			if o.join(r.b, r.size, r.n, 0) {
				continue
			}
			if o.crowded() {
				check()
			}
			o.begin(r.b, r.size, r.n, 0, false)
		}
		check()
		if len(want) != 0 {
			t.Errorf("%d datagrams are missing", len(want))
		}
	})
}

func TestRawAddr(t *testing.T) {
	for _, c := range []struct {
		addr string
		v6   bool
	}{
		{"192.0.2.1:4500", false}, {"192.0.2.1:4500", true}, {"[2001:db8::1]:500", true}, {"[fe80::1%7]:65535", true},
	} {
		a := netip.MustParseAddrPort(c.addr)
		k := keyOf(a, 3)
		sa, size := rawAddr(a, k.zone, c.v6)
		if got := keyOfRaw(&sa, 3); got != k {
			t.Errorf("%v: raw key %+v, want %+v", a, got, k)
		}
		if got := k.client(); got != a {
			t.Errorf("%v comes back as %v", a, got)
		}
		if (size == unix.SizeofSockaddrInet6) != c.v6 {
			t.Errorf("%v: size %d", a, size)
		}
		to, _ := toSockaddr(a)
		if got := fromSockaddr(to); got != a {
			t.Errorf("%v comes back from Sockaddr as %v", a, got)
		}
	}
}
