package ikev2_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/lb"
)

// The first message of a client makes a client, later ones continue it.
func ExampleClassifier() {
	var c ikev2.Classifier
	first := ikev2.AppendMessage(nil, ikev2.Header{
		SPIi: 0x1122334455667788, Exchange: ikev2.ExchangeSAInit, Flags: ikev2.FlagInitiator,
	}, ikev2.Payload{Type: ikev2.PayloadNonce, Body: make([]byte, 32)})

	v := c.Classify(first, lb.Flow{Client: netip.MustParseAddrPort("192.0.2.7:500"), Service: ikev2.Port})
	fmt.Println("begins:", v.Begin, "name:", v.Keys[0], "hints:", v.Hints)

	esp := append([]byte{0xd9, 0x76, 0xd0, 0x03}, make([]byte, 96)...)
	v = c.Classify(esp, lb.Flow{Client: netip.MustParseAddrPort("192.0.2.7:4500"), Service: ikev2.PortNATT})
	fmt.Println("begins:", v.Begin, "names:", v.Keys[0], v.Keys[1])

	v = c.Classify([]byte("GET / HTTP/1.1\r\n\r\n"), lb.Flow{Service: ikev2.Port})
	fmt.Println("dropped:", v.Drop, v.Reason)
	// Output:
	// begins: true name: 16:1122334455667788 hints: [192.0.2.7:500>500 192.0.2.7]
	// begins: false names: 192.0.2.7:4500>4500 17:00000000d976d003
	// dropped: true neither IKEv2 nor, on port 500, anything else allowed
}

// gateway starts a stand-in on loopback that wants group ECP_384, as an example
// needs one that is there. The function returned stops it.
func gateway() (netip.AddrPort, func()) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		panic(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			h, err := ikev2.ParseHeader(buf[:n])
			if err != nil {
				continue
			}
			h.Flags = ikev2.FlagResponse
			wanted := ikev2.NotifyPayload(ikev2.NotifyInvalidKEPayload, []byte{0, byte(ikev2.GroupECP384)})
			_, _ = conn.WriteToUDPAddrPort(ikev2.AppendMessage(nil, h, wanted), from)
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort(), func() { conn.Close(); <-done }
}

// A periodic check: the gateway keeps no state of it.
func ExampleProber() {
	target, stop := gateway()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()

	fmt.Println("alive:", ikev2.Prober{}.Probe(ctx, target))
	stop()
	err := ikev2.Prober{}.Probe(ctx, target)
	fmt.Println("dead:", errors.Is(err, syscall.ECONNREFUSED))
	// Output:
	// alive: <nil>
	// dead: true
}

// Does the gateway take the one suite that clients are given?
func ExampleProber_Ask() {
	target, stop := gateway()
	defer stop()
	p := ikev2.Prober{Proposals: []ikev2.Proposal{{Protocol: ikev2.ProtocolIKE, Transforms: []ikev2.Transform{
		{Type: ikev2.TransformEncr, ID: ikev2.EncrAESGCM16, KeyBits: 256},
		{Type: ikev2.TransformPRF, ID: ikev2.PRFHMACSHA384},
		{Type: ikev2.TransformKE, ID: uint16(ikev2.GroupECP384)},
	}}}}
	r, err := p.Ask(context.Background(), target)
	switch {
	case err != nil:
		fmt.Println("dead:", err)
	case r.Answer == ikev2.AnswerNoProposal:
		fmt.Println("lives, with another policy")
	default:
		fmt.Println("takes it, with group", r.Group)
	}
	// Output: takes it, with group ECP_384
}

// Reading a message: nothing is copied.
func ExampleMessage_Payloads() {
	b := ikev2.AppendMessage(nil, ikev2.Header{SPIi: 1, Exchange: ikev2.ExchangeSAInit, Flags: ikev2.FlagResponse},
		ikev2.NotifyPayload(ikev2.NotifyInvalidKEPayload, []byte{0, 20}))
	m, err := ikev2.ParseMessage(b)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Header)
	w := m.Payloads()
	for w.Next() {
		n, err := ikev2.ParseNotify(w.Payload.Body)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(w.Payload.Type, n.Type, n.Protocol)
	}
	if err := w.Err(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// IKE_SA_INIT response 0, SPIs 0000000000000001 0000000000000000
	// N INVALID_KE_PAYLOAD none
}
