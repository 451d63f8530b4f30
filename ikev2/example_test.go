package ikev2_test

import (
	"context"
	"fmt"
	"net/netip"
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

// A periodic check: the gateway keeps no state of it.
func ExampleProber() {
	gateway := netip.MustParseAddrPort("127.0.0.1:500")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := (ikev2.Prober{}).Probe(ctx, gateway); err != nil {
		fmt.Println("down:", err)
	}
}

// Asking more, once: which suite does the gateway choose from one's own policy?
func ExampleProber_Ask() {
	p := ikev2.Prober{
		Complete: true,
		Proposals: []ikev2.Proposal{{Protocol: ikev2.ProtocolIKE, Transforms: []ikev2.Transform{
			{Type: ikev2.TransformEncr, ID: ikev2.EncrAESGCM16, KeyBits: 256},
			{Type: ikev2.TransformPRF, ID: ikev2.PRFHMACSHA384},
			{Type: ikev2.TransformKE, ID: uint16(ikev2.GroupECP384)},
		}}},
	}
	r, err := p.Ask(context.Background(), netip.MustParseAddrPort("127.0.0.1:500"))
	switch {
	case err != nil:
		fmt.Println("down:", err)
	case r.Answer == ikev2.AnswerNoProposal:
		fmt.Println("lives, with another policy")
	default:
		fmt.Println(r.Suite, r.Fragments, r.Vendors)
	}
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
		fmt.Println(w.Payload.Type, n.Type, n.Data, err)
	}
	if err := w.Err(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// IKE_SA_INIT response 0, SPIs 0000000000000001 0000000000000000
	// N INVALID_KE_PAYLOAD [0 20] <nil>
}
