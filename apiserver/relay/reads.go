package relay

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// reading is a request for something that the agent knows of some services of a project; of all if it names none.
type reading interface {
	GetName() string
	GetServices() []string
}

// projectOf returns the project of a request, whose services it has.
func (r *Relay) projectOf(req reading, what string) (*carav1.Project, error) {
	p, err := r.placed(req.GetName(), what)
	if err != nil {
		return nil, err
	}
	return p, knownServices(p, req.GetServices())
}

// Logs streams the logs of a project's containers from its agent.
func (r *Relay) Logs(req *carav1.LogsRequest, out carav1.ProjectService_LogsServer) error {
	p, err := r.projectOf(req, "are no logs yet")
	if err != nil {
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

// Top streams the resource usage of a project's services, as its agent measures it.
func (r *Relay) Top(req *carav1.TopRequest, out carav1.ProjectService_TopServer) error {
	p, err := r.projectOf(req, "is nothing to measure yet")
	if err != nil {
		return err
	}
	switch w, err := r.remote(out.Context(), p.GetStatus().GetNodeRef()); {
	case err != nil:
		return err
	case w != nil:
		defer w.finish()
		far, err := w.Top(w.ctx, req)
		return copyAnswers(out.Context(), r, w, far, err, out.Send)
	}
	ask := &carav1.OpenStream{Kind: &carav1.OpenStream_Top{Top: proto.CloneOf(req)}}
	return r.carry(out.Context(), p.GetStatus().GetNodeRef(), ask, talk{down: func(msg *carav1.AttachRequest) error {
		top := msg.GetTop()
		if top == nil {
			return nil
		}
		order := serviceNames(p)
		slices.SortFunc(top.GetServices(), func(a, b *carav1.ServiceUsage) int {
			return slices.Index(order, a.GetService()) - slices.Index(order, b.GetService())
		})
		return out.Send(top)
	}})
}

// historyTimeout is how long an agent may take to send the history.
const historyTimeout = 30 * time.Second

// GetUsageHistory returns what a project's services used in the last hour, as its agent has kept it.
func (r *Relay) GetUsageHistory(ctx context.Context, req *carav1.UsageHistoryRequest) (*carav1.UsageHistory, error) {
	p, err := r.projectOf(req, "is nothing to measure yet")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, historyTimeout)
	defer cancel()
	switch w, err := r.remote(ctx, p.GetStatus().GetNodeRef()); {
	case err != nil:
		return nil, err
	case w != nil:
		defer w.finish()
		out, err := w.GetUsageHistory(w.ctx, req) //nolint:contextcheck // it is derived from ctx
		return out, r.failed(ctx, w, err)
	}
	names := serviceNames(p)
	sent := make([]*carav1.ServiceUsageHistory, len(names)) // at most one for each service, whatever the agent sends
	ask := &carav1.OpenStream{Kind: &carav1.OpenStream_UsageHistory{UsageHistory: proto.CloneOf(req)}}
	err = r.carry(ctx, p.GetStatus().GetNodeRef(), ask, talk{down: func(msg *carav1.AttachRequest) error {
		if i := slices.Index(names, msg.GetUsageHistory().GetService()); i >= 0 {
			sent[i] = msg.GetUsageHistory()
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	sent = slices.DeleteFunc(sent, func(s *carav1.ServiceUsageHistory) bool { return s == nil })
	return &carav1.UsageHistory{Services: sent}, nil
}
