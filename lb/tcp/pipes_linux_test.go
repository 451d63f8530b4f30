package tcp

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestPipes checks that big pipes are few, and used before small ones.
func TestPipes(t *testing.T) {
	p := new(pipes)
	defer p.close()
	take := func() pipe {
		t.Helper()
		x, err := p.get()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	var all []pipe
	for i := range maxBig + 2 {
		x := take()
		if i == 0 && !x.big {
			t.Skip("big pipes can't be had here")
		}
		size, err := unix.FcntlInt(uintptr(x.r), unix.F_GETPIPE_SZ, 0)
		if err != nil || x.big != (i < maxBig) || x.big != (size == spliceMax) {
			t.Errorf("pipe %d has %d bytes, %v; big is %v", i, size, err, x.big)
		}
		all = append(all, x)
	}
	for _, x := range all {
		p.put(x)
	}
	if x := take(); !x.big {
		t.Error("a small pipe was taken though there is a big one")
	} else {
		p.drop(x)
	}
	if len(p.big) != maxBig-1 || len(p.small) != 2 || p.made != maxBig-1 {
		t.Errorf("%d big, %d small, %d made", len(p.big), len(p.small), p.made)
	}
	for range maxBig { // one is made anew
		x := take()
		if !x.big {
			t.Error("no big pipe was made for the one that was dropped")
		}
		defer p.drop(x)
	}
}

// TestPipesRefused has a kernel that makes no big pipe.
func TestPipesRefused(t *testing.T) {
	p := &pipes{made: maxBig}
	defer p.close()
	x, err := p.get()
	if err != nil || x.big {
		t.Fatalf("%+v, %v", x, err)
	}
	p.put(x)
	again, err := p.get()
	if err != nil || again != x {
		t.Errorf("%+v, %v; want the pipe that was put back, %+v", again, err, x)
	}
	p.put(again)
}
