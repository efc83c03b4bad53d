package apiserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/relay"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/flow"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// execWorld is a node whose agent is the test, with the project shop on it.
type execWorld struct {
	*cluster
	agent    *fakeAgent
	projects carav1.ProjectServiceClient
}

func newExecWorld(t *testing.T) *execWorld {
	t.Helper()
	c := newCluster(t, nil)
	agent := connectAgent(t, c.node(t, "n1"), "a")
	agent.synced()
	c.create(t, web("shop"))
	c.bind(t, "shop", "n1")
	return &execWorld{c, agent, carav1.NewProjectServiceClient(c.admin(t))}
}

func execStart(project, service string, command ...string) *carav1.ExecRequest {
	return &carav1.ExecRequest{Message: &carav1.ExecRequest_Start{Start: &carav1.ExecStart{Name: project, Service: service, Command: command, Stdin: true}}}
}

func execStdin(data []byte) *carav1.ExecRequest {
	return &carav1.ExecRequest{Message: &carav1.ExecRequest_Stdin{Stdin: data}}
}

func stdout(data []byte) *carav1.AttachRequest {
	return &carav1.AttachRequest{Exec: &carav1.ExecResponse{Message: &carav1.ExecResponse_Stdout{Stdout: data}}}
}

// begin starts a command, and returns both ends when the agent has attached.
func (w *execWorld) begin(ctx context.Context, t *testing.T) (carav1.ProjectService_ExecClient, carav1.NodeService_AttachClient) {
	t.Helper()
	call, err := w.projects.Exec(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := call.Send(execStart("shop", "", "sh", "-c", "secret words")); err != nil {
		t.Fatal(err)
	}
	open := w.agent.openStream()
	if e := open.GetExec(); e.GetName() != "shop" || e.GetService() != "web" || len(e.GetCommand()) != 3 || open.GetWindow() <= 0 {
		t.Errorf("the agent is asked for %v", open)
	}
	return call, w.agent.attach(open.GetStreamId()) //nolint:contextcheck // the agent is another program: its streams have a context of its own
}

func TestExec(t *testing.T) {
	w := newExecWorld(t)
	call, agent := w.begin(t.Context(), t)
	if err := call.Send(execStdin([]byte("hello"))); err != nil {
		t.Fatal(err)
	}
	if err := call.CloseSend(); err != nil { // like stdinClosed
		t.Fatal(err)
	}
	if m, err := agent.Recv(); err != nil || string(m.GetExec().GetStdin()) != "hello" {
		t.Errorf("input: %v, %v", m, err)
	}
	if m, err := agent.Recv(); err != nil || !m.GetExec().GetStdinClosed() {
		t.Errorf("the end of the input: %v, %v", m, err)
	}
	exit := &carav1.AttachRequest{Exec: &carav1.ExecResponse{Message: &carav1.ExecResponse_ExitCode{ExitCode: 7}}}
	for _, m := range []*carav1.AttachRequest{stdout([]byte("out")), exit} {
		if err := agent.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := agent.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if m, err := call.Recv(); err != nil || string(m.GetStdout()) != "out" {
		t.Errorf("output: %v, %v", m, err)
	}
	if m, err := call.Recv(); err != nil || m.GetExitCode() != 7 {
		t.Errorf("exit code: %v, %v", m, err)
	}
	if _, err := call.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	events, err := carav1.NewEventServiceClient(w.admin(t)).ListEvents(t.Context(), &carav1.ListEventsRequest{Kind: api.KindProject, Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	last := events.GetItems()[len(events.GetItems())-1]
	if last.GetReason() != "Exec" || last.GetMessage() != `user/admin runs "sh" in service web` {
		t.Errorf("the last event: %v", last)
	}
	eventually(t, "the audit line", func() bool { return strings.Contains(w.log.String(), "method=Exec object=shop outcome=OK") })
	if strings.Contains(w.log.String(), "secret words") {
		t.Error("the command's arguments are in the log")
	}
}

// TestExecEnds: if one side disconnects, the other gets an error.
func TestExecEnds(t *testing.T) {
	w := newExecWorld(t)
	ctx, leave := context.WithCancel(t.Context())
	_, agent := w.begin(ctx, t)
	leave()
	if _, err := agent.Recv(); err == nil {
		t.Error("the caller left and the agent's stream goes on")
	}

	call, agent := w.begin(t.Context(), t)
	if err := agent.Send(&carav1.AttachRequest{Error: "service web is not running", Code: int32(codes.FailedPrecondition)}); err != nil {
		t.Fatal(err)
	}
	_, err := call.Recv()
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)

	call, agent = w.begin(t.Context(), t)
	if err := agent.CloseSend(); err != nil { // without an exit code
		t.Fatal(err)
	}
	_, err = call.Recv()
	testproblem.Want(t, err, codes.Unavailable, "")

	call, agent = w.begin(t.Context(), t)
	if err := call.Send(execStart("shop", "", "again")); err != nil {
		t.Fatal(err)
	}
	_, err = call.Recv()
	testproblem.Want(t, err, codes.InvalidArgument, "")
	if _, err := agent.Recv(); err == nil {
		t.Error("the caller was refused and the agent's stream goes on")
	}

	call, agent = w.begin(t.Context(), t)
	if err := call.Send(execStdin(make([]byte, 1<<20))); err != nil {
		t.Fatal(err)
	}
	_, err = call.Recv()
	testproblem.Want(t, err, codes.InvalidArgument, "")
	if _, err := agent.Recv(); err == nil {
		t.Error("the caller was refused and the agent's stream goes on")
	}

	call, _ = w.begin(t.Context(), t)
	w.stop()
	_, err = call.Recv()
	testproblem.Want(t, err, codes.Unavailable, "")
}

func TestExecRefused(t *testing.T) {
	w := newExecWorld(t)
	p := web("two")
	p.Spec.Services = append(p.Spec.Services, &carav1.Service{Name: "db", Image: "x"})
	w.create(t, p)
	tests := []struct {
		name  string
		first *carav1.ExecRequest
		code  codes.Code
		want  string
	}{
		{"no start", execStdin([]byte("x")), codes.InvalidArgument, "has to be `start`"},
		{"no command", execStart("shop", ""), codes.InvalidArgument, "command"},
		{"no project", execStart("nothing", "", "ls"), codes.NotFound, "not found"},
		{"no node", execStart("two", "db", "ls"), codes.FailedPrecondition, "on no node"},
		{"no such service", execStart("shop", "db", "ls"), codes.InvalidArgument, `is "db"; project "shop" has web`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			call, err := w.projects.Exec(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := call.Send(test.first); err != nil {
				t.Fatal(err)
			}
			_, err = call.Recv()
			testproblem.Want(t, err, test.code, "")
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// An event says that a command runs, so there must be none if no agent can run it.
func TestExecWithoutAnAgentLeavesNoEvent(t *testing.T) {
	c := newCluster(t, nil)
	c.node(t, "n1")
	c.create(t, web("shop"))
	c.bind(t, "shop", "n1")
	call, err := carav1.NewProjectServiceClient(c.admin(t)).Exec(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := call.Send(execStart("shop", "", "ls")); err != nil {
		t.Fatal(err)
	}
	_, err = call.Recv()
	testproblem.Want(t, err, codes.Unavailable, "")
	events, err := carav1.NewEventServiceClient(c.admin(t)).ListEvents(t.Context(), &carav1.ListEventsRequest{Kind: api.KindProject, Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events.GetItems() {
		if e.GetReason() == "Exec" {
			t.Errorf("an event about a command that did not run: %v", e)
		}
	}
}

// TestStreamsAreChanges: a viewer, or a deployer with another prefix, may not run a command.
func TestStreamsAreChanges(t *testing.T) {
	h := newHouse(t, nil)
	h.do(t, "admin", "POST", "/api/v1/projects", manifest("shop", "nginx:1"))
	for _, who := range []string{"viewer", "ci", "n1"} {
		projects := carav1.NewProjectServiceClient(h.as(t, who))
		exec, err := projects.Exec(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = exec.Send(execStart("shop", "", "ls")) // the answer has the error
		_, err = exec.Recv()
		testproblem.Want(t, err, codes.PermissionDenied, "")
		forward, err := projects.PortForward(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = forward.Send(&carav1.PortForwardRequest{Message: &carav1.PortForwardRequest_Start{Start: &carav1.PortForwardStart{Name: "shop", Port: 80}}})
		_, err = forward.Recv()
		testproblem.Want(t, err, codes.PermissionDenied, "")
	}
}

// TestSlowCallerHoldsTheAgent: data that a caller does not read stays with the agent, and is complete when the caller reads
// again.
func TestSlowCallerHoldsTheAgent(t *testing.T) {
	w := newExecWorld(t)
	call, attach := w.begin(t.Context(), t)
	agent := flow.New[*carav1.AttachRequest, *carav1.AttachResponse](attach, relay.StreamWindow, func(n int64) *carav1.AttachRequest {
		return &carav1.AttachRequest{Taken: n}
	})
	go agent.Run(t.Context())
	const chunk, chunks = 32 << 10, 1000
	var sent atomic.Int64
	failed := make(chan error, 1)
	go func() {
		for i := range chunks {
			if err := agent.Send(t.Context(), stdout(bytes.Repeat([]byte{byte(i)}, chunk))); err != nil {
				failed <- err
				return
			}
			sent.Add(1)
		}
		failed <- attach.CloseSend()
	}()
	if n := settled(&sent); n > chunks/4 {
		t.Errorf("%d of %d messages went to a caller that reads none", n, chunks)
	}
	for i := range chunks {
		m, err := call.Recv()
		if err != nil || len(m.GetStdout()) != chunk || m.GetStdout()[0] != byte(i) {
			t.Fatalf("message %d: %d bytes, %v", i, len(m.GetStdout()), err)
		}
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

// TestFastCallerIsHeld: input that a command does not read stays with its caller, and is complete when the command reads
// again.
func TestFastCallerIsHeld(t *testing.T) {
	w := newExecWorld(t)
	call, attach := w.begin(t.Context(), t)
	agent := flow.New[*carav1.AttachRequest, *carav1.AttachResponse](attach, relay.StreamWindow, func(n int64) *carav1.AttachRequest {
		return &carav1.AttachRequest{Taken: n}
	})
	go agent.Run(t.Context())
	const chunk, chunks = 32 << 10, 1000
	var sent atomic.Int64
	failed := make(chan error, 1)
	go func() {
		for i := range chunks {
			if err := call.Send(execStdin(bytes.Repeat([]byte{byte(i)}, chunk))); err != nil {
				failed <- err
				return
			}
			sent.Add(1)
		}
		failed <- call.CloseSend()
	}()
	if n := settled(&sent); n > chunks/4 {
		t.Errorf("%d of %d messages went to a command that reads none", n, chunks)
	}
	for i := range chunks {
		m, err := agent.Recv(t.Context())
		if data := m.GetExec().GetStdin(); err != nil || len(data) != chunk || data[0] != byte(i) {
			t.Fatalf("message %d: %d bytes, %v", i, len(data), err)
		}
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

// settled returns a count when it has begun and has not changed for a while.
func settled(n *atomic.Int64) int64 {
	quiet := time.NewTicker(300 * time.Millisecond)
	defer quiet.Stop()
	for before := int64(-1); ; <-quiet.C {
		now := n.Load()
		if now == before && now > 0 {
			return now
		}
		before = now
	}
}
