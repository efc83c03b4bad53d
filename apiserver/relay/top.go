package relay

import (
	"slices"

	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Top streams the resource usage of a project's services, as its agent measures it.
func (r *Relay) Top(req *carav1.TopRequest, out carav1.ProjectService_TopServer) error {
	p, err := r.placed(req.GetName(), "is nothing to measure yet")
	if err != nil {
		return err
	}
	if err := knownServices(p, req.GetServices()); err != nil {
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
