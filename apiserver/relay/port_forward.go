package relay

import (
	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// PortForward carries one connection to a port of a service. The response header means that the request is valid and that
// the caller may send. Each direction ends separately; the call ends when both have ended.
func (r *Relay) PortForward(stream carav1.ProjectService_PortForwardServer) error {
	start, err := begun(stream.Recv)
	if err != nil {
		return err
	}
	start = proto.CloneOf(start)
	p, err := r.placed(start.GetName(), "is nothing to connect to")
	if err == nil {
		start.Service, err = oneService(p, start.GetService())
	}
	if err != nil {
		return err
	}
	switch w, err := r.remote(stream.Context(), p.GetStatus().GetNodeRef()); {
	case err != nil:
		return err
	case w != nil:
		defer w.finish()
		far, err := w.PortForward(w.ctx)
		return copyBoth(stream.Context(), r, w, far, err, stream, &carav1.PortForwardRequest{Message: &carav1.PortForwardRequest_Start{Start: start}})
	}
	if err := stream.SendHeader(nil); err != nil { // the caller sends nothing before it: see cli
		return err
	}
	closed := &carav1.PortForwardRequest{Message: &carav1.PortForwardRequest_Closed{Closed: true}}
	ask := &carav1.OpenStream{Kind: &carav1.OpenStream_PortForward{PortForward: start}}
	return r.carry(stream.Context(), p.GetStatus().GetNodeRef(), ask, talk{
		up: sent(stream.Recv, closed, func(req *carav1.PortForwardRequest) *carav1.AttachResponse {
			return &carav1.AttachResponse{PortForward: req}
		}),
		down: func(msg *carav1.AttachRequest) error {
			if msg.GetPortForward() == nil {
				return nil
			}
			return stream.Send(msg.GetPortForward())
		},
	})
}
