package tcp

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTune(t *testing.T) {
	tests := []struct {
		name                  string
		engine                *Engine
		alive, idle, patience int
	}{
		{"default", &Engine{}, 1, 45, 120_000},
		{"set", &Engine{KeepAlive: time.Minute, UserTimeout: 3 * time.Second}, 1, 60, 3000},
		{"off", &Engine{KeepAlive: -1, UserTimeout: -1}, 0, -1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			c, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			tt.engine.tune(c)
			raw, _ := c.SyscallConn()
			raw.Control(func(fd uintptr) {
				for _, o := range []struct {
					name             string
					level, opt, want int
				}{
					{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, tt.alive},
					{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, tt.idle},
					{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, tt.patience},
				} {
					if got, err := unix.GetsockoptInt(int(fd), o.level, o.opt); err != nil || got != o.want && o.want >= 0 {
						t.Errorf("%s is %d, %v; want %d", o.name, got, err, o.want)
					}
				}
			})
		})
	}
}
