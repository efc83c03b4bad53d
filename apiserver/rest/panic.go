package rest

import (
	"errors"
	"net/http"

	"github.com/caravanserai/cara/api"
)

// guardHTTP turns a panic of a handler into an error of that request: a problem if nothing was written yet, else a broken
// connection.
func (s *server) guardHTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &tracked{ResponseWriter: w}
		defer func() {
			p := recover()
			if err, ok := p.(error); p == nil || ok && errors.Is(err, http.ErrAbortHandler) {
				if p != nil {
					panic(p) // makes net/http break the connection
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

// tracked records whether anything was written.
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

// Flush implements http.Flusher, which the gateway requires.
func (a *tracked) Flush() {
	a.begun = true
	_ = http.NewResponseController(a.ResponseWriter).Flush() // if the client has disconnected, the next write fails
}

// Unwrap is for http.ResponseController.
func (a *tracked) Unwrap() http.ResponseWriter { return a.ResponseWriter }
