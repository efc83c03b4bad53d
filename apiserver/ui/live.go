package ui

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	eventStream = "text/event-stream"
	// A stream renders at most every minPause, and at least every maxPause if something has changed.
	minPause = 200 * time.Millisecond
	maxPause = 5 * time.Second
	// share is the part of the time that all streams together may render: one of so many parts.
	share = 20
	// refreshAfter is when a view is rendered again without a change, because heartbeats and polls are not changes.
	refreshAfter = 15 * time.Second
	// writeWithin is how long the browser may take to read a view.
	writeWithin = 30 * time.Second
)

// budget shares the time for rendering among the open streams.
type budget struct{ open atomic.Int64 }

// pause returns how long a stream waits after a rendering that took this long.
func (b *budget) pause(took time.Duration) time.Duration {
	return min(max(minPause, took*share*time.Duration(b.open.Load())), maxPause)
}

// live serves a view as a stream. It sends the view when it differs from the one that the browser has.
func (u *UI) live(show show) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		u.streams.open.Add(1)
		defer u.streams.open.Add(-1)
		s := openStream(w)
		defer s.close()
		seen := cmp.Or(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("seen"))
		if version, _, _ := strings.Cut(seen, "-"); seen != "" && version != u.version {
			s.send("reload", "", nil) // a newer server has other assets
			return nil
		}
		for s.err == nil {
			at, began := u.Cache.Revision(), time.Now()
			v, err := show(r.Context(), requestOf(r))
			if err == nil {
				seen = u.sendView(s, v, seen)
			} else if seen = u.sendProblem(s, err, seen); seen == "" {
				return nil
			}
			if !u.wait(s, r, v, at, u.streams.pause(time.Since(began))) {
				return nil
			}
		}
		return nil
	}
}

// sendView sends a view if it differs from the one with the id seen, and returns its id.
func (u *UI) sendView(s *stream, v view, seen string) string {
	body, id, err := u.render(v)
	switch {
	case err != nil:
		return u.sendProblem(s, err, seen)
	case id != seen:
		s.send("view", id, body)
	}
	return id
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

// wait returns true when the view must be rendered again, and false when the stream must end.
func (u *UI) wait(s *stream, r *http.Request, v view, at int64, pause time.Duration) bool {
	var over <-chan struct{}
	if visit := admission.VisitOf(r.Context()); visit != nil {
		over = visit.Over.Done()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	refresh := time.NewTimer(refreshAfter)
	defer refresh.Stop()
	paused, wake := timer.C, (<-chan struct{})(nil)
	for {
		select {
		case <-paused:
			paused = nil
		case <-wake:
		case <-refresh.C:
			s.ping()
			return s.err == nil
		case <-over:
			s.send("over", "", nil)
			return false
		case <-u.Draining:
			return false // the browser connects again
		case <-r.Context().Done():
			return false
		}
		if paused != nil {
			continue
		}
		var changed bool
		if changed, at, wake = v.changed(u.Cache, at); changed {
			return true
		}
	}
}

// changed reports whether an object that the view shows has changed after a revision. If none has, it returns the revision up
// to which that is known, and what to wait for.
func (v view) changed(cache *state.Cache, at int64) (changed bool, upTo int64, wake <-chan struct{}) {
	for {
		txs, wake, ok := cache.After(at)
		switch {
		case !ok:
			return true, at, nil // too far behind
		case len(txs) == 0:
			return false, at, wake
		}
		for _, tx := range txs {
			if slices.ContainsFunc(tx.Changes, v.shows) {
				return true, tx.Rev, nil
			}
		}
		at = txs[len(txs)-1].Rev
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
func openStream(w http.ResponseWriter) *stream {
	s := &stream{w: w, conn: http.NewResponseController(w)}
	w.Header().Set("Content-Type", eventStream)
	w.Header().Set("X-Accel-Buffering", "no") // for proxies that would hold the events back
	w.WriteHeader(http.StatusOK)
	s.flush()
	return s
}

// close removes the deadline, because the connection may serve other requests.
func (s *stream) close() { _ = s.conn.SetWriteDeadline(time.Time{}) }

// send sends one event.
func (s *stream) send(event, id string, data []byte) {
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
	s.write(out.Bytes())
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
