package relay

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/dispatch"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// deafStream accepts what is sent to the agent, or blocks like an agent that does not read.
type deafStream struct {
	grpc.ServerStream
	block <-chan struct{}
}

func (d deafStream) Send(*carav1.ConnectResponse) error {
	if d.block != nil {
		<-d.block
	}
	return nil
}

func (deafStream) Recv() (*carav1.ConnectRequest, error) { return nil, context.Canceled }

func TestOpenStreamGivesUp(t *testing.T) {
	tests := []struct {
		name   string
		during func(agent, caller context.CancelFunc)
		deaf   bool
		code   codes.Code
		want   string
	}{
		{"no answer", nil, false, codes.Unavailable, "did not answer within 10s"},
		{"does not read", nil, true, codes.Unavailable, "did not answer within 10s"},
		{"agent leaves", func(agent, _ context.CancelFunc) { agent() }, false, codes.Unavailable, "has disconnected"},
		{"caller leaves", func(_, caller context.CancelFunc) { caller() }, false, codes.Canceled, "canceled"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &Relay{DB: &state.DB{Draining: make(chan struct{})}, Sessions: new(dispatch.Sessions)}
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				agent, end := context.WithCancelCause(t.Context())
				block := make(chan struct{})
				me := &dispatch.Session{Node: "n1", Instance: "a", End: end, Ended: agent.Done(), Stream: deafStream{}}
				if test.deaf {
					me.Stream = deafStream{block: block}
				}
				r.Sessions.Enter(me)
				w, err := r.streams.expect(ctx, "n1", maxAttached)
				if err != nil {
					t.Fatal(err)
				}
				result := make(chan error, 1)
				go func() {
					_, err := r.openStream(ctx, w, &carav1.OpenStream{})
					result <- err
				}()
				synctest.Wait()
				if test.during != nil {
					test.during(func() { end(nil) }, leave)
				}
				err = <-result
				if api.Code(err) != test.code || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, want %v with %q", err, test.code, test.want)
				}
				w.finish()
				if _, err := r.streams.find(w.id, "n1"); err == nil {
					t.Error("a stream that was given up can still be found")
				}
				close(block)
			})
		})
	}
}

func TestStreamsAreBounded(t *testing.T) {
	var m agentStreams
	var last *agentStream
	for range maxAttached {
		w, err := m.expect(t.Context(), "n1", maxAttached)
		if err != nil {
			t.Fatal(err)
		}
		last = w
	}
	_, err := m.expect(t.Context(), "n1", maxAttached)
	testproblem.Want(t, err, codes.ResourceExhausted, "")
	last.finish()
	if _, err := m.expect(t.Context(), "n1", maxAttached); err != nil {
		t.Error(err)
	}
}

// TestStreamsAreBoundedForEachCaller: one caller who opens many streams leaves room for the others.
func TestStreamsAreBoundedForEachCaller(t *testing.T) {
	var m agentStreams
	as := func(name string) context.Context {
		return identity.WithActor(t.Context(), identity.Actor{Name: name, Role: api.RoleViewer})
	}
	var last *agentStream
	for range 3 {
		w, err := m.expect(as("user/greedy"), "n1", 3)
		if err != nil {
			t.Fatal(err)
		}
		last = w
	}
	_, err := m.expect(as("user/greedy"), "n1", 3)
	testproblem.Want(t, err, codes.ResourceExhausted, api.TitleTooMany)
	if _, err := m.expect(as("user/other"), "n1", 3); err != nil {
		t.Errorf("another caller: %v", err)
	}
	last.finish()
	last.finish() // a second time changes nothing
	if _, err := m.expect(as("user/greedy"), "n1", 3); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}

// TestForwardedStreamsAreBounded: streams to the agents of other servers count for their caller, and have a limit for all callers.
func TestForwardedStreamsAreBounded(t *testing.T) {
	var m agentStreams
	leave, err := m.forward("user/greedy", 2)
	if err != nil {
		t.Fatal(err)
	}
	greedy := identity.WithActor(t.Context(), identity.Actor{Name: "user/greedy", Role: api.RoleViewer})
	if _, err := m.expect(greedy, "n1", 2); err != nil {
		t.Fatal(err)
	}
	_, err = m.forward("user/greedy", 2)
	testproblem.Want(t, err, codes.ResourceExhausted, api.TitleTooMany)
	leave()
	leave() // a second time changes nothing
	for range maxAttached {
		if _, err := m.forward("user/other", maxAttached); err != nil {
			t.Fatal(err)
		}
	}
	_, err = m.forward("user/greedy", 2)
	testproblem.Want(t, err, codes.ResourceExhausted, api.TitleTooMany)
}
