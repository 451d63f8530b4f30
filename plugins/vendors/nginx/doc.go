// Package nginx writes what nginx needs to balance a deployment: IKEv2, RADIUS and
// other UDP by source address, SSTP passed through, offloaded or encrypted anew, and
// other TCP. It is configuration only: open source nginx has no interface by which a
// driver could tell what it serves, and it asks no server whether it is well.
//
// The two ports of IKEv2 stay together because the upstreams of a group list the same
// servers in the same order and choose by a hash of the client's address alone. The
// consistent hash of nginx can't be used for that: it takes ports into account.
package nginx
