package sstp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// A UDPState is what a question to a port of UDP has come to.
type UDPState uint8

const (
	// UDPSilent: nothing came back. The port is filtered, or whoever serves it
	// doesn't answer such a question, as RADIUS servers do that don't know who asks.
	UDPSilent UDPState = iota
	// UDPOpen: somebody answered.
	UDPOpen
	// UDPClosed: the host said that nobody serves it (ICMP port unreachable).
	UDPClosed
)

func (s UDPState) String() string {
	switch s {
	case UDPSilent:
		return "no answer"
	case UDPOpen:
		return "open"
	case UDPClosed:
		return "closed"
	}
	return "unknown"
}

// MarshalText returns the UDPState as String does.
func (s UDPState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A UDPPort is a port of UDP that was asked.
type UDPPort struct {
	// Port is which, What what is served there usually.
	Port uint16 `json:"port"`
	What string `json:"what"`
	// State is what came of it.
	State UDPState `json:"state"`
}

// portsOfIKE are open at a gateway that serves IKEv2 too.
var portsOfIKE = []uint16{500, 4500}

// udpQuestions returns a question for each port that gateways have open behind a
// firewall, in the form that its service answers: a port of UDP that is sent
// nonsense is silent, open or not. None of them logs in or asks for a lot.
func udpQuestions() []struct {
	port     uint16
	what     string
	question []byte
} {
	rdp := make([]byte, 1232) // MS-RDPEUDP §3.1.5.1.1: a SYN is padded to its MTU
	copy(rdp, []byte{0xff, 0xff, 0xff, 0xff, 0, 64, 0, 1, 0, 0, 0, 1, 0x04, 0xd0, 0x04, 0xd0})
	ntp := make([]byte, 48) // RFC 5905 §7.3: version 4, from a client
	ntp[0] = 4<<3 | 3
	// RFC 2865 §3, RFC 5997: Status-Server without the authenticator that would
	// need the secret.
	radius := append([]byte{12, 1, 0, 20}, make([]byte, 16)...)
	return []struct {
		port     uint16
		what     string
		question []byte
	}{
		{53, "DNS", []byte{0x61, 0x6f, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1}}, // RFC 1035 §4: NS of the root
		{123, "NTP", ntp},
		// RFC 1002 §4.2.17: NODE STATUS REQUEST for "*".
		{137, "NetBIOS names", []byte("ao\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00 CKAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\x00\x00\x21\x00\x01")},
		// RFC 3414 §4: discovery of an engine, without a community or a user.
		{161, "SNMP", []byte("\x30\x3a\x02\x01\x03\x30\x0f\x02\x02\x61\x6f\x02\x03\x00\xff\xe3\x04\x01\x04\x02\x01\x03\x04\x10\x30\x0e\x04\x00\x02\x01\x00" +
			"\x02\x01\x00\x04\x00\x04\x00\x04\x00\x30\x12\x04\x00\x04\x00\xa0\x0c\x02\x02\x61\x6f\x02\x01\x00\x02\x01\x00\x30\x00")},
		{1434, "SQL Server Browser", []byte{3}}, // MC-SQLR §2.2.2: CLNT_UCAST_EX
		{1812, "RADIUS", radius},
		{1813, "RADIUS accounting", radius},
		{3389, "Remote Desktop", rdp},
	}
}

// udpPorts asks ports of UDP, each at most twice.
func (a *Auditor) udpPorts(ctx context.Context, r *AuditReport) error {
	timeout := cmp.Or(a.Timeout, DefaultTimeout) / 5
	addr := r.Target.Addr()
	type asked struct {
		UDPPort
		ask func(ctx context.Context) error
	}
	var all []asked
	if a.AskIKE != nil {
		for _, p := range portsOfIKE {
			all = append(all, asked{UDPPort{Port: p, What: "IKE"}, func(ctx context.Context) error { return a.AskIKE(ctx, netip.AddrPortFrom(addr, p)) }})
		}
	}
	for _, q := range udpQuestions() {
		all = append(all, asked{UDPPort{Port: q.port, What: q.what}, func(ctx context.Context) error {
			return a.askUDP(ctx, netip.AddrPortFrom(addr, q.port), q.question)
		}})
	}
	var wg sync.WaitGroup
	const atOnce = 4
	turn := make(chan struct{}, atOnce)
	for i := range all {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			all[i].State = udpState(all[i].ask(ctx))
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for i := range all {
		p := all[i].UDPPort
		r.UDP = append(r.UDP, p)
		if p.State == UDPOpen && p.What != "IKE" {
			r.add(GravityRisk, "port", fmt.Sprintf("UDP %d answers: %s", p.Port, p.What), "let the firewall before it pass TCP 443 and UDP 500 and 4500 alone")
		}
	}
	return nil
}

func udpState(err error) UDPState {
	switch {
	case err == nil:
		return UDPOpen
	case errors.Is(err, syscall.ECONNREFUSED):
		return UDPClosed
	}
	return UDPSilent
}

// askUDP asks a question, and once more if nothing comes. It returns nil for any
// answer.
func (a *Auditor) askUDP(ctx context.Context, target netip.AddrPort, question []byte) error {
	d := a.Dialer
	if d == nil || d.LocalAddr != nil { // that one is of TCP
		d = new(net.Dialer)
	}
	c, err := d.DialContext(ctx, "udp", target.String())
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	b := make([]byte, 2048)
	for range 2 {
		if _, err := c.Write(question); err != nil {
			return err
		}
		end, _ := ctx.Deadline()
		if err := c.SetReadDeadline(time.Now().Add(time.Until(end) / 2)); err != nil {
			return err
		}
		if _, err = c.Read(b); err == nil || errors.Is(err, syscall.ECONNREFUSED) || ctx.Err() != nil {
			return err
		}
	}
	return errors.New("sstp: no answer")
}
