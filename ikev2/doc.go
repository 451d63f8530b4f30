// Package ikev2 knows IKEv2: it reads and writes its messages, names the clients
// of IKEv2 gateways for a balancer, and asks gateways whether they serve.
//
// # How a datagram is judged
//
// [Classifier] looks at the bytes, not at the port, but for one rule: on port 500
// there is no ESP. A client's datagram, in the order of the checks:
//
//	what it is                          names, strongest first   if none is known
//	IKE, starts an SA (SPIr is zero)    SPIi                     hints: flow, address; else hash of SPIi
//	IKE request, protected              SPIi, flow               ask all gateways
//	IKE response, or not protected      SPIi, flow               drop: nobody would answer
//	IKE without SPIr in a later message flow                     drop
//	ESP                                 flow, ESP SPI            ask all gateways
//	keepalive (one octet FF)            flow                     drop
//	anything else                       -                        drop, with the reason
//
// With [AffinitySource] all that is valid has one name, the client's address, and
// is picked for if that isn't known.
//
// A gateway's datagram, likewise:
//
//	what it is                                 proves        names
//	ESP                                        established   flow
//	IKE_SA_INIT response with SPIr and nonce   half-open     SPIi, flow
//	IKE_INTERMEDIATE                           half-open     SPIi, flow
//	IKE_AUTH that refuses, or a step of EAP    half-open     SPIi, flow
//	other protected IKE, either way            established   SPIi, flow
//	COOKIE, INVALID_KE_PAYLOAD, refusals       nothing       -
//	unprotected answer in a later exchange     dropped       -
//
// # Why
//
// The SPIi of the header names a client whoever set the I flag: after a rekey by
// the gateway it is the gateway's SPI, and the client's requests have the flag
// clear. The SPIr adds nothing: it never comes without its SPIi. After a rekey
// the new SPIs are first seen in use, so on a known flow an unknown SPI is
// learned, and on an unknown flow no table can know it: all gateways are asked,
// and the one that answers has it. The others are silent or say INVALID_IKE_SPI
// without protection, which the client never sees.
//
// ESP is named by its flow first, since two gateways may choose the same SPI; the
// SPI finds the client again when its address changes and ESP comes first.
//
// A device tunnel and a user tunnel of one computer share one flow, and must
// share a gateway. That is what the hints of a new SA are for.
//
// # Known limits
//
// A retry with a cookie reaches the gateway that made the cookie because it has
// the same SPIi, which lb.Maglev picks by. With a Picker that doesn't, the engine has
// to see to it: lb/udp keeps a flow with its gateway while that has only told the
// client to come again.
//
// A refusal in IKE_AUTH is encrypted. It is known by its length and by what kind of
// payload comes first in it, so a client that is refused at once, as for its
// certificate, stays half-open. One that fails later, in EAP, counts as established
// since the gateway's first answer, which can't be told from one that makes a
// tunnel, for [lb.Table.Idle] after its last word; but on one flow it counts once,
// however often it tries.
//
// A client that rekeys its IKE SA and then moves, before it has used the
// new one, to an address and port that another client left less than [lb.Table.Idle]
// ago, is taken for that one until it starts anew.
package ikev2
