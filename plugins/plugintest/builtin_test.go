package plugintest_test

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/builtin"
	"github.com/aovlb/aovlb/plugins/plugintest"
	"github.com/aovlb/aovlb/plugins/plugintest/remote"
)

// The built-in driver keeps what every driver promises.
func TestBuiltin(t *testing.T) {
	conform(t, func(_ *testing.T, d plugins.Driver) plugins.Driver { return d })
}

// So it does for somebody at the other end of a connection.
func TestBuiltinRemote(t *testing.T) {
	conform(t, func(t *testing.T, d plugins.Driver) plugins.Driver { return remote.Driver(t, d, nil) })
}

// A program that serves one site of several isn't concerned by the others.
func TestBuiltinOfOneSite(t *testing.T) {
	s := builtinSuite(func(t *testing.T, d plugins.Driver) plugins.Driver {
		if err := d.Configure(t.Context(), plugins.Config{Site: "hq"}); err != nil {
			t.Fatal(err)
		}
		return d
	})
	s.Site = "hq"
	s.Intents = plugintest.Intents(s.Layout, "/nonexistent")[:3]
	s.Run(t)
}

func conform(t *testing.T, far func(*testing.T, plugins.Driver) plugins.Driver) {
	builtinSuite(far).Run(t)
}

func builtinSuite(far func(*testing.T, plugins.Driver) plugins.Driver) plugintest.Suite {
	// Other runs of this test may open listeners at the same time.
	front := netip.AddrFrom4([4]byte{127, 61, byte(os.Getpid() >> 8), byte(os.Getpid()) | 1})
	return plugintest.Suite{
		Layout: plugintest.Layout{Front: front, Back: netip.MustParseAddr("127.0.62.10"), PortOffset: 20000},
		Open: func(t *testing.T) plugintest.Target {
			log := new(plugintest.Log)
			d := &builtin.Driver{Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
			t.Cleanup(func() {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				if err := d.Shutdown(ctx); err != nil {
					t.Error(err)
				}
			})
			return plugintest.Target{
				Driver: func(t *testing.T) plugins.Driver { return far(t, d) },
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
}
