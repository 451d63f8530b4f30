// Package keepalived puts a deployment onto keepalived, which balances by IPVS in
// the Linux kernel: UDP and TCP by source address, so IKEv2 with its two ports
// together, SSTP passed through, and RADIUS.
//
// The driver writes a file of its own that keepalived includes, and an nftables
// ruleset that marks the packets of groups with several listeners: IPVS keeps the
// clients of one mark at one server, whatever the port. It has keepalived and nft
// check both, loads the ruleset, and reloads keepalived by a signal to the process in
// its pid file. What IPVS carries goes on meanwhile. Where no keepalived runs it only
// writes the files, and says so. What the driver must know of a deployment that it
// applied is in the file itself.
package keepalived
