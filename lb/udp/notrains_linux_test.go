package udp

import (
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Where the kernel doesn't know trains it takes one for a long datagram, so none is
// sent. Sockets for pings are such, and so are those for UDP before Linux 4.18.
func TestTrainsUnknown(t *testing.T) {
	for _, tt := range []struct {
		proto int
		want  bool
	}{{unix.IPPROTO_UDP, false}, {unix.IPPROTO_ICMP, true}} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, tt.proto)
		if err != nil {
			t.Skipf("net.ipv4.ping_group_range forbids this user's pings: %v", err)
		}
		file := os.NewFile(uintptr(fd), "socket")
		c, err := net.FilePacketConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		d, err := newLinux(new(Engine), []net.PacketConn{c}, 16)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.(*linux).noTrains; got != tt.want {
			t.Errorf("protocol %d: no trains: %t, want %t", tt.proto, got, tt.want)
		}
		if err := d.(*linux).close(); err != nil {
			t.Error(err)
		}
	}
}
