package apiserver

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// deafStream takes what is sent to the agent, or blocks as one that does not read.
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

// unused is a store that nobody calls.
type unused struct{ store.Store }

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
				s, err := New(Config{Store: unused{}, Authenticator: names{}})
				if err != nil {
					t.Fatal(err)
				}
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				agent, end := context.WithCancelCause(t.Context())
				block := make(chan struct{})
				me := &session{node: "n1", instance: "a", end: end, ended: agent.Done(), stream: deafStream{}}
				if test.deaf {
					me.stream = deafStream{block: block}
				}
				s.sessions.enter(me)
				w, err := s.meetings.expect(ctx, "n1", maxAttached)
				if err != nil {
					t.Fatal(err)
				}
				result := make(chan error, 1)
				go func() {
					_, err := s.openStream(ctx, w, &carav1.OpenStream{})
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
				if _, err := s.meetings.find(w.id, "n1"); err == nil {
					t.Error("a stream that was given up can still be found")
				}
				close(block)
			})
		})
	}
}

func TestMeetingsAreBounded(t *testing.T) {
	var m meetings
	var last *meeting
	for range maxAttached {
		w, err := m.expect(t.Context(), "n1", maxAttached)
		if err != nil {
			t.Fatal(err)
		}
		last = w
	}
	_, err := m.expect(t.Context(), "n1", maxAttached)
	wantCode(t, err, codes.ResourceExhausted, "")
	last.finish()
	if _, err := m.expect(t.Context(), "n1", maxAttached); err != nil {
		t.Error(err)
	}
}

// TestMeetingsAreBoundedForEachCaller: one caller who opens many streams leaves room for the others.
func TestMeetingsAreBoundedForEachCaller(t *testing.T) {
	var m meetings
	as := func(name string) context.Context {
		return identity.WithActor(t.Context(), identity.Actor{Name: name, Role: api.RoleViewer})
	}
	var last *meeting
	for range 3 {
		w, err := m.expect(as("user/greedy"), "n1", 3)
		if err != nil {
			t.Fatal(err)
		}
		last = w
	}
	_, err := m.expect(as("user/greedy"), "n1", 3)
	wantCode(t, err, codes.ResourceExhausted, api.TitleTooMany)
	if _, err := m.expect(as("user/other"), "n1", 3); err != nil {
		t.Errorf("another caller: %v", err)
	}
	last.finish()
	last.finish() // a second time changes nothing
	if _, err := m.expect(as("user/greedy"), "n1", 3); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}
