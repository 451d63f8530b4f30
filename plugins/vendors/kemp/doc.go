// Package kemp puts a deployment onto a Kemp LoadMaster by its API: IKEv2 whose two
// ports follow each other, SSTP passed through, offloaded or encrypted anew, RADIUS,
// and other TCP and UDP.
//
// Each listener becomes a virtual service with the pool's backends as its real
// servers. What the driver makes has names that begin with its owner and site. A
// LoadMaster has no room for a backend's name or for which backends are being
// drained, so the driver keeps that in content rules that no service uses; see
// docs/kemp.md.
//
// The LoadMaster has no transactions and no way to try a change first: each call is
// put into effect and saved at once. So each step of a plan is a call or two that
// may fail by itself, and the next plan has what is left.
package kemp
