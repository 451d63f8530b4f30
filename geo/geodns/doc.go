// Package geodns is an authoritative DNS server whose answers depend on which
// sites serve and on who asks, as a [geo.Selector] decides.
//
// A [Server] answers from tables that are made before the first query: the
// records of a [Zone] are stored as they go on the wire, and so are the answers
// of a [Name], for each site. A change of health or a new zone is a new table
// behind an atomic pointer; a query takes no lock, and over UDP allocates
// nothing.
//
// What it implements, and where it is careful:
//
//   - RFC 1034, 1035, 2181, 2308, 4592, 8020: names, empty non-terminals,
//     wildcards, referrals, negative answers that live as long as the SOA says.
//   - RFC 6891: EDNS, at most [Server.MaxUDP] octets over UDP.
//   - RFC 7871: the client's subnet. The scope it answers with comes from a map
//     of prefixes that don't overlap, so that a cache never gives a client what
//     was meant for another.
//   - RFC 7873 and 9018: cookies; RFC 5001: the server's name; RFC 8482: a short
//     answer to ANY; RFC 7766: many queries on one TCP connection, and RFC 7858
//     the same over TLS; RFC 7828: how long such a connection may be idle.
//   - RFC 4035, 9824, 7344: signed answers, if a zone has [Keys].
//
// Transfers of zones, updates and recursion are refused.
package geodns
