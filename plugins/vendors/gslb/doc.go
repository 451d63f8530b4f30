// Package gslb reads a deployment's geo as appliances with GSLB have it: names whose
// sites serve one tier after the other, each with gateways of either address family.
// It also says what no appliance does, so that each driver names only what is its own.
package gslb
