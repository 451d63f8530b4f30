package plugintest

import (
	"bytes"
	"sync"
)

// A Log keeps what a driver logs, for [Target].Logs. Its zero value is empty; several
// goroutines may use it at once.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write adds b. It never fails.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// String returns all that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
