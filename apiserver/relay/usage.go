package relay

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// historyTimeout is how long an agent may take to send the history.
const historyTimeout = 30 * time.Second

// GetUsageHistory returns what a project's services used in the last hour, as its agent has kept it.
func (r *Relay) GetUsageHistory(ctx context.Context, req *carav1.UsageHistoryRequest) (*carav1.UsageHistory, error) {
	p, err := r.placed(req.GetName(), "is nothing to measure yet")
	if err != nil {
		return nil, err
	}
	if err := knownServices(p, req.GetServices()); err != nil {
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
