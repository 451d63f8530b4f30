package acme

import (
	"context"
	"fmt"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// slogCore hands what certmagic logs, by zap, to a slog.Logger. Nil discards it.
type slogCore struct {
	log    *slog.Logger
	fields []zapcore.Field
}

// level lowers what is news only to who looks after certmagic itself.
func level(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Enabled reports whether anybody listens.
func (c slogCore) Enabled(l zapcore.Level) bool {
	return c.log != nil && c.log.Enabled(context.Background(), level(l))
}

// With adds fields.
func (c slogCore) With(fields []zapcore.Field) zapcore.Core {
	return slogCore{log: c.log, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// Check takes part if anybody listens.
func (c slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write logs one entry.
func (c slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, list := range [][]zapcore.Field{c.fields, fields} {
		for i := range list {
			list[i].AddTo(enc)
		}
	}
	args := make([]any, 0, 2*len(enc.Fields))
	for k, v := range enc.Fields {
		args = append(args, k, fmt.Sprint(v))
	}
	c.log.Log(context.Background(), level(e.Level), "acme: "+e.Message, args...)
	return nil
}

// Sync has nothing to do.
func (slogCore) Sync() error { return nil }
