// Package netscaler puts a deployment onto a NetScaler ADC (Citrix ADC) by its
// NITRO API: IKEv2, SSTP, RADIUS and other UDP and TCP, with persistency groups
// where several listeners must agree where a client lives.
//
// Each listener is an lbvserver with a servicegroup; backends of a lower priority
// are further lbvservers that stand by. What can't be changed in place is unbound,
// removed and made anew. Drains are the appliance's own. A small file beside its
// certificates holds what the driver must know of the deployment that it applied.
package netscaler
