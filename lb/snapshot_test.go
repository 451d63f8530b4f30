package lb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc64"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newBalancer(t, "a", "b", "gone")
		at := func(i byte) Flow { return flow(netip.AddrFrom4([4]byte{192, 0, 2, i}).String(), 500, 500) }
		old.Answered(old.member(t, "gone"), at(9), StageEstablished, WhyPicked, spi(99))
		old.Answered(old.member(t, "a"), at(1), StageEstablished, WhyPicked, spi(1), FlowKey(at(1)))
		time.Sleep(20 * time.Minute)
		old.Answered(old.member(t, "b"), at(2), StageEstablished, WhyHint, spi(2), FlowKey(at(2)), spi(20))
		old.Answered(old.member(t, "b"), at(2), StageHalfOpen, WhyHint, spi(3))
		var buf bytes.Buffer
		if n, err := old.Snapshot(&buf); n != 4 || err != nil {
			t.Fatalf("wrote %d clients: %v", n, err)
		}
		time.Sleep(time.Minute) // the program is away

		b := newBalancer(t, "b", "c", "a")
		restored, skipped, err := b.Restore(bytes.NewReader(buf.Bytes()))
		if restored != 2 || skipped != 2 || err != nil {
			t.Fatalf("restored %d, skipped %d: %v", restored, skipped, err)
		}
		for _, c := range []struct {
			k     Key
			at    string
			names int
		}{{spi(1), "a", 2}, {FlowKey(at(2)), "b", 3}} {
			got, ok := b.Table.Lookup(c.k)
			if !ok || got.Backend != b.member(t, c.at).ID || len(got.Names) != c.names || got.Why != WhyRestored {
				t.Errorf("%v: %+v, want at %s", c.k, got, c.at)
			}
		}
		if err := b.Table.check(); err != nil {
			t.Error(err)
		}
		if r, s, err := b.Restore(bytes.NewReader(buf.Bytes())); r != 0 || s != 4 || err != nil {
			t.Errorf("a second time: restored %d, skipped %d: %v", r, s, err)
		}
		// The silence before counts: client 1 has been silent for 21 minutes.
		time.Sleep(14*time.Minute + time.Second)
		if _, ok := b.Table.Lookup(spi(1)); ok {
			t.Error("a restored client was given its whole time again")
		}
		if _, ok := b.Table.Lookup(spi(2)); !ok {
			t.Error("a restored client went before its time")
		}
	})
}

func TestRestoreDamaged(t *testing.T) {
	b := newBalancer(t, "a", "b")
	f := flow("192.0.2.1", 500, 500)
	b.Answered(b.member(t, "a"), f, StageEstablished, WhyPicked, spi(1), FlowKey(f))
	var buf bytes.Buffer
	if _, err := b.Snapshot(&buf); err != nil {
		t.Fatal(err)
	}
	good := buf.Bytes()
	fresh := newBalancer(t, "a", "b")
	for n := range good {
		if _, _, err := fresh.Restore(bytes.NewReader(good[:n])); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("cut off at %d: %v", n, err)
		}
		bad := bytes.Clone(good)
		bad[n] ^= 0x41
		if _, _, err := fresh.Restore(bytes.NewReader(bad)); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("damaged at %d: %v", n, err)
		}
	}
	if n := fresh.Table.Stats().Clients; n != 0 {
		t.Errorf("damaged snapshots left %d clients", n)
	}
}

func FuzzRestore(f *testing.F) {
	b := newBalancer(f, "a", "b")
	fl := flow("192.0.2.1", 500, 500)
	b.Answered(b.member(f, "a"), fl, StageEstablished, WhyPicked, spi(1), FlowKey(fl))
	b.Answered(b.member(f, "b"), fl, StageHalfOpen, WhyPicked, spi(2))
	var buf bytes.Buffer
	b.Snapshot(&buf)
	f.Add(buf.Bytes()[:buf.Len()-8])
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, body []byte) {
		// A right checksum, or nothing behind it would be reached.
		data := binary.BigEndian.AppendUint64(bytes.Clone(body), crc64.Checksum(body, crcTable))
		b := newBalancer(t, "a", "b")
		restored, _, err := b.Restore(bytes.NewReader(data))
		if err != nil && (restored != 0 || !errors.Is(err, ErrSnapshot)) {
			t.Fatalf("restored %d with %v", restored, err)
		}
		if err := b.Table.check(); err != nil {
			t.Fatal(err)
		}
		if n := b.Table.Stats().Clients; n > restored {
			t.Fatalf("%d clients of %d restored", n, restored)
		}
	})
}

func BenchmarkSnapshot(b *testing.B) {
	const n = 1 << 17
	bal := newBalancer(b, "a", "b")
	for i := range uint64(n) {
		f := Flow{Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 500), Service: 4500}
		bal.Answered(bal.member(b, "a"), f, StageEstablished, WhyPicked, spi(i), FlowKey(f))
	}
	b.ReportAllocs()
	var buf bytes.Buffer
	for b.Loop() {
		buf.Reset()
		if _, err := bal.Snapshot(&buf); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(buf.Len())/n, "B/client")
}

func TestRestoreNameless(t *testing.T) {
	old := newBalancer(t, "a")
	m := old.member(t, "a")
	f := flow("192.0.2.1", 500, 500)
	old.Answered(m, f, StageEstablished, WhyPicked, spi(1))
	var buf bytes.Buffer
	if _, err := old.Snapshot(&buf); err != nil {
		t.Fatal(err)
	}
	data := buf.Bytes()
	// Another name is at the same place already, so nothing is left.
	name := len(data) - 9 - keyLen
	clear(data[name : name+keyLen])
	reseal(data)
	b := newBalancer(t, "a")
	if restored, skipped, err := b.Restore(bytes.NewReader(data)); restored != 0 || skipped != 1 || err != nil {
		t.Errorf("restored %d, skipped %d: %v", restored, skipped, err)
	}
	if n := b.member(t, "a").Clients(); n != 0 {
		t.Errorf("%d clients without a name are counted", n)
	}
}

func TestRestoreAncient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newBalancer(t, "a")
		old.Answered(old.member(t, "a"), flow("192.0.2.1", 500, 500), StageEstablished, WhyPicked, spi(1))
		time.Sleep(time.Second)
		var buf bytes.Buffer
		if _, err := old.Snapshot(&buf); err != nil {
			t.Fatal(err)
		}
		data := buf.Bytes()
		for i := range 8 { // made at the earliest time there is
			data[len(snapshotMagic)+i] = 0
		}
		data[len(snapshotMagic)] = 0x80
		reseal(data)
		b := newBalancer(t, "a")
		if restored, _, err := b.Restore(bytes.NewReader(data)); restored != 0 || err != nil {
			t.Errorf("restored %d clients of long ago: %v", restored, err)
		}
	})
}

// reseal makes the checksum of a changed snapshot right.
func reseal(data []byte) {
	body := data[:len(data)-8]
	binary.BigEndian.PutUint64(data[len(body):], crc64.Checksum(body, crcTable))
}
