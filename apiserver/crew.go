package apiserver

import (
	"context"
	"errors"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/api"
)

// A panic in a goroutine without a recover ends the process, and with it everybody's calls. So every goroutine of this
// package is started here; TestGoroutinesAreGuarded keeps it so.

// guard runs f. A panic in it becomes an Internal error, and one line in the log with the stack.
func (s *Server) guard(what string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(what, p)
		}
	}()
	return f()
}

// spawn runs f in a goroutine, guarded, and then gives its result to then, which must not panic. The channel is closed
// after that.
func (s *Server) spawn(what string, f func() error, then func(error)) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		then(s.guard(what, f))
	}()
	return ended
}

// later runs f after a while, guarded.
func (s *Server) later(what string, after time.Duration, f func()) {
	time.AfterFunc(after, func() { _ = s.guard(what, func() error { f(); return nil }) })
}

// atEnd runs f when ctx ends, guarded, unless stop was called before.
func (s *Server) atEnd(ctx context.Context, what string, f func()) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = s.guard(what, func() error { f(); return nil }) })
}

// crew is an errgroup whose goroutines are guarded: a panic in one of them is the error of Wait.
type crew struct {
	server *Server
	what   string
	group  *errgroup.Group
}

// newCrew returns a crew of at most limit goroutines at once, and a context that ends with the first error.
func (s *Server) newCrew(ctx context.Context, what string, limit int) (crew, context.Context) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(limit)
	return crew{s, what, group}, ctx
}

// Go runs f in a goroutine, once fewer than the limit run.
func (c crew) Go(f func() error) {
	c.group.Go(func() error { return c.server.guard(c.what, f) })
}

// Wait returns the first error, when all goroutines have ended.
func (c crew) Wait() error { return c.group.Wait() }

// unlimited is the limit of a crew whose goroutines are few by construction.
const unlimited = -1

// guardHTTP makes a panic of a handler the request's own error: a problem where nothing was written yet, else a
// connection that breaks.
func (s *Server) guardHTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &tracked{ResponseWriter: w}
		defer func() {
			p := recover()
			if err, ok := p.(error); p == nil || ok && errors.Is(err, http.ErrAbortHandler) {
				if p != nil {
					panic(p) // net/http's own way to break a connection
				}
				return
			}
			err := s.panicked(r.Method+" "+r.URL.Path, p)
			if out.begun {
				panic(http.ErrAbortHandler)
			}
			writeProblem(w, api.ProblemOf(err))
		}()
		next.ServeHTTP(out, r)
	})
}

// tracked knows whether anything was written.
type tracked struct {
	http.ResponseWriter
	begun bool
}

func (a *tracked) WriteHeader(status int) {
	a.begun = true
	a.ResponseWriter.WriteHeader(status)
}

func (a *tracked) Write(p []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(p)
}

// Flush is for the gateway, which asks for an http.Flusher.
func (a *tracked) Flush() {
	a.begun = true
	_ = http.NewResponseController(a.ResponseWriter).Flush() // a client that is gone shows at the next write
}

// Unwrap lets an http.ResponseController through.
func (a *tracked) Unwrap() http.ResponseWriter { return a.ResponseWriter }
