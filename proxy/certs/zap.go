package certs

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapTo makes the logger that certmagic wants of ours. What it calls information is of use to who debugs it.
func zapTo(log *slog.Logger) *zap.Logger { return zap.New(&core{log: log}) }

// core is a zapcore.Core over slog.
type core struct{ log *slog.Logger }

func level(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.WarnLevel:
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}

// Enabled tells zap if a level is worth the trouble.
func (c *core) Enabled(l zapcore.Level) bool { return c.log.Enabled(context.Background(), level(l)) }

// With makes a core whose lines carry these fields.
func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{log: c.log.With(attrs(fields)...)}
}

// Check adds this core to those that write the entry.
func (c *core) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return to.AddCore(e, c)
	}
	return to
}

// Write writes one line.
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.Log(context.Background(), level(e.Level), "acme", append([]any{"text", e.Message, "from", e.LoggerName}, attrs(fields)...)...)
	return nil
}

// Sync has nothing to do.
func (c *core) Sync() error { return nil }

func attrs(fields []zapcore.Field) []any {
	encoded := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(encoded)
	}
	var list []any
	for _, key := range slices.Sorted(maps.Keys(encoded.Fields)) {
		list = append(list, slog.Any(key, encoded.Fields[key]))
	}
	return list
}
