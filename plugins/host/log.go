package host

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// sink takes lines of go-plugin, and those of the plugin, which come through it.
type sink struct {
	log *slog.Logger

	mu   sync.Mutex
	last string // that the plugin said, and not as a line of a log
}

func (s *sink) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

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
	plumb := slices.ContainsFunc(plumbing, func(p string) bool { return strings.HasPrefix(msg, p) })
	if plumb {
		at = slog.LevelDebug
	}
	if level == hclog.Debug && at == slog.LevelDebug && !plumb && strings.TrimSpace(msg) != "" {
		s.mu.Lock()
		s.last = strings.TrimSpace(msg)[:min(len(strings.TrimSpace(msg)), 300)]
		s.mu.Unlock()
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
