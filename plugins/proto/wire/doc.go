// Package wire carries a [plugins.Driver] over gRPC: [Serve] offers one to whoever
// is at the other end of a connection, [Dial] has one from there. Both ends are
// Drivers, so that a program can't tell whether a driver is a part of itself.
//
// Errors that programs tell apart ([plugins.ErrStale] and its like) and errors of
// fields keep their kinds. What is read of the other side is bounded and checked:
// neither side has to trust the other's bytes.
package wire
