package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/agent/engine"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// open requests a stream from the agent.
func (s *server) open(id string, open *carav1.OpenStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	open.StreamId = id
	s.send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_OpenStream{OpenStream: open}})
}

// says sends on a stream once the agent has opened it.
func (s *server) says(t *testing.T, id string, messages ...*carav1.AttachResponse) {
	t.Helper()
	waitUntil(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.streams[id] != nil
	})
	s.mu.Lock()
	stream := s.streams[id]
	s.mu.Unlock()
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
}

// heard returns what the agent has sent on a stream, once so returns true for it.
func (s *server) heard(t *testing.T, id string, so func([]*carav1.AttachRequest) bool) (out []*carav1.AttachRequest) {
	t.Helper()
	waitUntil(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		out = slices.Clone(s.lines[id])
		return so(out)
	})
	return out
}

func execOf(service string, stdin bool, command ...string) *carav1.OpenStream {
	return &carav1.OpenStream{Kind: &carav1.OpenStream_Exec{Exec: &carav1.ExecStart{Name: "p", Service: service, Command: command, Stdin: stdin}}}
}

func stdin(data []byte) *carav1.AttachResponse {
	return &carav1.AttachResponse{Exec: &carav1.ExecRequest{Message: &carav1.ExecRequest_Stdin{Stdin: data}}}
}

func ended(all []*carav1.AttachRequest) bool {
	return slices.ContainsFunc(all, func(m *carav1.AttachRequest) bool {
		_, exit := m.GetExec().GetMessage().(*carav1.ExecResponse_ExitCode)
		return exit || m.GetError() != ""
	})
}

func TestExecStream(t *testing.T) {
	f := newFaked(t)
	f.up(t, services("web", "job"))

	f.open("cat", execOf("a", true, "cat"))
	var sent, got []byte
	for i := range 100 {
		data := bytes.Repeat([]byte{byte(i)}, 4096)
		sent = append(sent, data...)
		f.says(t, "cat", stdin(data))
	}
	f.says(t, "cat", &carav1.AttachResponse{Exec: &carav1.ExecRequest{Message: &carav1.ExecRequest_StdinClosed{StdinClosed: true}}})
	for _, m := range f.heard(t, "cat", ended) {
		got = append(got, m.GetExec().GetStdout()...)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d", len(got), len(sent))
	}

	f.open("job", execOf("a", false, "/job", "-lines", "1", "-exit", "3"))
	all := f.heard(t, "job", ended)
	if len(all) != 4 || len(all[0].GetExec().GetStdout()) > 0 || string(all[1].GetExec().GetStdout()) != "job v1 line 1 of 1\n" ||
		string(all[2].GetExec().GetStderr()) != "job v1: exit 3\n" || all[3].GetExec().GetExitCode() != 3 {
		t.Errorf("a command says %v", all)
	}

	terminal := execOf("a", true, "sized")
	terminal.GetExec().Tty, terminal.GetExec().Size = true, &carav1.TerminalSize{Rows: 24, Columns: 80}
	f.open("tty", terminal)
	f.says(t, "tty", &carav1.AttachResponse{Exec: &carav1.ExecRequest{
		Message: &carav1.ExecRequest_Resize{Resize: &carav1.TerminalSize{Rows: 30, Columns: 100}},
	}})
	f.heard(t, "tty", ended)
	waitUntil(t, func() bool { return f.engine.Calls("Process ended") == 3 })
}

// TestExecLeft: a command whose client has left is ended, even if it does not read its input, or while the connection is
// lost.
func TestExecLeft(t *testing.T) {
	f := newFaked(t)
	f.up(t, services("web"))
	leave := map[string]func(id string){
		"the caller": func(id string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			close(f.leave[id])
		},
		"the server": func(string) { f.away(true); f.away(false) },
	}
	for who, leaves := range leave {
		before := f.engine.Calls("Process ended")
		f.open(who, execOf("a", true, "sleep"))
		f.says(t, who)
		waitUntil(t, func() bool { return f.engine.Calls("Start") > before })
		for range 10 {
			f.says(t, who, stdin(make([]byte, 32<<10)))
		}
		leaves(who)
		waitUntil(t, func() bool { return f.engine.Calls("Process ended") > before })
		f.wait(t, "p", phase("Running"))
		beats := f.beatCount()
		waitUntil(t, func() bool { return f.beatCount() > beats+1 })
	}
}

func (s *server) beatCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.beats)
}

func TestExecRefused(t *testing.T) {
	f := newFaked(t)
	refuses := func(refused string) {
		f.engine.Fault(func(call string) error {
			if call == refused {
				return fmt.Errorf("%s: %w", call, engine.ErrUnavailable)
			}
			return nil
		})
	}
	refuses("UnpauseContainer") // the agent would resume it before it is asked
	for _, c := range f.up(t, services("web", "web")) {
		if strings.HasSuffix(c.Name, ".b") {
			f.engine.Edit(c.ID, func(c *engine.Container) { c.State = engine.StatePaused })
		}
	}
	for service, want := range map[string]string{"b": "is not running: its container is paused", "z": "is not running: it has no container yet"} {
		f.open(service, execOf(service, false, "ls"))
		all := f.heard(t, service, ended)
		if m := all[0]; !strings.Contains(m.GetError(), want) || codes.Code(m.GetCode()) != codes.FailedPrecondition {
			t.Errorf("service %s: %v", service, m)
		}
	}
	refuses("Start")
	f.open("down", execOf("a", false, "ls"))
	if m := f.heard(t, "down", ended)[0]; codes.Code(m.GetCode()) != codes.Unavailable {
		t.Errorf("an engine that does not answer: %v", m)
	}
}

// output runs a command in a container to its end, and returns what it wrote.
func output(ctx context.Context, eng engine.Engine, id string, args ...string) (string, error) {
	process, err := eng.Start(ctx, id, engine.Command{Args: args})
	if err != nil {
		return "", err
	}
	defer process.End(ctx)
	var out strings.Builder
	_, err = process.Wait(ctx, func(data []byte, _ bool) error {
		out.Write(data)
		return nil
	})
	return out.String(), err
}
