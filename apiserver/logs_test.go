package apiserver

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// openStream returns the next request for a stream.
func (a *fakeAgent) openStream() *carav1.OpenStream {
	a.t.Helper()
	for {
		if open := a.next().GetOpenStream(); open != nil {
			return open
		}
	}
}

func (a *fakeAgent) attach(id string) carav1.NodeService_AttachClient {
	a.t.Helper()
	stream, err := carav1.NewNodeServiceClient(a.conn).Attach(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	if err := stream.Send(&carav1.AttachRequest{StreamId: id}); err != nil {
		a.t.Fatal(err)
	}
	return stream
}

func TestLogs(t *testing.T) {
	c := newCluster(t, nil)
	agent := connectAgent(t, c.node(t, "n1"), "a")
	agent.synced()
	other := &fakeAgent{t: t, conn: c.node(t, "n2")}
	c.create(t, web("shop"))
	c.bind(t, "shop", "n1")
	projects := carav1.NewProjectServiceClient(c.admin(t))

	logs, err := projects.Logs(t.Context(), &carav1.LogsRequest{Name: "shop", Follow: true, Tail: 7})
	if err != nil {
		t.Fatal(err)
	}
	open := agent.openStream()
	if open.GetLogs().GetName() != "shop" || open.GetLogs().GetTail() != 7 || !open.GetLogs().GetFollow() {
		t.Errorf("asked for %v", open)
	}
	// Another node cannot answer instead.
	_, err = other.attach(open.GetStreamId()).Recv()
	testproblem.Want(t, err, codes.NotFound, "")

	stream := agent.attach(open.GetStreamId())
	const lines = 5000
	go func() {
		for range lines {
			if stream.Send(&carav1.AttachRequest{Log: &carav1.LogLine{Service: "web", Line: strings.Repeat("x", 100)}}) != nil {
				return
			}
		}
		_ = stream.CloseSend()
	}()
	for i := range lines {
		line, err := logs.Recv()
		if err != nil || line.GetService() != "web" || len(line.GetLine()) != 100 {
			t.Fatalf("line %d: %v, %v", i, line, err)
		}
	}
	if _, err := logs.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	eventually(t, "the end of the stream", func() bool { return c.streams.Open() == 0 })
}

func TestLogsEnd(t *testing.T) {
	c := newCluster(t, nil)
	agent := connectAgent(t, c.node(t, "n1"), "a")
	agent.synced()
	c.create(t, web("shop"))
	c.bind(t, "shop", "n1")
	projects := carav1.NewProjectServiceClient(c.admin(t))
	begin := func(ctx context.Context) (carav1.ProjectService_LogsClient, carav1.NodeService_AttachClient) {
		t.Helper()
		logs, err := projects.Logs(ctx, &carav1.LogsRequest{Name: "shop", Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		stream := agent.attach(agent.openStream().GetStreamId()) //nolint:contextcheck // the agent is another program: its streams have a context of its own
		if err := stream.Send(&carav1.AttachRequest{Log: &carav1.LogLine{Line: "hello"}}); err != nil {
			t.Fatal(err)
		}
		if line, err := logs.Recv(); err != nil || line.GetLine() != "hello" {
			t.Fatalf("%v, %v", line, err)
		}
		return logs, stream
	}

	ctx, cancel := context.WithCancel(t.Context())
	_, stream := begin(ctx)
	cancel()
	if _, err := stream.Recv(); err == nil {
		t.Error("the caller left and the agent's stream goes on")
	}

	logs, stream := begin(t.Context())
	if err := stream.Send(&carav1.AttachRequest{Error: "the container is gone"}); err != nil {
		t.Fatal(err)
	}
	_, err := logs.Recv()
	testproblem.Want(t, err, codes.Unavailable, "")
	if !strings.Contains(err.Error(), "node n1: the container is gone") {
		t.Errorf("%v", err)
	}

	logs, _ = begin(t.Context())
	c.stop()
	_, err = logs.Recv()
	testproblem.Want(t, err, codes.Unavailable, "")
}

func TestLogsRefused(t *testing.T) {
	c := newCluster(t, nil)
	c.node(t, "n1")
	c.create(t, web("pending"))
	c.create(t, web("placed"))
	c.bind(t, "placed", "n1")
	projects := carav1.NewProjectServiceClient(c.admin(t))
	tests := []struct {
		name string
		req  *carav1.LogsRequest
		code codes.Code
		want string
	}{
		{"no project", &carav1.LogsRequest{Name: "nothing"}, codes.NotFound, "not found"},
		{"no node", &carav1.LogsRequest{Name: "pending"}, codes.FailedPrecondition, "on no node"},
		{"no service", &carav1.LogsRequest{Name: "placed", Services: []string{"db"}}, codes.InvalidArgument, "has web"},
		{"node away", &carav1.LogsRequest{Name: "placed"}, codes.Unavailable, "node n1 is not connected"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			logs, err := projects.Logs(t.Context(), test.req)
			if err != nil {
				t.Fatal(err)
			}
			_, err = logs.Recv()
			testproblem.Want(t, err, test.code, "")
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}
