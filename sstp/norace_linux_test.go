//go:build !race

package sstp_test

// raceDetector says that the race detector is at work.
const raceDetector = false
