package standin

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/aovlb/aovlb/ikev2"
)

// errMalformed says that a message doesn't hold what it should.
var errMalformed = errors.New("standin: malformed message")

const (
	idFQDN        = 2 // RFC 7296 section 3.5
	authSharedKey = 2 // section 3.8
)

// ownSPI returns the SPI in h that the receiver of the message chose.
func ownSPI(h ikev2.Header) ikev2.SPI {
	if h.Flags&ikev2.FlagInitiator != 0 {
		return h.SPIr
	}
	return h.SPIi
}

func part(t ikev2.PayloadType, body []byte) ikev2.Payload { return ikev2.Payload{Type: t, Body: body} }

// parse reads a whole message and its payloads.
func parse(b []byte) (ikev2.Header, []ikev2.Payload, error) {
	m, err := ikev2.ParseMessage(b)
	if err != nil {
		return ikev2.Header{}, nil, err
	}
	list, err := walk(m)
	return m.Header, list, err
}

func walk(m ikev2.Message) ([]ikev2.Payload, error) {
	var list []ikev2.Payload
	w := m.Payloads()
	for w.Next() {
		list = append(list, w.Payload)
	}
	return list, w.Err()
}

// find returns the body of the first payload of that type, or nil.
func find(list []ikev2.Payload, t ikev2.PayloadType) []byte {
	for _, p := range list {
		if p.Type == t {
			return p.Body
		}
	}
	return nil
}

// findNotify returns the data of the first notification of that type.
func findNotify(list []ikev2.Payload, t ikev2.NotifyType) ([]byte, bool) {
	for _, p := range list {
		if p.Type != ikev2.PayloadNotify {
			continue
		}
		if n, err := ikev2.ParseNotify(p.Body); err == nil && n.Type == t {
			return n.Data, true
		}
	}
	return nil, false
}

// refusal returns the first notification that is an error (RFC 7296 section
// 3.10.1) as one.
func refusal(list []ikev2.Payload) error {
	for _, p := range list {
		if p.Type != ikev2.PayloadNotify {
			continue
		}
		if n, err := ikev2.ParseNotify(p.Body); err == nil && n.Type < 16384 {
			return fmt.Errorf("standin: the gateway answered %v", n.Type)
		}
	}
	return nil
}

// An exchange is the part of IKE_SA_INIT and of a rekey that makes keys.
type exchange struct {
	proposals []ikev2.Proposal
	ke        ikev2.KeyExchange
	nonce     []byte
}

func parseExchange(list []ikev2.Payload) (x exchange, err error) {
	if x.proposals, err = ikev2.ParseSA(find(list, ikev2.PayloadSA)); err != nil {
		return x, err
	}
	if x.ke, err = ikev2.ParseKE(find(list, ikev2.PayloadKE)); err != nil {
		return x, err
	}
	x.nonce = find(list, ikev2.PayloadNonce)
	if len(x.proposals) == 0 || len(x.nonce) < 16 || len(x.nonce) > 256 {
		return x, errMalformed
	}
	return x, nil
}

// payloads returns the exchange as it is sent.
func (x exchange) payloads() []ikev2.Payload {
	return []ikev2.Payload{
		part(ikev2.PayloadSA, ikev2.AppendSA(nil, x.proposals...)),
		part(ikev2.PayloadKE, ikev2.AppendKE(nil, x.ke)),
		part(ikev2.PayloadNonce, x.nonce),
	}
}

func appendSPI(s ikev2.SPI) []byte { return binary.BigEndian.AppendUint64(nil, uint64(s)) }

// rekeySPI returns the SPI in a proposal for a rekeyed IKE SA.
func (x exchange) rekeySPI() (ikev2.SPI, error) {
	if spi := x.proposals[0].SPI; len(spi) == 8 {
		return ikev2.SPI(binary.BigEndian.Uint64(spi)), nil
	}
	return 0, errMalformed
}
