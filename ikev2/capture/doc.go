// Package capture reads IKEv2 traffic where it was seen: from capture files
// (pcap and pcapng, also compressed by gzip) and from network interfaces. It
// makes [ikev2.Event]s of packets, of which an [ikev2.Tracker] makes
// conversations and says what happened.
//
//	file ──Reader──┐
//	               ├─ Packet ──Decoder──▶ ikev2.Event ──▶ ikev2.Tracker
//	interface ─Tap─┘
//
// A [Decoder] takes Ethernet, with VLAN tags, Linux cooked packets of both
// versions, loopback and raw IP; IPv4, and IPv6 with extension headers. It puts
// IP fragments together, and tells of datagrams of which some never came. It
// passes on what goes from or to UDP port 500 or 4500, what is IKE on any other,
// ESP, and ICMP errors about such packets. Of ESP nobody reads the contents.
//
// Captures come from strangers: nothing in one makes this package use more memory
// than its bounds allow.
package capture
