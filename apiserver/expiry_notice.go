package apiserver

import (
	"context"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// NoticeExpiry says on a project that it will expire soon. Whoever moves the expiry takes the notice away again.
func (s projectService) NoticeExpiry(ctx context.Context, req *carav1.RemoveProjectRequest) (*empty, error) {
	_, err := s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		if err := mustBe(p, req.GetUid(), ""); err != nil {
			return err
		}
		at := p.GetStatus().GetExpireAt()
		if at == nil || !at.AsTime().After(t.Now) || p.GetMetadata().GetDeletionTimestamp() != nil || api.IsTrue(p.GetStatus().GetConditions(), api.CondExpiring) {
			return nil
		}
		message := "expires at " + at.AsTime().UTC().Format(time.RFC3339) + "; caractrl extend " + req.GetName() + " 24h keeps it longer"
		setCondition(t, p, &carav1.Condition{Type: api.CondExpiring, Status: api.StatusTrue, Reason: api.ReasonSoon, Message: message})
		recordEvent(t, refTo(p), api.EventNormal, api.ReasonExpiring, message)
		return nil
	})
	return &empty{}, err
}
