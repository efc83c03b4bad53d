package enginetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// patience is how long a test waits for a command.
const patience = time.Minute

// tools starts a container of the Tools image.
func (s *suite) tools(t *testing.T) string {
	t.Helper()
	s.network(t)
	spec := s.spec("1h")
	spec.Service = &carav1.Service{Name: "a", Image: s.Tools, Command: []string{"sleep", "1h"}, StopGracePeriod: "1s"}
	id, err := s.Engine.CreateContainer(t.Context(), spec)
	must(t, err)
	must(t, s.Engine.StartContainer(t.Context(), id))
	return id
}

func (s *suite) command(t *testing.T, id string, command engine.Command) engine.Process {
	t.Helper()
	p, err := s.Engine.Start(t.Context(), id, command)
	must(t, err)
	t.Cleanup(func() { p.End(context.WithoutCancel(t.Context())) })
	return p
}

// ending collects a command's output until it ends.
func ending(t *testing.T, p engine.Process) (code int, stdout, stderr []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	code, err := p.Wait(ctx, func(data []byte, isErr bool) error {
		if len(data) > 32<<10 {
			t.Errorf("%d bytes at a time", len(data))
		}
		if isErr {
			stderr = append(stderr, data...)
		} else {
			stdout = append(stdout, data...)
		}
		return nil
	})
	must(t, err)
	return code, stdout, stderr
}

func commandOutput(t *testing.T, s *suite) {
	s.network(t)
	id := s.start(t, "-after", "1h")
	code, stdout, stderr := ending(t, s.command(t, id, engine.Command{Args: []string{s.Job, "-lines", "2", "-exit", "3"}}))
	if code != 3 || string(stdout) != "job v1 line 1 of 2\njob v1 line 2 of 2\n" || string(stderr) != "job v1: exit 3\n" {
		t.Errorf("code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	code, stdout, stderr = ending(t, s.command(t, id, engine.Command{Args: []string{"/nothing/here"}}))
	if code != 127 || !strings.Contains(string(stdout)+string(stderr), "no such file") {
		t.Errorf("a command that is not there: code %d, it says %q %q", code, stdout, stderr)
	}
	stop := errors.New("enough")
	p := s.command(t, id, engine.Command{Args: []string{s.Job, "-lines", "2"}})
	_, err := p.Wait(t.Context(), func([]byte, bool) error { return stop })
	wantErr(t, err, stop)
	_, err = s.Engine.Start(t.Context(), "nothing", engine.Command{Args: []string{s.Job}})
	wantErr(t, err, engine.ErrNotFound)
	must(t, s.Engine.StopContainer(t.Context(), id, time.Second))
	if _, err := s.Engine.Start(t.Context(), id, engine.Command{Args: []string{s.Job}}); err == nil {
		t.Error("a command was started in a container that does not run")
	}
}

func commandInput(t *testing.T, s *suite) {
	p := s.command(t, s.tools(t), engine.Command{Args: []string{"cat"}, Stdin: true})
	sent := make([]byte, 3<<20) // more than all pipe buffers
	_, _ = rand.Read(sent)
	written := make(chan error, 1)
	go func() {
		_, err := p.Write(sent)
		written <- errors.Join(err, p.CloseInput())
	}()
	code, stdout, _ := ending(t, p)
	must(t, <-written)
	if code != 0 || !bytes.Equal(stdout, sent) {
		t.Errorf("code %d, %d bytes came back of %d", code, len(stdout), len(sent))
	}
}

func commandTerminal(t *testing.T, s *suite) {
	p := s.command(t, s.tools(t), engine.Command{Args: s.Sized, Stdin: true, TTY: true})
	must(t, p.Resize(t.Context(), engine.Size{Rows: 20, Columns: 50}))
	must(t, p.Resize(t.Context(), engine.Size{Rows: 30, Columns: 100}))
	if code, stdout, _ := ending(t, p); code != 0 {
		t.Errorf("code %d, it says %q", code, stdout)
	}
}

// commandLeft checks that a command ends after its client leaves.
func commandLeft(t *testing.T, s *suite) {
	id := s.tools(t)
	for name, tty := range map[string]bool{"with a terminal": true, "without": false} {
		p := s.command(t, id, engine.Command{Args: []string{"sleep", "3600"}, Stdin: true, TTY: tty})
		ctx, leave := context.WithCancel(t.Context())
		waited := make(chan error, 1)
		go func() {
			_, err := p.Wait(ctx, func([]byte, bool) error { return nil })
			waited <- err
		}()
		leave()
		wantErr(t, <-waited, context.Canceled)
		p.End(t.Context())
		if s.Left != nil {
			waitFor(t, func() bool { return s.Left(t, id) == 0 })
		}
		if t.Failed() {
			t.Log(name)
		}
	}
	if c := s.inspect(t, id); c.State != engine.StateRunning || c.Labels[api.LabelProject] != s.project {
		t.Errorf("the container itself: %+v", c)
	}
}

func stats(t *testing.T, s *suite) {
	s.network(t)
	spec := s.spec("-after", "1h")
	spec.Service.Resources = &carav1.Resources{Limits: &carav1.ResourceList{Memory: "8Gi"}}
	id, err := s.Engine.CreateContainer(t.Context(), spec)
	must(t, err)
	must(t, s.Engine.StartContainer(t.Context(), id))
	var once []engine.ContainerUsage
	must(t, s.Engine.Stats(t.Context(), id, false, func(u engine.ContainerUsage) { once = append(once, u) }))
	if len(once) != 1 || once[0].Memory <= 0 || once[0].MemoryLimit <= once[0].Memory || once[0].PIDs < 1 || once[0].CPUMillis < 0 {
		t.Errorf("it uses %+v", once)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	followed := 0
	err = s.Engine.Stats(ctx, id, true, func(engine.ContainerUsage) {
		if followed++; followed == 3 {
			cancel()
		}
	})
	if followed < 3 || err == nil {
		t.Errorf("%d figures came, then %v", followed, err)
	}
	must(t, s.Engine.StopContainer(t.Context(), id, time.Second))
	must(t, s.Engine.Stats(t.Context(), id, false, func(u engine.ContainerUsage) { t.Errorf("when stopped it uses %+v", u) }))
	wantErr(t, s.Engine.Stats(t.Context(), "nothing", false, func(engine.ContainerUsage) {}), engine.ErrNotFound)
}
