package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	must(t, os.WriteFile(name, []byte(content), 0o600))
}

// serveLogs is a node's side of logs: it waits for one request, sends the lines, and returns the request.
func (h *testServer) serveLogs(ctx context.Context, node string, lines ...*carav1.LogLine) (*carav1.LogsRequest, error) {
	conn, err := h.as(ctx, node)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c := carav1.NewNodeServiceClient(conn)
	connect, err := c.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := connect.Send(&carav1.ConnectRequest{InstanceId: "test", Heartbeat: &carav1.Heartbeat{Info: &carav1.NodeInfo{Platform: "linux/amd64"}}}); err != nil {
		return nil, err
	}
	for {
		msg, err := connect.Recv()
		if err != nil {
			return nil, err
		}
		open := msg.GetOpenStream()
		if open == nil {
			continue
		}
		attach, err := c.Attach(ctx)
		if err != nil {
			return nil, err
		}
		if err := attach.Send(&carav1.AttachRequest{StreamId: open.GetStreamId()}); err != nil {
			return nil, err
		}
		for _, l := range lines {
			if err := attach.Send(&carav1.AttachRequest{Log: l}); err != nil {
				return nil, err
			}
		}
		if err := attach.CloseSend(); err != nil {
			return nil, err
		}
		if _, err = attach.Recv(); errors.Is(err, io.EOF) {
			err = nil
		}
		return open.GetLogs(), err
	}
}

func TestLogs(t *testing.T) {
	h := newTestServer(t)
	must(t, h.node(t.Context(), "n1"))
	at := timestamppb.New(time.Date(2026, 1, 31, 12, 0, 0, 500, time.UTC))
	manifest := t.TempDir() + "/shop.json"
	writeFile(t, manifest, `{"apiVersion":"caravanserai/v1","kind":"Project","metadata":{"name":"shop"},
		"spec":{"services":[{"name":"db","image":"mysql:8"},{"name":"web","image":"wordpress:6"}]}}`)
	if r := h.ctl(t.Context(), "", "apply", "-f", manifest); r.code != 0 {
		t.Fatal(r.err)
	}
	if r := h.ctl(t.Context(), "", "logs", "shop"); r.code != 1 || !strings.Contains(r.err, "on no node: there are no logs yet") {
		t.Errorf("logs of a Pending project: %+v", r)
	}
	must(t, h.schedule(t.Context(), "shop", "Bind", "n1", ""))
	lines := []*carav1.LogLine{
		{Service: "db", Time: at, Line: "ready\r"},
		{Service: "web", Time: at, Line: "\x1b[31mred\x1b[0m \x07bell", Stderr: true, Lost: 3},
	}
	tests := []struct {
		name, want string
		args       []string
		lines      []*carav1.LogLine
		asked      *carav1.LogsRequest
	}{
		{"all", "db  | ready\nweb | red bell\n", nil, lines, &carav1.LogsRequest{Name: "shop"}},
		{"by time", "web | first\ndb  | ready\n", nil, []*carav1.LogLine{
			lines[0], {Service: "web", Time: timestamppb.New(at.AsTime().Add(-time.Second)), Line: "first"},
		}, &carav1.LogsRequest{Name: "shop"}},
		{"as they come", "db  | ready\nweb | first\n", []string{"-f"}, []*carav1.LogLine{
			lines[0], {Service: "web", Time: timestamppb.New(at.AsTime().Add(-time.Second)), Line: "first"},
		}, &carav1.LogsRequest{Name: "shop", Follow: true}},
		{"one service has no prefix", "red bell\n", []string{"web"}, lines[1:], &carav1.LogsRequest{Name: "shop", Services: []string{"web"}}},
		{
			"with times", "2026-01-31T12:00:00.0000005Z ready\n",
			[]string{"-s", "db", "--timestamps", "-f", "--tail", "5"},
			lines[:1],
			&carav1.LogsRequest{Name: "shop", Services: []string{"db"}, Follow: true, Tail: 5},
		},
		{"none but new ones", "", []string{"--tail", "0"}, nil, &carav1.LogsRequest{Name: "shop", Tail: -1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			asked := make(chan *carav1.LogsRequest, 1)
			go func() {
				req, err := h.serveLogs(t.Context(), "n1", tt.lines...)
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				asked <- req
			}()
			// The node reconnects for each case: the call may find no connection, or still that of the previous case.
			away := func(r result) bool {
				return strings.Contains(r.err, "not connected") || strings.Contains(r.err, "has disconnected")
			}
			r := h.ctl(t.Context(), "", append([]string{"logs", "project/shop"}, tt.args...)...)
			for away(r) {
				r = h.ctl(t.Context(), "", append([]string{"logs", "project/shop"}, tt.args...)...)
			}
			if r.out != tt.want || r.code != 0 {
				t.Errorf("got %+v, want %q", r, tt.want)
			}
			if req := <-asked; !proto.Equal(req, tt.asked) {
				t.Errorf("asked for %v, want %v", req, tt.asked)
			}
			if lost := "(3 lines of web were lost"; strings.Contains(tt.want, "red") && !strings.Contains(r.err, lost) {
				t.Errorf("standard error has %q, want %q", r.err, lost)
			}
		})
	}
	if r := h.ctl(t.Context(), "", "logs", "shop", "nosuch"); r.code != 1 || !strings.Contains(r.err, `is "nosuch"; project "shop" has db, web`) {
		t.Errorf("logs of no service: %+v", r)
	}
}

func TestServicesHaveAColourOfTheirOwn(t *testing.T) {
	if serviceColour("web") == "" {
		t.Error("a name without a colour")
	}
	var b strings.Builder
	lp := &logPrinter{w: &b, o: &logsOptions{}, prefix: true, width: 3, colour: true}
	lp.print(&carav1.LogLine{Service: "db", Line: "x"})
	if want := serviceColour("db") + "db  | " + term.Reset + "x\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
