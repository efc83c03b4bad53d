package relay

import (
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Logs streams the logs of a project's containers from its agent.
func (r *Relay) Logs(req *carav1.LogsRequest, out carav1.ProjectService_LogsServer) error {
	p, err := r.placed(req.GetName(), "are no logs yet")
	if err != nil {
		return err
	}
	if err := knownServices(p, req.GetServices()); err != nil {
		return err
	}
	if req.GetPrevious() && req.GetFollow() {
		return api.Invalid("the request", api.Field("previous", "and follow do not go together: a previous run has ended"))
	}
	switch w, err := r.remote(out.Context(), p.GetStatus().GetNodeRef()); {
	case err != nil:
		return err
	case w != nil:
		defer w.finish()
		far, err := w.Logs(w.ctx, req)
		return copyAnswers(out.Context(), r, w, far, err, out.Send)
	}
	ask := &carav1.OpenStream{Kind: &carav1.OpenStream_Logs{Logs: proto.CloneOf(req)}}
	return r.carry(out.Context(), p.GetStatus().GetNodeRef(), ask, talk{down: func(msg *carav1.AttachRequest) error {
		if msg.GetLog() == nil {
			return nil
		}
		return out.Send(msg.GetLog())
	}})
}
