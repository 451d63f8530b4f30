//go:build !linux || !(amd64 || arm64)

package radius

import "net"

// batch stands for batches that can't be had here.
type batch struct{ in inbox }

func newBatch(*net.UDPConn) *batch { return nil }

func (b *batch) inbox(shelf, bool) inbox { return b.in }

// shelf stands for what batches share.
type shelf struct{}

func newShelf(int) shelf { return shelf{} }

// post is what sending takes.
type post struct{}

func (*post) sendBatch(*batch, [][]byte, []dest) (int, error) { return 0, nil }

// prepare sets the options of a link's socket.
func prepare(c *net.UDPConn) {
	_ = c.SetReadBuffer(linkBuffer) // as large as the system permits
}

const linkBuffer = 4 << 20
