// Package capture reads IKEv2 conversations from packet captures and from a
// network interface.
package capture
