package apiserver

import (
	"context"
	"log/slog"

	"google.golang.org/grpc/codes"
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

// audit writes one line for each call that changes something or tries to, and for each decision of a ScheduleProjects.
// Regular reports of agents and loops are logged at debug level. Texts from outside are truncated. Failures of
// unauthenticated callers are sampled, because anyone can cause them.
func (s *Server) audit(ctx context.Context, actor identity.Actor, method string, req, resp any, err error) {
	m := methods[method]
	if !m.write {
		return
	}
	level := slog.LevelInfo
	if m.quiet || admission.Behalf(ctx) != nil && err == nil { // the server that the caller has called writes the line
		level = slog.LevelDebug
	}
	if !s.cfg.Logger.Enabled(ctx, level) {
		return
	}
	object := ""
	switch r := req.(type) {
	case *carav1.JoinRequest:
		object = r.GetNodeName()
		if err == nil && actor.Name == "" { // the token's secret authorises the caller to act as the node
			actor.Name = api.PrefixNode + object
		}
	case *carav1.ScheduleProjectsRequest:
		if out, ok := resp.(*carav1.ScheduleProjectsResponse); ok && err == nil {
			s.auditDecisions(ctx, actor, method, r, out)
			return
		}
	case proto.Message:
		object = objectName(r)
	}
	left, sampled := 0, true
	if err != nil && actor.Name == "" {
		left, sampled = s.anonymous.Say(s.db.Now())
	}
	if !sampled {
		return
	}
	attrs := auditAttrs(ctx, actor, method, object, api.ProblemOf(err), api.Code(err))
	if join, ok := req.(*carav1.JoinRequest); ok {
		attrs = append(attrs, slog.String("token", text.Printable(join.GetTokenId(), maxAuditName)))
	}
	if left > 0 {
		attrs = append(attrs, slog.Int("left_out", left))
	}
	s.cfg.Logger.LogAttrs(ctx, level, "audit", attrs...)
}

// auditDecisions writes one line for each decision.
func (s *Server) auditDecisions(ctx context.Context, actor identity.Actor, method string, req *carav1.ScheduleProjectsRequest, resp *carav1.ScheduleProjectsResponse) {
	for i, result := range resp.GetResults() {
		object := req.GetDecisions()[i].GetName()
		s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "audit", auditAttrs(ctx, actor, method, object, result.GetProblem(), codes.Code(result.GetCode()))...)
	}
}

// auditAttrs returns what every audit line has. problem is nil if the call succeeded.
func auditAttrs(ctx context.Context, actor identity.Actor, method, object string, problem *carav1.Problem, code codes.Code) []slog.Attr {
	attrs := []slog.Attr{
		slog.String("actor", actor.Name),
		slog.String("method", shortMethod(method)),
		slog.String("object", text.Printable(object, maxAuditName)),
		slog.String("outcome", code.String()),
		slog.String("client", admission.ClientAddr(ctx)),
	}
	if problem != nil {
		attrs = append(attrs, slog.String("detail", text.Printable(problem.GetDetail(), maxAuditDetail)))
	}
	return attrs
}
