package rest

import (
	"errors"
	"net/http"

	"github.com/caravanserai/cara/api"
)

// guardHTTP makes a panic of a handler the request's own error: a problem where nothing was written yet, else a
// connection that breaks.
func (s *server) guardHTTP(next http.Handler) http.Handler {
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
			err := s.Guard.Panicked(r.Method+" "+r.URL.Path, p)
			if out.begun {
				panic(http.ErrAbortHandler)
			}
			WriteProblem(w, api.ProblemOf(err))
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
