package sstp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// A Question is what a [Prober] asks a gateway.
type Question uint8

const (
	// AskHead sends a HEAD for [Path]. It costs the gateway nothing, and tells
	// that HTTP.sys hands requests to the SSTP service.
	AskHead Question = iota
	// AskCall begins a call, sees whether it is accepted, and aborts it: HTTP,
	// CALL_CONNECT_REQUEST, CALL_CONNECT_ACK, CALL_ABORT. It finds gateways
	// without free ports, and those that answer a HEAD and take no calls. As it
	// has a port of the gateway for a moment, and a line in its log, it should
	// be asked once a minute at most.
	AskCall
	// AskIPHTTPS asks for the resource of DirectAccess, and goes.
	AskIPHTTPS
)

func (q Question) String() string {
	switch q {
	case AskHead:
		return "head"
	case AskCall:
		return "call"
	case AskIPHTTPS:
		return "ip-https"
	}
	return "unknown"
}

// call begins a call and aborts it.
func (p *Prober) call(ctx context.Context, conn net.Conn, host string, res *Result) error {
	q := TunnelRequest(host, newCorrelationID())
	rest, err := p.exchange(ctx, conn, string(q.Append(nil)), 200, res)
	if err != nil {
		return err
	}
	start := time.Now()
	if _, err := conn.Write(AppendConnectRequest(nil)); err != nil {
		return stageError(ctx, "CALL_CONNECT_REQUEST", err)
	}
	m, err := readMessage(conn, rest)
	res.Reply += time.Since(start)
	if err != nil {
		return stageError(ctx, "answer to CALL_CONNECT_REQUEST", err)
	}
	value, _ := m.Value(AttrBindingRequest)
	r, err := ParseBindingRequest(value)
	if m.Type != CallConnectAck {
		return fmt.Errorf("sstp: the gateway takes no call: it answered %v", &m)
	}
	if err != nil {
		return fmt.Errorf("sstp: the gateway's CALL_CONNECT_ACK has no usable crypto binding request: %w", err)
	}
	res.Hashes = r.Hashes
	if _, err := conn.Write(AppendStatus(nil, CallAbort, StatusInfo{})); err != nil {
		return nil // it serves, and is gone
	}
	// It answers by an abort of its own, or closes. Then the port is free.
	if err := conn.SetReadDeadline(time.Now().Add(AbortTimeout2)); err == nil && ctx.Err() == nil {
		_, _ = readMessage(conn, nil)
	}
	return nil
}

// readMessage reads one control message, of which b has come already. PPP frames
// before it are passed over.
func readMessage(r io.Reader, b []byte) (Message, error) {
	for {
		h, err := ParseHeader(b)
		if err == nil && !h.Control && len(b) >= h.Length {
			b = b[h.Length:]
			continue
		}
		if err == nil && h.Control {
			var m Message
			if m, _, err = ParseMessage(b); err == nil {
				return m, nil
			}
		}
		if err != nil && err != ErrShort {
			return Message{}, err
		}
		more := make([]byte, MaxPacket)
		n, err := r.Read(more)
		b = append(b, more[:n]...)
		if n == 0 && err != nil {
			return Message{}, err
		}
		if len(b) > 4*MaxPacket {
			return Message{}, errors.New("sstp: no control message among the first packets")
		}
	}
}

// ipHTTPS asks for the resource of DirectAccess.
func (p *Prober) ipHTTPS(ctx context.Context, conn net.Conn, host string, res *Result) error {
	q := Request{Method: "POST", Target: PathIPHTTPS, Minor: 1, Host: host, Length: ContentLength}
	if _, err := p.exchange(ctx, conn, string(q.Append(nil)), 200, res); err != nil {
		return err
	}
	if !strings.Contains(res.Server, "HTTPAPI") {
		return fmt.Errorf("sstp: the server %.64q accepts it, and isn't that of Windows: a web server that accepts everything?", res.Server)
	}
	return nil
}

// newCorrelationID returns a GUID as clients make one for each attempt.
func newCorrelationID() string {
	b := make([]byte, 16)
	rand.Read(b)
	return fmt.Sprintf("{%X-%X-%X-%X-%X}", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
