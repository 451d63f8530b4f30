package host

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// sink takes lines of go-plugin, and those of the plugin, which come through it.
type sink struct{ log *slog.Logger }

// plumbing are go-plugin's own lines, of no use to an administrator.
var plumbing = []string{
	"starting plugin", "plugin started", "waiting for RPC address", "using plugin", "plugin address", "plugin process exited", "plugin exited",
	"stdio", "received EOF", "configuring client automatic mTLS", "reading plugin",
}

// Accept takes one line.
func (s *sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	at := map[hclog.Level]slog.Level{
		hclog.Trace: slog.LevelDebug, hclog.Debug: slog.LevelDebug, hclog.Info: slog.LevelInfo, hclog.Warn: slog.LevelWarn, hclog.Error: slog.LevelError,
	}[level]
	for _, p := range plumbing {
		if strings.HasPrefix(msg, p) {
			at = slog.LevelDebug
		}
	}
	if !s.log.Enabled(context.Background(), at) {
		return
	}
	var attrs []any
	for i := 0; i+1 < len(args); i += 2 {
		key := fmt.Sprint(args[i])
		switch key {
		case "timestamp", "@timestamp", "path", "args":
			continue
		}
		attrs = append(attrs, slog.Any(key, fmt.Sprint(args[i+1])))
	}
	s.log.Log(context.Background(), at, msg, attrs...)
}
