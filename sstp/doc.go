// Package sstp is what aovlb knows of Microsoft's Secure Socket Tunneling
// Protocol (MS-SSTP): PPP in TLS on TCP port 443.
//
// It holds so far what balancing needs:
//
//   - [Prober] asks a gateway whether its SSTP service truly serves. A TCP
//     connection proves nothing, as Windows' HTTP.sys answers whatever the
//     service behind it does; the status of a HEAD request tells.
//   - [Sniffer] names the client of a connection that is passed through.
//
// One TCP connection is one tunnel, so SSTP itself needs no affinity. The
// Sniffer only sees to it that what else a computer has, such as an IKEv2 device
// tunnel, is found at the same gateway.
package sstp
