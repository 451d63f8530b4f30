package ikev2

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// The defaults of a PathMTU.
const (
	// DefaultMTU is the largest packet tried: what Ethernet carries.
	DefaultMTU = 1500
	// DefaultMTUTimeout is how long an answer is waited for.
	DefaultMTUTimeout = time.Second
	// DefaultMTUTries is how often each size is tried.
	DefaultMTUTries = 3
)

// A PathMTU measures how large the packets are that get to a gateway whole: it
// sends IKE_SA_INIT messages of different sizes that routers must not fragment, and
// sees which are answered. The answers are small, so it is the way there that is
// measured. What routers say by ICMP is listened to, but only answers are believed.
//
// The messages offer nothing that a gateway could accept, so they leave no state
// there, and are as long as they are by a Notify payload of private use, which
// everybody must ignore (RFC 7296 §3.10.1). It takes Linux.
type PathMTU struct {
	// Max is the largest IP packet to try, up to 65535; 0 means DefaultMTU.
	Max int
	// Timeout is how long each try waits; 0 means DefaultMTUTimeout.
	Timeout time.Duration
	// Tries is how often each size is tried; 0 means DefaultMTUTries.
	Tries int
}

// An MTUResult is what a PathMTU has measured. Sizes are those of IP packets, in
// octets, headers included.
type MTUResult struct {
	// MTU is the largest packet that was answered.
	MTU int
	// Lost is the smallest that wasn't; 0 if all were, up to Max.
	Lost int
	// Reports are what was said of packets that were too large, in order.
	Reports []MTUReport
	// Sent counts packets, Answers those that were answered.
	Sent, Answers int
	// RoundTrip is the shortest time that an answer took.
	RoundTrip time.Duration
}

// An MTUReport is an ICMP message, or what this machine says of its own link.
type MTUReport struct {
	// From is who said it; invalid for this machine.
	From netip.Addr
	// Size is the packet it is about, MTU what the next link takes; 0 if it
	// doesn't say.
	Size, MTU int
}

// Blackhole reports whether packets were lost without a word: then programs can't
// find out why.
func (r MTUResult) Blackhole() bool { return r.Lost > 0 && len(r.Reports) == 0 }

// String says what was measured.
func (r MTUResult) String() string {
	switch {
	case r.MTU == 0:
		return "no answer at all"
	case r.Lost == 0:
		return fmt.Sprintf("packets of %d octets arrive", r.MTU)
	case r.Blackhole():
		return fmt.Sprintf("packets of %d octets arrive, those of %d are lost without a word", r.MTU, r.Lost)
	}
	return fmt.Sprintf("packets of %d octets arrive, those of %d don't", r.MTU, r.Lost)
}

// ErrNoAnswer is what Measure returns if not even small packets are answered.
var ErrNoAnswer = errors.New("ikev2: no answer, even to small packets")

// mtuSocket sends datagrams that must not be fragmented.
type mtuSocket interface {
	// send returns errTooLong if this machine's own link doesn't take b.
	send(b []byte) error
	// receive returns the next datagram, or what was said of one sent. It
	// returns errNothing when the time is up.
	receive(until time.Time, b []byte) (n int, report *MTUReport, err error)
	close()
}

var (
	errTooLong = errors.New("ikev2: larger than the link of this machine takes")
	errNothing = errors.New("ikev2: nothing came")
)

// Measure asks the gateway at target, which must answer IKE on that port.
func (p PathMTU) Measure(ctx context.Context, target netip.AddrPort) (MTUResult, error) {
	target = netip.AddrPortFrom(target.Addr().Unmap(), target.Port())
	s, err := dialMTU(ctx, target)
	if err != nil {
		return MTUResult{}, fmt.Errorf("ikev2: measuring the way to %v: %w", target, err)
	}
	defer s.close()
	m := &mtuMeasurement{p: p, s: s, target: target, overhead: 20 + 8, least: 576}
	if target.Addr().Is6() {
		m.overhead, m.least = 40+8, 1280
	}
	err = m.run(ctx)
	if err != nil {
		err = fmt.Errorf("ikev2: measuring the way to %v: %w", target, err)
	}
	return m.result, err
}

// mtuMeasurement is one measurement.
type mtuMeasurement struct {
	p        PathMTU
	s        mtuSocket
	target   netip.AddrPort
	overhead int // of IP and UDP
	least    int // what every link takes
	result   MTUResult
	asked    map[SPI]int // size by SPI
	times    map[SPI]time.Time
}

