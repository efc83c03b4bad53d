package ui

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	eventStream = "text/event-stream"
	// refreshAfter is when a view is rendered again without a change, because heartbeats and polls are not changes.
	refreshAfter = 15 * time.Second
	// writeWithin is how long the browser may take to read a view.
	writeWithin = 30 * time.Second
)

// live serves a view as a stream. It sends the view when it differs from the one that the browser has.
func (u *UI) live(show show, to audience) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		s := openStream(w, eventStream)
		defer s.close()
		seen := cmp.Or(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("seen"))
		if version, _, _ := strings.Cut(seen, "-"); seen != "" && version != u.version {
			s.send("reload", "", nil) // a newer server has other assets
			return nil
		}
		v := u.watched.join(keyOf(r, to))
		defer u.watched.leave(v)
		render := func() (*rendered, error) { return u.renderAt(r, show) }
		var got *rendered
		for at := u.Cache.Revision(); at >= 0 && s.err == nil; at = u.wait(s, r, v, got) {
			next, err := u.watched.get(v, at, got, render)
			switch {
			case err != nil:
				if seen = u.sendProblem(s, err, seen); seen == "" {
					return nil
				}
				next = &rendered{at: at}
			case next.id != seen:
				seen = next.id
				s.write(next.sent)
			}
			got = next
		}
		return nil
	}
}

// renderAt renders a view as the person who asks sees it now.
func (u *UI) renderAt(r *http.Request, show show) (*rendered, error) {
	at := u.Cache.Revision()
	v, err := show(r.Context(), requestOf(r))
	if err != nil {
		return nil, err
	}
	body, id, err := u.render(v)
	return &rendered{view: v, at: at, id: id, sent: message("view", id, body)}, err
}

// sendProblem sends an error in the place of the view. It returns "" if the stream must end because the caller's login has.
func (u *UI) sendProblem(s *stream, err error, seen string) string {
	p := api.ProblemOf(api.Wire(err))
	if p.GetStatus() == http.StatusUnauthorized {
		s.send("over", "", nil)
		return ""
	}
	body, id, err := u.render(view{template: "problem", data: p})
	if err == nil && id != seen {
		s.send("view", id, body)
	}
	return id
}

// wait waits until the view must be shown again, and returns of which revision at least; -1 when the stream must end.
func (u *UI) wait(s *stream, r *http.Request, v *watchedView, got *rendered) int64 {
	over := loginOver(r)
	pause := time.NewTimer(v.rest())
	defer pause.Stop()
	refresh := time.NewTimer(refreshAfter)
	defer refresh.Stop()
	at, wake := got.at, (<-chan struct{})(nil) // wake is nil during a pause
	for {
		woken := false
		select {
		case <-pause.C:
		case <-wake:
			woken = true
		case <-refresh.C:
			s.ping()
			return got.at
		case <-over:
			s.send("over", "", nil)
			return -1
		case <-u.Draining:
			return -1 // the browser connects again
		case <-r.Context().Done():
			return -1
		}
		changed, upTo, next := got.view.changed(u.Cache, at)
		switch {
		case changed && v.ready(upTo):
			return upTo
		case changed: // too early: another stream has just rendered the view
			wake = nil
			pause.Reset(v.rest())
		case woken: // by changes that the view does not show, and more may follow
			at, wake = upTo, nil
			pause.Reset(minPause)
		default:
			at, wake = upTo, next
		}
	}
}

// shows reports whether the view shows the object of a change.
func (v view) shows(ch state.Change) bool {
	if shown := slices.Contains(v.kinds, ch.Kind); !shown || v.name == "" {
		return shown
	}
	switch ch.Kind {
	case api.KindProject, api.KindOverride, api.KindTombstone:
		return ch.Name == v.name
	case api.KindSource:
		return ch.Name == cmp.Or(v.source, v.name)
	case api.KindClaim:
		if v.source != "" {
			return ch.Name == v.source+"/"+v.name
		}
		return strings.HasPrefix(ch.Name, v.name+"/")
	case api.KindEvent:
		return isAbout(ch.New, v.name) || isAbout(ch.Old, v.name)
	}
	return true
}

// isAbout reports whether m is an event about an object with this name.
func isAbout(m proto.Message, name string) bool {
	return state.As[*carav1.Event](m).GetObject().GetName() == name
}

// stream writes server-sent events.
type stream struct {
	w    http.ResponseWriter
	conn *http.ResponseController
	err  error
}

// openStream begins an answer that is a stream. The caller must close it.
func openStream(w http.ResponseWriter, contentType string) *stream {
	s := &stream{w: w, conn: http.NewResponseController(w)}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Accel-Buffering", "no") // for proxies that would hold the events back
	w.WriteHeader(http.StatusOK)
	s.flush()
	return s
}

// close removes the deadline, because the connection may serve other requests.
func (s *stream) close() { _ = s.conn.SetWriteDeadline(time.Time{}) }

// send sends one event.
func (s *stream) send(event, id string, data []byte) { s.write(message(event, id, data)) }

// message returns one event as it is sent.
func message(event, id string, data []byte) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "event: %s\n", event)
	if id != "" {
		fmt.Fprintf(&out, "id: %s\n", id)
	}
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		out.WriteString("data: ")
		out.Write(line)
		out.WriteByte('\n')
	}
	out.WriteByte('\n')
	return out.Bytes()
}

// ping finds out whether the browser is still there.
func (s *stream) ping() { s.write([]byte(":\n\n")) }

// write writes to the browser, which must read it in time.
func (s *stream) write(p []byte) {
	if s.err != nil {
		return
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeWithin))
	_, s.err = s.w.Write(p)
	s.flush()
}

func (s *stream) flush() {
	if err := s.conn.Flush(); s.err == nil {
		s.err = err
	}
}
