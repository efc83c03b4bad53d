package agent

import (
	"context"
	"log/slog"

	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// events records events. An event that the server rejects is logged.
type events struct {
	client carav1.EventServiceClient
	node   string
	log    *slog.Logger
}

// ofNode records an event about this node.
func (e *events) ofNode(ctx context.Context, typ api.EventType, reason api.Reason, message string) {
	e.record(ctx, &carav1.ObjectRef{Kind: api.KindNode, Name: e.node}, typ, reason, message)
}

func (e *events) record(ctx context.Context, object *carav1.ObjectRef, typ api.EventType, reason api.Reason, message string) {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	_, err := e.client.CreateEvent(ctx, &carav1.CreateEventRequest{Event: &carav1.Event{
		Type: string(typ), Reason: string(reason), Message: text.Clip(message, step.MaxMessage), Object: object,
	}})
	if err != nil {
		e.log.Warn("an event was not taken", "reason", reason, "message", message, "error", err)
	}
}

// ofProject records an event about a project.
func (e *events) ofProject(ctx context.Context, want *step.Want, typ api.EventType, reason api.Reason, message string) {
	e.record(ctx, &carav1.ObjectRef{Kind: api.KindProject, Name: want.Project, Uid: want.UID}, typ, reason, message)
}
