package sdk

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/proto/wire"
)

// Serve offers d to the program that started this one, until that one ends it, or
// ends. Started by hand it says what it is, and exits. It must be called once, by
// main, and nothing must be written to standard output before.
func Serve(d plugins.Driver) {
	if os.Getenv(wire.CookieKey) != wire.CookieValue {
		fmt.Fprintln(os.Stderr, "This is a plugin of aovlb, which starts it: see aovlb plugin list.")
		os.Exit(1) //nolint:forbidigo // it is the end of main
	}
	dieWithParent()
	serve(d, nil)
}

func serve(d plugins.Driver, test *plugin.ServeTestConfig) {
	quiet := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Warn, JSONFormat: true})
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue},
		VersionedPlugins: map[int]plugin.PluginSet{
			wire.Version: {wire.Name: &service{driver: d}},
		},
		GRPCServer: func(o []grpc.ServerOption) *grpc.Server { return grpc.NewServer(append(o, wire.ServerOptions()...)...) },
		Logger:     quiet,
		Test:       test,
	})
}

// service is the plugin's end of go-plugin.
type service struct {
	plugin.NetRPCUnsupportedPlugin

	driver plugins.Driver
}

func (p *service) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	wire.Serve(s, p.driver, Logger())
	return nil
}

func (p *service) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, plugins.ErrUnsupported
}

// Logger returns a logger whose lines the host takes into its own log, with their
// levels and attributes.
func Logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: hostNames}))
}

// hostNames gives what each line has the names that the host reads.
func hostNames(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		return slog.String("@timestamp", a.Value.Time().Format("2006-01-02T15:04:05.000000Z07:00"))
	case slog.LevelKey:
		return slog.String("@level", strings.ToLower(a.Value.String()))
	case slog.MessageKey:
		a.Key = "@message"
	}
	return a
}

// dieWithParent ends this process when the one that started it is gone, whatever
// the driver is doing. A plugin without its host serves nobody.
func dieWithParent() {
	parent := os.Getppid()
	go func() {
		if fd, err := strconv.Atoi(os.Getenv(wire.ParentKey)); err == nil && fd > 2 {
			// It has no content: it ends with the host.
			_, _ = io.Copy(io.Discard, os.NewFile(uintptr(fd), "parent"))
		} else {
			if parent <= 1 {
				return
			}
			tick := time.NewTicker(time.Second)
			for os.Getppid() == parent {
				<-tick.C
			}
		}
		if dir := os.Getenv(wire.DirKey); strings.HasPrefix(filepath.Base(dir), wire.DirPrefix) {
			_ = os.RemoveAll(dir)
		}
		os.Exit(1) //nolint:forbidigo // nobody is left who would wait for this program to end in order
	}()
}
