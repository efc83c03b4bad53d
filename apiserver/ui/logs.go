package ui

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

const (
	// tail is how many lines of the past a log begins with, and downloadTail how many a download has.
	tail         = 1000
	downloadTail = 100_000
	// maxLine limits a line of a log on the page.
	maxLine = 16 << 10
	// batch is how many lines an event has at most.
	batch = 200
)

// logs is the frame of a project's logs. The script fills it from followLogs.
func (vs views) logs(ctx context.Context, r request) (view, error) {
	name := r.name
	p, err := vs.api.projects.GetProject(ctx, &carav1.GetRequest{Name: name})
	if err != nil {
		return view{}, err
	}
	data := struct {
		*carav1.Project
		Service  string
		Previous bool
	}{p, r.query.Get("service"), r.query.Get("previous") != ""}
	return view{title: "Logs of " + name, nav: "projects", template: "logs", data: data, kinds: []string{api.KindProject}, name: name}, nil
}

func logsRequest(r *http.Request) *carav1.LogsRequest {
	req := &carav1.LogsRequest{Name: r.PathValue("name"), Previous: r.URL.Query().Get("previous") != ""}
	if service := r.URL.Query().Get("service"); service != "" {
		req.Services = []string{service}
	}
	return req
}

// logLine is a line for the script, which shows it as text.
type logLine struct {
	Time    string `json:"t,omitempty"`
	Service string `json:"s,omitempty"`
	Stderr  bool   `json:"e,omitempty"`
	Lost    int32  `json:"lost,omitempty"`
	Line    string `json:"l"`
}

// followLogs streams the lines of a project. The id of an event is the time of its last line: a browser that connects again
// gets what came after it. When the browser does not read, the agent waits.
func (u *UI) followLogs(w http.ResponseWriter, r *http.Request) error {
	req := logsRequest(r)
	req.Follow, req.Tail = !req.GetPrevious(), tail
	since, err := time.Parse(time.RFC3339Nano, r.Header.Get("Last-Event-ID"))
	if err == nil {
		req.Since, req.Tail = timestamppb.New(since), 0
	}
	ctx, stop := context.WithCancel(r.Context())
	defer stop()
	in, err := u.api.projects.Logs(ctx, req)
	if err != nil {
		return err
	}
	s := openStream(w, eventStream)
	defer s.close()
	lines := make(chan *carav1.LogLine, batch)
	var ended error // written before lines is closed
	done := u.Guard.Go("logs of the page", func() error { return receive(ctx, in, since, lines) }, func(err error) {
		ended = err
		close(lines)
	})
	defer func() { stop(); <-done }()
	for s.err == nil {
		got, open := collect(lines)
		if len(got) > 0 {
			s.sendLines(got)
		}
		if !open {
			s.end(ended)
			return nil
		}
	}
	return nil
}

// receive passes the lines on until the stream ends.
func receive(ctx context.Context, in carav1.ProjectService_LogsClient, since time.Time, lines chan<- *carav1.LogLine) error {
	for {
		l, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !since.IsZero() && !l.GetTime().AsTime().After(since) {
			continue // the browser has it
		}
		select {
		case lines <- l:
		case <-ctx.Done():
			return nil
		}
	}
}

// collect waits for a line and takes what else is there.
func collect(lines <-chan *carav1.LogLine) (got []*carav1.LogLine, open bool) {
	l, open := <-lines
	for open {
		if got = append(got, l); len(got) == batch {
			return got, true
		}
		select {
		case l, open = <-lines:
		default:
			return got, true
		}
	}
	return got, false
}

// sendLines sends lines in the order of their times.
func (s *stream) sendLines(lines []*carav1.LogLine) {
	slices.SortStableFunc(lines, func(a, b *carav1.LogLine) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) })
	out := make([]logLine, len(lines))
	for i, l := range lines {
		out[i] = logLine{
			Time: l.GetTime().AsTime().UTC().Format("15:04:05.000"), Service: text.Line(l.GetService()), Stderr: l.GetStderr(), Lost: l.GetLost(),
			Line: text.Clip(text.Clean(l.GetLine()), maxLine),
		}
	}
	body, err := json.Marshal(out)
	if err != nil {
		s.err = err
		return
	}
	s.send("lines", lines[len(lines)-1].GetTime().AsTime().Format(time.RFC3339Nano), body)
}

// end tells the script that no more lines follow, and why.
func (s *stream) end(err error) {
	why := ""
	if err != nil {
		p := api.ProblemOf(api.Wire(err))
		if p.GetStatus() == http.StatusUnauthorized {
			s.send("over", "", nil)
			return
		}
		why = text.Line(p.GetDetail())
	}
	body, err := json.Marshal(why)
	if err == nil {
		s.send("end", "", body)
	}
}

// downloadLogs serves the last lines of a project as a text file.
func (u *UI) downloadLogs(w http.ResponseWriter, r *http.Request) error {
	req := logsRequest(r)
	req.Tail = downloadTail
	in, err := u.api.projects.Logs(r.Context(), req)
	if err != nil {
		return err
	}
	line, err := in.Recv()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", req.GetName()+".log"))
	conn := http.NewResponseController(w)
	defer func() { _ = conn.SetWriteDeadline(time.Time{}) }() // the connection may serve other requests
	for err == nil {
		_ = conn.SetWriteDeadline(time.Now().Add(writeWithin))
		if _, err := fmt.Fprintf(w, "%s %s %s\n", line.GetTime().AsTime().UTC().Format(time.RFC3339Nano), line.GetService(), text.Clean(line.GetLine())); err != nil {
			return nil //nolint:nilerr // the browser has disconnected
		}
		line, err = in.Recv()
	}
	if !errors.Is(err, io.EOF) {
		panic(http.ErrAbortHandler) // a truncated file must not look complete
	}
	return nil
}
