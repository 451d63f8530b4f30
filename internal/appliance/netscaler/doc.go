// Package netscaler is a NetScaler for tests: the part of the NITRO API that
// balances UDP, RADIUS, TCP and TLS, with its objects in memory.
//
// It is as strict as the appliance: what has an unknown field, is there already,
// isn't there, can't be changed or is still in use is refused with the number that
// NITRO gives. Sessions end, numbers come as text now and then, and nothing is
// undone when a series of calls is broken off.
package netscaler
