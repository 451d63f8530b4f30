//go:build !linux

package geodns

import "net"

func (s *Server) servePacket(c net.PacketConn) error { return s.servePlain(c) }
