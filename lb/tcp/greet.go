package tcp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// A head is what has been read of a stream before its backend is known. It has
// a buffer only while there is something to read.
type head struct {
	buf  *[MaxSniff]byte
	used int // bytes of the PROXY header: not forwarded
	n    int // bytes read
}

func (h *head) rest() []byte {
	if h.buf == nil {
		return nil
	}
	return h.buf[h.used:h.n]
}

func (e *Engine) newHead() *head { return new(head) }

// freeHead gives the buffer back, once.
func (e *Engine) freeHead(h *head) {
	if h.buf != nil {
		e.buffers.Put(h.buf)
		h.buf = nil
	}
}

// greet reads what must be known of a client before a backend is chosen: a
// PROXY header, then what the Sniffer wants to see.
func (e *Engine) greet(st *stream, h *head) (lb.Verdict, Refusal, error) {
	st.proxied = ProxyHeader{Source: st.flow.Client, Destination: addrPort(st.client.LocalAddr())}
	trusted := e.trusts(st.flow.Client.Addr())
	if !trusted && e.Sniffer == nil {
		return lb.Verdict{Begin: true}, 0, nil
	}
	deadline := time.Now().Add(defaultTo(e.SniffTimeout, DefaultSniffTimeout))
	if trusted {
		if err := e.readProxy(st, h, deadline); err != nil {
			return lb.Verdict{}, RefusedProxy, err
		}
	}
	v, why, err := e.sniff(st, h, deadline)
	if err != nil {
		return v, why, err
	}
	if v.Miss == lb.MissAsk {
		v.Miss = lb.MissPick // a stream can't be sent to several
	}
	return v, 0, nil
}

// trusts reports whether a is a proxy that sends PROXY headers.
func (e *Engine) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(e.ProxyFrom, func(p netip.Prefix) bool { return p.Contains(a) })
}

// readProxy reads the PROXY header, and believes it.
func (e *Engine) readProxy(st *stream, h *head, deadline time.Time) error {
	for {
		p, n, err := ParseProxy(h.rest())
		if err == nil {
			h.used = n
			if p.Source.IsValid() && !p.Local {
				st.proxied, st.flow.Client = p, p.Source
			} else {
				st.proxied.Local = p.Local
			}
			return nil
		}
		if !errors.Is(err, ErrProxyShort) {
			return err
		}
		ok, err := e.more(st.client, h, deadline)
		if err != nil {
			return fmt.Errorf("tcp: PROXY header: %w", err)
		}
		if !ok {
			return errors.New("tcp: PROXY header: too late")
		}
	}
}

// sniff asks the Sniffer until it has seen enough, or enough time has passed.
func (e *Engine) sniff(st *stream, h *head, deadline time.Time) (lb.Verdict, Refusal, error) {
	if e.Sniffer == nil {
		return lb.Verdict{Begin: true}, 0, nil
	}
	for {
		v, more := e.Sniffer.Sniff(h.rest(), st.flow)
		ended := false
		if more > 0 && h.n < MaxSniff {
			ok, err := e.sniffMore(st.client, h, deadline)
			if ok {
				continue
			}
			if err != nil && !errors.Is(err, io.EOF) || err != nil && len(h.rest()) == 0 {
				return v, RefusedGone, err
			}
			ended = err != nil
			if !ended {
				e.count.sniffTimeouts.Add(1)
			}
		}
		if v.Drop {
			return v, RefusedBytes, errors.New("tcp: " + v.Reason)
		}
		return v, 0, nil
	}
}

// sniffMore is more, but if too many streams wait already, this one may only have
// what has come.
func (e *Engine) sniffMore(c net.Conn, h *head, deadline time.Time) (bool, error) {
	waiting := e.count.sniffing.Add(1)
	defer e.count.sniffing.Add(-1)
	if waiting > int64(defaultTo(e.MaxSniffing, DefaultMaxSniffing)) {
		deadline = time.Now().Add(time.Millisecond)
	}
	return e.more(c, h, deadline)
}

// more reads once. It returns false if the time is over.
func (e *Engine) more(c net.Conn, h *head, deadline time.Time) (bool, error) {
	if h.buf == nil {
		h.buf = e.buffer()
	}
	if err := c.SetReadDeadline(deadline); err != nil {
		return false, err
	}
	n, err := c.Read(h.buf[h.n:])
	h.n += n
	late := n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
	if err != nil && n == 0 && !late {
		return false, err
	}
	return !late, c.SetReadDeadline(time.Time{})
}

// first sends to the backend what comes before the client's further bytes.
func (e *Engine) first(st *stream, h *head) error {
	rest := h.rest()
	if e.ProxyTo == ProxyNone && len(rest) == 0 {
		return nil
	}
	header := 0
	if e.ProxyTo != ProxyNone {
		// One write, so that the header and the first bytes share a packet.
		line := st.proxied.Append(make([]byte, 0, 128), e.ProxyTo)
		header, rest = len(line), append(line, rest...)
	}
	n, err := st.backend.Write(rest)
	st.sent.add(n - header)
	return err
}
