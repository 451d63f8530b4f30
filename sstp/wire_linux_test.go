package sstp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// wirePair returns a wire that says when it is dry, and its other end.
func wirePair(t *testing.T) (*wire, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err1 := net.Dial("tcp", l.Addr().String())
	near, err2 := l.Accept()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close(); near.Close() })
	near.SetDeadline(time.Now().Add(10 * time.Second))
	w := newWire(near)
	if w.raw == nil {
		t.Fatal("a TCP connection can't be waited for")
	}
	w.dries = true
	return w, far.(*net.TCPConn)
}

// take waits, and reads once.
func (w *wire) takeTest(t *testing.T, n int) (string, error) {
	t.Helper()
	if err := w.wait(); err != nil {
		return "", err
	}
	b := make([]byte, n)
	n, err := w.Read(b)
	return string(b[:n]), err
}

func TestWire(t *testing.T) {
	w, far := wirePair(t)
	if n, err := w.Read(make([]byte, 10)); n != 0 || !isDry(err) {
		t.Fatalf("nothing is there: %d, %v", n, err)
	}
	far.Write([]byte("one"))
	if got, err := w.takeTest(t, 10); got != "one" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	// What is there already must not be waited for, nor lose a byte or its order.
	far.Write([]byte("another"))
	time.AfterFunc(50*time.Millisecond, func() { far.Write([]byte(" and more")) })
	got := ""
	for len(got) < len("another and more") {
		more, err := w.takeTest(t, 4)
		if err != nil {
			t.Fatal(err)
		}
		got += more
	}
	if got != "another and more" {
		t.Errorf("%q", got)
	}
	// To wait twice takes one byte, once.
	far.Write([]byte("xyz"))
	if err := errors.Join(w.wait(), w.wait()); err != nil {
		t.Fatal(err)
	}
	if got, err := w.takeTest(t, 1); got != "x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := w.takeTest(t, 9); got != "yz" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	far.Write([]byte("last"))
	far.Close()
	if got, err := w.takeTest(t, 9); got != "last" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := w.takeTest(t, 9); got != "" || err != io.EOF {
		t.Errorf("at the end %q, %v", got, err)
	}
}

// TestWireReset: that a connection was reset must not be lost on those who only wait.
func TestWireReset(t *testing.T) {
	w, far := wirePair(t)
	far.SetLinger(0)
	far.Close()
	if _, err := w.takeTest(t, 9); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v", err)
	}
	w, _ = wirePair(t)
	w.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if err := w.wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestWireCork: what is corked is one write, and what isn't goes at once.
func TestWireCork(t *testing.T) {
	w, far := wirePair(t)
	far.SetDeadline(time.Now().Add(10 * time.Second))
	var want []byte
	write := func(b []byte) {
		if n, err := w.Write(b); n != len(b) || err != nil {
			t.Fatal(n, err)
		}
		want = append(want, b...)
	}
	write([]byte("before "))
	w.cork()
	for i := range 5 {
		write(bytes.Repeat([]byte{byte('a' + i)}, maxPayload))
	}
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	write([]byte(" after"))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, %d bytes", err, len(got))
	}
}

// FuzzRecords: in whatever pieces records come, they are counted as in one.
func FuzzRecords(f *testing.F) {
	f.Add([]byte{23, 3, 3, 0, 2, 1, 2, 21, 3, 3, 0, 0}, byte(1))
	f.Add([]byte{22, 3, 1, 255, 255, 0}, byte(3))
	f.Add([]byte{}, byte(0))
	f.Fuzz(func(t *testing.T, b []byte, piece byte) {
		n, rest := 0, b
		for len(rest) >= recordHeader && len(rest) >= recordHeader+int(rest[3])<<8+int(rest[4]) {
			rest = rest[recordHeader+int(rest[3])<<8+int(rest[4]):]
			n++
		}
		var r records
		for left := b; len(left) > 0; {
			k := min(len(left), int(piece)%7+1)
			r.count(left[:k])
			left = left[k:]
		}
		if r.n != n || r.whole() != (len(rest) == 0) {
			t.Errorf("%d records, whole %v; want %d, %d bytes left", r.n, r.whole(), n, len(rest))
		}
	})
}
