package agent

import (
	"context"

	"github.com/caravanserai/cara/agent/step"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/text"
)

// tell records an event about this node.
func (a *Agent) tell(ctx context.Context, typ api.EventType, reason api.Reason, message string) {
	a.tellOf(ctx, &carav1.ObjectRef{Kind: api.KindNode, Name: a.cfg.NodeName}, typ, reason, message)
}

// tellOf records an event. One that cannot be told is in the log.
func (a *Agent) tellOf(ctx context.Context, object *carav1.ObjectRef, typ api.EventType, reason api.Reason, message string) {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	_, err := a.events.CreateEvent(ctx, &carav1.CreateEventRequest{Event: &carav1.Event{
		Type: string(typ), Reason: string(reason), Message: text.Clip(message, step.MaxMessage), Object: object,
	}})
	if err != nil {
		a.log.Warn("an event was not taken", "reason", reason, "message", message, "error", err)
	}
}

// tellProject records an event about a project.
func (a *Agent) tellProject(ctx context.Context, want *step.Want, typ api.EventType, reason api.Reason, message string) {
	a.tellOf(ctx, &carav1.ObjectRef{Kind: api.KindProject, Name: want.Project, Uid: want.UID}, typ, reason, message)
}

// tellSecrets records an event when containers are replaced because Secrets have new values.
func (a *Agent) tellSecrets(ctx context.Context, want *step.Want, have *step.Have, w *workspace) {
	version, message := step.NewSecrets(want, have)
	if message == "" || w.told == version {
		return
	}
	w.told = version
	a.tellProject(ctx, want, api.EventNormal, api.ReasonSecretChanged, message)
}

// unpin goes back to the tag of each service whose digest the registry no longer has, and says so.
func (a *Agent) unpin(ctx context.Context, t *task, want *step.Want, w *workspace) (unpinned bool) {
	next, said := want.Unpin(w.memory.Pulls)
	for _, message := range said {
		a.log.Warn("the digest of an image is gone", "project", want.Project, "detail", message)
		a.tellProject(ctx, want, api.EventWarning, api.ReasonImageDigestGone, message)
	}
	if next == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.want == want {
		t.want = next
	}
	return true
}
