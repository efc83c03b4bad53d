package apiserver

import (
	"context"
	"log/slog"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

const (
	maxAuditName   = 128 // bytes of a name in an audit line
	maxAuditDetail = 512
)

// audit writes one line for each call that changes something or tries to. Regular reports of agents and loops are logged at
// debug level. Texts from outside are truncated. Failures of unauthenticated callers are sampled, because anyone can cause
// them.
func (s *Server) audit(ctx context.Context, actor identity.Actor, method string, req any, err error) {
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
	join, joins := req.(*carav1.JoinRequest)
	if joins {
		object = join.GetNodeName()
		if err == nil && actor.Name == "" { // the token's secret authorises the caller to act as the node
			actor.Name = api.PrefixNode + object
		}
	}
	left, sampled := int64(0), true
	if err != nil && actor.Name == "" {
		left, sampled = s.anonymous.Take(s.db.Now())
	}
	if !sampled {
		return
	}
	attrs := []slog.Attr{
		slog.String("actor", actor.Name),
		slog.String("method", shortMethod(method)),
		slog.String("object", text.Printable(object, maxAuditName)),
		slog.String("outcome", api.Code(err).String()),
		slog.String("client", admission.ClientAddr(ctx)),
	}
	if joins {
		attrs = append(attrs, slog.String("token", text.Printable(join.GetTokenId(), maxAuditName)))
	}
	if err != nil {
		attrs = append(attrs, slog.String("detail", text.Printable(api.ProblemOf(err).GetDetail(), maxAuditDetail)))
	}
	if left > 0 {
		attrs = append(attrs, slog.Int64("left_out", left))
	}
	s.cfg.Logger.LogAttrs(ctx, level, "audit", attrs...)
}
