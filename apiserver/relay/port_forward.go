package relay

import (
	"errors"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// PortForward carries one connection to a port of a service. The response header means that the request is valid and that
// the caller may send. Each direction ends separately; the call ends when both have ended.
func (r *Relay) PortForward(stream carav1.ProjectService_PortForwardServer) error {
	first, err := stream.Recv()
	if err != nil {
		return NoStart(err)
	}
	if first.GetStart() == nil {
		return NoStart(nil)
	}
	start := proto.CloneOf(first.GetStart())
	p, err := r.placed(start.GetName(), "is nothing to connect to")
	if err != nil {
		return err
	}
	if start.Service, err = oneService(p, start.GetService()); err != nil {
		return err
	}
	if err := stream.SendHeader(nil); err != nil { // the caller sends nothing before it: see cli
		return err
	}
	in := portInput{stream: stream}
	ask := &carav1.OpenStream{Kind: &carav1.OpenStream_PortForward{PortForward: start}}
	return r.carry(stream.Context(), p.GetStatus().GetNodeRef(), ask, talk{
		up: in.next,
		down: func(msg *carav1.AttachRequest) error {
			if msg.GetPortForward() == nil {
				return nil
			}
			return stream.Send(msg.GetPortForward())
		},
	})
}

// portInput is what a caller sends on its connection. If the caller closes its side, that direction ends.
type portInput struct {
	stream carav1.ProjectService_PortForwardServer
	closed bool
}

func (in *portInput) next() (*carav1.AttachResponse, error) {
	req, err := in.stream.Recv()
	switch {
	case errors.Is(err, io.EOF) && in.closed:
		return nil, io.EOF
	case errors.Is(err, io.EOF):
		in.closed = true
		req = &carav1.PortForwardRequest{Message: &carav1.PortForwardRequest_Closed{Closed: true}}
	case err != nil:
		return nil, err
	case req.GetStart() != nil:
		return nil, api.Invalid("the request", api.Field("start", "is for the first message alone"))
	}
	return &carav1.AttachResponse{PortForward: req}, nil
}