// run searches for the largest size that is answered, between one that is and one
// that isn't.
func (m *mtuMeasurement) run(ctx context.Context) error {
	high := min(max(cmp.Or(m.p.Max, DefaultMTU), m.least), 65535)
	if ok, err := m.try(ctx, m.least); err != nil || !ok {
		return cmp.Or(err, ErrNoAnswer)
	}
	ok, err := m.try(ctx, high)
	if ok || err != nil {
		return err
	}
	m.result.Lost = high
	for next := m.guess(m.result.MTU, high); high-m.result.MTU > 1; next = m.guess(m.result.MTU, high) {
		ok, err := m.try(ctx, next)
		if err != nil {
			return err
		}
		if !ok {
			high = next
			m.result.Lost = high
		}
	}
	return nil
}

// guess returns what to try between low and high: what a router has just told, or
// one more than that, or half-way.
func (m *mtuMeasurement) guess(low, high int) int {
	if n := len(m.result.Reports); n > 0 {
		told := m.result.Reports[n-1].MTU
		for _, size := range []int{told, told + 1} {
			if size > low && size < high {
				return size
			}
		}
	}
	return low + (high-low)/2
}

// try reports whether a packet of size octets is answered.
func (m *mtuMeasurement) try(ctx context.Context, size int) (bool, error) {
	for range max(cmp.Or(m.p.Tries, DefaultMTUTries), 1) {
		if err := ctx.Err(); err != nil {
			return false, context.Cause(ctx)
		}
		msg, spi, err := m.request(size - m.overhead)
		if err != nil {
			return false, err
		}
		m.result.Sent++
		sent := time.Now()
		if m.times == nil {
			m.times, m.asked = make(map[SPI]time.Time), make(map[SPI]int)
		}
		m.times[spi], m.asked[spi] = sent, size
		if err := m.s.send(msg); errors.Is(err, errTooLong) {
			m.result.Reports = append(m.result.Reports, MTUReport{Size: size})
			return false, nil
		} else if err != nil {
			return false, err
		}
		told, err := m.wait(ctx, sent.Add(max(cmp.Or(m.p.Timeout, DefaultMTUTimeout), time.Millisecond)), size)
		if err != nil {
			return false, err
		}
		if m.result.MTU >= size {
			return true, nil
		}
		if told {
			return false, nil
		}
	}
	return false, nil
}

// wait takes what comes until a packet of size is answered. told says that a
// router has said that it is too large.
func (m *mtuMeasurement) wait(ctx context.Context, until time.Time, size int) (told bool, err error) {
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	b := make([]byte, 2048)
	for {
		n, report, err := m.s.receive(until, b)
		switch {
		case errors.Is(err, errNothing):
			return told, nil
		case err != nil:
			return told, err
		case report != nil:
			report.Size = size
			m.result.Reports = append(m.result.Reports, *report)
			return report.MTU < size, nil
		}
		kind, msg := Identify(b[:n])
		if kind != KindIKE {
			continue
		}
		spi := initiatorSPI(msg)
		was, ok := m.asked[spi]
		if !ok || !isResponse(msg) {
			continue
		}
		delete(m.asked, spi)
		m.result.Answers++
		if d := time.Since(m.times[spi]); m.result.RoundTrip == 0 || d < m.result.RoundTrip {
			m.result.RoundTrip = d
		}
		m.result.MTU = max(m.result.MTU, was)
		if was >= size {
			return told, nil
		}
	}
}

// Private use, of which no gateway makes anything (RFC 7296 §3.3.2, §3.10.1).
const (
	privateTransform uint16     = 1025
	privateNotify    NotifyType = 40960 + 0x1d
)

// request returns an IKE_SA_INIT of size octets, which a gateway can only refuse.
func (m *mtuMeasurement) request(size int) ([]byte, SPI, error) {
	var random [8 + 32 + 32]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, 0, err
	}
	h := Header{SPIi: SPI(binary.BigEndian.Uint64(random[:]) | 1), Exchange: ExchangeSAInit, Flags: FlagInitiator}
	ps := []Payload{
		{Type: PayloadSA, Body: AppendSA(nil, Proposal{Protocol: ProtocolIKE, Transforms: []Transform{
			{Type: TransformEncr, ID: privateTransform},
			{Type: TransformInteg, ID: privateTransform},
			{Type: TransformPRF, ID: privateTransform},
			{Type: TransformKE, ID: privateTransform},
		}})},
		{Type: PayloadKE, Body: AppendKE(nil, KeyExchange{Group: Group(privateTransform), Data: random[8:40]})},
		{Type: PayloadNonce, Body: random[40:]},
	}
	var b []byte
	if m.target.Port() == PortNATT {
		b = AppendMarker(b)
	}
	bare := len(AppendMessage(b, h, append(ps, NotifyPayload(privateNotify, nil))...))
	if size < bare {
		return nil, 0, fmt.Errorf("ikev2: a request takes %d octets, not %d", bare, size)
	}
	return AppendMessage(b, h, append(ps, NotifyPayload(privateNotify, make([]byte, size-bare)))...), h.SPIi, nil
}
