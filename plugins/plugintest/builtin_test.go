package plugintest_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/builtin"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

// logs collects what is logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// The built-in driver keeps what every driver promises.
func TestBuiltin(t *testing.T) {
	s := plugintest.Suite{
		Layout: plugintest.Layout{Front: netip.MustParseAddr("127.0.61.1"), Back: netip.MustParseAddr("127.0.62.10"), PortOffset: 20000},
		Open: func(t *testing.T) plugintest.Target {
			log := new(logs)
			d := &builtin.Driver{Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
			t.Cleanup(func() {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				if err := d.Shutdown(ctx); err != nil {
					t.Error(err)
				}
			})
			return plugintest.Target{
				Driver: func(*testing.T) plugins.Driver { return d },
				Logs:   log.String,
			}
		},
		Skip: func(name string) string {
			if strings.Contains(name, "client's address") {
				return "it takes privileges to send from another's address"
			}
			return ""
		},
	}
	s.Run(t)
}
