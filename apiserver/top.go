package apiserver

import (
	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Top streams what the services of a project use, as its agent measures it.
func (s projectService) Top(req *carav1.TopRequest, out carav1.ProjectService_TopServer) error {
	p, err := s.placed(req.GetName(), "is nothing to measure yet")
	if err != nil {
		return err
	}
	if err := knownServices(p, req.GetServices()); err != nil {
		return err
	}
	ask := &carav1.OpenStream{Kind: &carav1.OpenStream_Top{Top: proto.CloneOf(req)}}
	return s.relay(out.Context(), p.GetStatus().GetNodeRef(), ask, talk{down: func(msg *carav1.AttachRequest) error {
		if msg.GetTop() == nil {
			return nil
		}
		return out.Send(msg.GetTop())
	}})
}
