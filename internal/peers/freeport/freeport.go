// Package freeport finds ports for servers that tests start a moment later, as programs
// of their own, say, or again after a stop.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// Pick returns a port that neither TCP nor UDP has in use on any address, below those
// that systems give to sockets by themselves: nobody is given it in between. It fails if
// there are no sockets to be had at all.
func Pick() (port uint16, err error) {
	for range 100 {
		port = uint16(20000 + rand.IntN(12000))
		if err = free(port); err == nil {
			return port, nil
		}
	}
	return 0, err
}

func free(port uint16) error {
	at := fmt.Sprintf(":%d", port)
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := net.ListenPacket("udp", at)
	if err != nil {
		return err
	}
	return c.Close()
}
