//go:build !linux

package tcp_test

const spliceable = false
