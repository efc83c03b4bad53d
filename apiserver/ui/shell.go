package ui

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

const (
	// shellIdle ends a shell into which nothing is typed for so long.
	shellIdle = 30 * time.Minute
	// shellCommand starts the best shell of the container.
	shellCommand = "TERM=xterm-256color; export TERM; command -v bash >/dev/null 2>&1 && exec bash; exec sh"
)

// shell is the view around the terminal, which the script fills.
func (vs views) shell(ctx context.Context, r request) (view, error) {
	p, err := vs.api.projects.GetProject(ctx, &carav1.GetRequest{Name: r.name})
	if err != nil {
		return view{}, err
	}
	data := struct {
		*carav1.Project
		Service string
		May     bool
	}{p, r.query.Get("service"), vs.may(r.actor, carav1.ProjectService_Exec_FullMethodName, r.name)}
	if services := p.GetSpec().GetServices(); data.Service == "" && len(services) > 0 {
		data.Service = services[0].GetName()
	}
	return view{title: "Shell in " + r.name, nav: "projects", template: "terminal", data: data, kinds: []string{api.KindProject}, name: r.name}, nil
}

// shells are the open shells, by their ids.
type shells struct {
	mu   sync.Mutex
	open map[string]*shell
}

// shell is one command that runs with a terminal in the browser.
type shell struct {
	session, project string
	mu               sync.Mutex // one message to the command at a time, in the order of the requests
	command          carav1.ProjectService_ExecClient
	idle             *time.Timer
}

// shellMessage is one line of the answer that carries a shell.
type shellMessage struct {
	ID   string `json:"id,omitempty"`
	Out  []byte `json:"out,omitempty"`
	Code *int32 `json:"code,omitempty"`
	Why  string `json:"why,omitempty"`
}

func (s *shells) add(id string, sh *shell) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[string]*shell{}
	}
	s.open[id] = sh
}

func (s *shells) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
}

// of returns the shell of a request. Only the session that opened it has it.
func (s *shells) of(r *http.Request) *shell {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.open[r.PathValue("id")]
	if sh == nil || sh.session != actorOf(r).Session || sh.project != r.PathValue("name") {
		return nil
	}
	return sh
}

// openShell runs a shell in a container. Its output is the answer; its input comes with typeIn. It ends with the request, with
// the session, when the server stops, and when nothing is typed for long. The relay limits the streams of one caller.
func (u *UI) openShell(w http.ResponseWriter, r *http.Request) error {
	ctx, stop := context.WithCancel(r.Context())
	defer stop()
	command, err := u.api.projects.Exec(ctx)
	if err != nil {
		return err
	}
	start := &carav1.ExecStart{
		Name: r.PathValue("name"), Service: r.URL.Query().Get("service"), Command: []string{"sh", "-c", shellCommand}, Stdin: true, Tty: true, Size: sizeOf(r),
	}
	_ = command.Send(&carav1.ExecRequest{Message: &carav1.ExecRequest_Start{Start: start}}) // Recv returns its error
	first, err := command.Recv()
	if err != nil {
		return err
	}
	id, idle := rand.Text(), time.NewTimer(shellIdle)
	defer idle.Stop()
	sh := &shell{session: actorOf(r).Session, project: start.GetName(), command: command, idle: idle}
	u.shells.add(id, sh)
	defer u.shells.remove(id)
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // serve set one for the body, which has been read
	s := openStream(w, "application/x-ndjson")
	defer s.close()
	s.sendLine(shellMessage{ID: id})
	unused := false
	done := u.Guard.Go("the end of a shell", func() error { unused = u.awaitEnd(r, ctx.Done(), idle.C); stop(); return nil }, func(error) {})
	s.carry(first, command)
	stop()
	if <-done; unused {
		s.sendLine(shellMessage{Why: "nothing was typed for " + shellIdle.String()})
	}
	return nil
}

// awaitEnd waits for what ends a shell from outside, and reports whether it was not used for long.
func (u *UI) awaitEnd(r *http.Request, ended <-chan struct{}, idle <-chan time.Time) (unused bool) {
	select {
	case <-ended:
	case <-idle:
		return true
	case <-loginOver(r):
	case <-u.Draining:
	}
	return false
}

// carry sends the output of a command until it ends.
func (s *stream) carry(m *carav1.ExecResponse, command carav1.ProjectService_ExecClient) {
	for s.err == nil {
		if exit, ok := m.GetMessage().(*carav1.ExecResponse_ExitCode); ok {
			s.sendLine(shellMessage{Code: &exit.ExitCode})
			return
		}
		if out := m.GetStdout(); len(out) > 0 {
			s.sendLine(shellMessage{Out: out})
		}
		var err error
		if m, err = command.Recv(); errors.Is(err, io.EOF) || err != nil && command.Context().Err() != nil {
			return
		} else if err != nil {
			s.sendLine(shellMessage{Why: text.Line(api.ProblemOf(api.Wire(err)).GetDetail())})
			return
		}
	}
}

// typeIn passes what was typed to a shell, and the size of its terminal.
func (u *UI) typeIn(w http.ResponseWriter, r *http.Request) error {
	sh := u.shells.of(r)
	if sh == nil {
		return api.NotFound("this shell has ended: open it again")
	}
	input, err := io.ReadAll(r.Body)
	if err != nil {
		return api.BadRequest("read the input: %v", err)
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.idle.Reset(shellIdle)
	if size := sizeOf(r); size != nil {
		err = sh.command.Send(&carav1.ExecRequest{Message: &carav1.ExecRequest_Resize{Resize: size}})
	}
	if err == nil && len(input) > 0 {
		err = sh.command.Send(&carav1.ExecRequest{Message: &carav1.ExecRequest_Stdin{Stdin: input}})
	}
	if err != nil {
		return api.NotFound("this shell has ended: open it again")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// sizeOf returns the size of the terminal in the query; nil if there is none that makes sense.
func sizeOf(r *http.Request) *carav1.TerminalSize {
	const most = 1000
	rows, _ := strconv.Atoi(r.URL.Query().Get("rows")) // 0 if it is not a number
	columns, _ := strconv.Atoi(r.URL.Query().Get("cols"))
	if rows < 1 || rows > most || columns < 1 || columns > most {
		return nil
	}
	return &carav1.TerminalSize{Rows: int32(rows), Columns: int32(columns)}
}

func (s *stream) sendLine(m shellMessage) {
	line, err := json.Marshal(m)
	if err != nil {
		s.err = err
		return
	}
	s.write(append(line, '\n'))
}
