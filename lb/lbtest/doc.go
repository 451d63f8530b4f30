// Package lbtest helps to test what is built on package lb.
//
// # Conformance
//
// [TestClassifier], [TestPicker] and [TestProber] hold an implementation of one
// of lb's interfaces against everything that the interface promises, and say of
// each promise why it matters. Whoever writes a Classifier for a protocol of
// their own calls them from their own tests:
//
//	func TestConformance(t *testing.T) {
//		lbtest.TestClassifier(t, Classifier{}, captured)
//	}
//
// # A network in memory
//
// [Net] is a network of datagrams without a socket: hosts that share addresses
// and ports with nobody else on the machine, links that lose, delay and repeat
// what they carry, and NATs that forget. Everything in it blocks on channels
// and timers only. So in a bubble of testing/synctest a day passes in no time,
// and a test without a bubble takes as long as what it tests:
//
//	client ── Host.Listen ──┐                      ┌── Host.Listen ── Gateway
//	client ── NAT.Listen  ──┼── Net ── the tested ──┤
//	                        │   Link   balancer    └── Host.Listen ── Gateway
//
// # Stand-in gateways
//
// [Gateway] answers datagrams in a server's place, counts them by client, and
// falls silent when it is told to.
package lbtest
