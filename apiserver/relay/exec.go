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
	start, err := begun(stream.Recv)
	if err != nil {
		return err
	}
	start = proto.CloneOf(start)
	p, err := r.placed(start.GetName(), "is no container to run anything in")
	if err == nil {
		start.Service, err = oneService(p, start.GetService())
	}
	if err != nil {
		return err
	}
	switch w, err := r.remote(stream.Context(), p.GetStatus().GetNodeRef()); {
	case err != nil:
		return err
	case w != nil: // the other server records the event
		defer w.finish()
		far, err := w.Exec(w.ctx)
		return copyBoth(stream.Context(), r, w, far, err, stream, &carav1.ExecRequest{Message: &carav1.ExecRequest_Start{Start: start}})
	}
	if node := p.GetStatus().GetNodeRef(); r.Sessions.Of(node) == nil { // before the event says that it runs
		return errNotConnected(node)
	}
	if err := r.tellExec(stream.Context(), p, start); err != nil {
		return err
	}
	ended := false
	closed := &carav1.ExecRequest{Message: &carav1.ExecRequest_StdinClosed{StdinClosed: true}}
	ask := &carav1.OpenStream{Kind: &carav1.OpenStream_Exec{Exec: start}}
	err = r.carry(stream.Context(), p.GetStatus().GetNodeRef(), ask, talk{
		up: sent(stream.Recv, closed, func(req *carav1.ExecRequest) *carav1.AttachResponse { return &carav1.AttachResponse{Exec: req} }),
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

// begins is a message of a stream whose first message has `start`.
type begins[S any] interface{ GetStart() *S }

// begun returns the `start` of a stream.
func begun[R begins[S], S any](recv func() (R, error)) (*S, error) {
	first, err := recv()
	if err != nil || first.GetStart() == nil {
		return nil, NoStart(err)
	}
	return first.GetStart(), nil
}

// sent returns what a caller sends after `start`, for the node. When the caller closes its side, the node gets closed once.
func sent[R begins[S], S any](recv func() (R, error), closed R, wrap func(R) *carav1.AttachResponse) func() (*carav1.AttachResponse, error) {
	ended := false
	return func() (*carav1.AttachResponse, error) {
		req, err := recv()
		switch {
		case errors.Is(err, io.EOF) && ended:
			return nil, io.EOF
		case errors.Is(err, io.EOF):
			ended = true
			req = closed
		case err != nil:
			return nil, err
		case req.GetStart() != nil:
			return nil, api.Invalid("the request", api.Field("start", "is for the first message alone"))
		}
		return wrap(req), nil
	}
}

// NoStart returns the error for a stream that does not begin with `start`.
func NoStart(err error) error {
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return api.BadRequest("the first message has to be `start`")
}
