package tcp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/tcp"
)

// childEnv makes the test binary an engine in a process of its own: its value is
// where it listens and where its backend is, both an address and port, and perhaps
// "transparent" or "impatient", separated by spaces. It prints where it listens.
const childEnv = "AOVLB_TCP_CHILD"

func child(spec string) error {
	words := strings.Fields(spec)
	at, err1 := netip.ParseAddrPort(words[0])
	backend, err2 := netip.ParseAddrPort(words[1])
	l, err3 := (&tcp.ListenConfig{}).Listen(context.Background(), at)
	pool := new(lb.Pool)
	err4 := pool.Set(lb.Backend{Name: "b1", Addr: backend.Addr()})
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	fmt.Println(l.Addr())
	e := &tcp.Engine{
		Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}, Port: backend.Port(),
		Transparent: slices.Contains(words, "transparent"),
		Logger:      slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if slices.Contains(words, "impatient") {
		e.UserTimeout = time.Second
	}
	go func() {
		io.Copy(io.Discard, os.Stdin) // ends with the parent
		e.Shutdown(context.Background())
	}()
	if err := e.Serve(context.Background(), l); !errors.Is(err, tcp.ErrClosed) {
		return err
	}
	return nil
}
