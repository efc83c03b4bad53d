package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Exec runs a command in a container of a project, on the node of the project. An event records the caller.
func (r *Relay) Exec(stream carav1.ProjectService_ExecServer) error {
	first, err := stream.Recv()
	if err != nil {
		return NoStart(err)
	}
	if first.GetStart() == nil {
		return NoStart(nil)
	}
	start := proto.CloneOf(first.GetStart())
	p, err := r.placed(start.GetName(), "is no container to run anything in")
	if err != nil {
		return err
	}
	if start.Service, err = oneService(p, start.GetService()); err != nil {
		return err
	}
	if node := p.GetStatus().GetNodeRef(); r.Sessions.Of(node) == nil { // before the event says that it runs
		return errNotConnected(node)
	}
	if err := r.tellExec(stream.Context(), p, start); err != nil {
		return err
	}
	ended := false
	in := execInput{stream: stream}
	ask := &carav1.OpenStream{Kind: &carav1.OpenStream_Exec{Exec: start}}
	err = r.carry(stream.Context(), p.GetStatus().GetNodeRef(), ask, talk{
		up: in.next,
		down: func(msg *carav1.AttachRequest) error {
			if msg.GetExec() == nil {
				return nil
			}
			_, exit := msg.GetExec().GetMessage().(*carav1.ExecResponse_ExitCode)
			ended = ended || exit
			return stream.Send(msg.GetExec())
		},
	})
	if err == nil && !ended {
		return errNodeLeft(p.GetStatus().GetNodeRef())
	}
	return err
}

// tellExec records an event with only the first word of the command, because the arguments may contain secrets.
func (r *Relay) tellExec(ctx context.Context, p *carav1.Project, start *carav1.ExecStart) error {
	return r.DB.Transact(ctx, func(t *state.Tx) error {
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonExec, fmt.Sprintf("%s runs %.64q in service %s", t.Actor.Name, path.Base(start.GetCommand()[0]), start.GetService()))
		return nil
	})
}

// execInput is what a caller sends to its command. If the caller closes its side, the input ends.
type execInput struct {
	stream carav1.ProjectService_ExecServer
	closed bool
}

func (in *execInput) next() (*carav1.AttachResponse, error) {
	req, err := in.stream.Recv()
	switch {
	case errors.Is(err, io.EOF) && in.closed:
		return nil, io.EOF
	case errors.Is(err, io.EOF):
		in.closed = true
		req = &carav1.ExecRequest{Message: &carav1.ExecRequest_StdinClosed{StdinClosed: true}}
	case err != nil:
		return nil, err
	case req.GetStart() != nil:
		return nil, api.Invalid("the request", api.Field("start", "is for the first message alone"))
	}
	return &carav1.AttachResponse{Exec: req}, nil
}

// NoStart returns the error for a stream that does not begin with `start`.
func NoStart(err error) error {
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return api.BadRequest("the first message has to be `start`")
}
