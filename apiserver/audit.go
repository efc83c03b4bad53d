package apiserver

import (
	"context"
	"log/slog"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
)

// audit writes one line for each call that changes something, or tried to. What agents and loops report all the time
// goes out at debug level.
func (s *Server) audit(ctx context.Context, actor Actor, method string, req any, err error) {
	m := methods[method]
	if !m.write {
		return
	}
	level := slog.LevelInfo
	if m.quiet {
		level = slog.LevelDebug
	}
	if !s.cfg.Logger.Enabled(ctx, level) {
		return
	}
	object := ""
	if msg, ok := req.(proto.Message); ok && msg != nil {
		object = objectName(msg)
	}
	attrs := []slog.Attr{
		slog.String("actor", actor.Name),
		slog.String("method", shortMethod(method)),
		slog.String("object", object),
		slog.String("outcome", api.Code(err).String()),
	}
	if err != nil {
		attrs = append(attrs, slog.String("detail", api.ProblemOf(err).GetDetail()))
	}
	s.cfg.Logger.LogAttrs(ctx, level, "audit", attrs...)
}
