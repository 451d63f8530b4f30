package eaptls

import (
	"io"
	"net"
	"time"
)

// What TLS wants of a connection.

// Read returns what the server has sent. It is where everything happens.
func (l *look) Read(b []byte) (int, error) {
	empty := 0
	for len(l.in) == 0 {
		if l.over != nil {
			return 0, l.over
		}
		if err := l.flush(); err != nil {
			l.over = err
			return 0, err
		}
		if empty++; empty > 2 && len(l.in) == 0 {
			l.over = io.ErrUnexpectedEOF
			return 0, l.over
		}
	}
	n := copy(b, l.in)
	l.in = l.in[n:]
	return n, nil
}

// Write keeps what is to be sent.
func (l *look) Write(b []byte) (int, error) {
	if len(l.out)+len(b) > maxMessage {
		return 0, errTooLong
	}
	l.out = append(l.out, b...)
	return len(b), nil
}

// Close does nothing: there is no connection to close.
func (l *look) Close() error { return nil }

// LocalAddr and RemoteAddr are those of the socket.
func (l *look) LocalAddr() net.Addr  { return l.e.conn.LocalAddr() }
func (l *look) RemoteAddr() net.Addr { return l.e.conn.RemoteAddr() }

// Deadlines are those of the look's context.
func (l *look) SetDeadline(time.Time) error      { return nil }
func (l *look) SetReadDeadline(time.Time) error  { return nil }
func (l *look) SetWriteDeadline(time.Time) error { return nil }
