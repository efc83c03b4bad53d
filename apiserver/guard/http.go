package guard

import (
	"errors"
	"net/http"
)

// HTTP turns a panic of a handler into an error of that request: answer gets it if nothing was written yet. Otherwise the
// connection is broken, as it is when the handler panics with http.ErrAbortHandler.
func (g Guard) HTTP(next http.Handler, answer func(http.ResponseWriter, *http.Request, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &tracked{ResponseWriter: w}
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p) // makes net/http break the connection
			}
			err := g.Panicked(r.Method+" "+r.URL.Path, p)
			if out.begun {
				panic(http.ErrAbortHandler)
			}
			answer(out, r, err)
		}()
		next.ServeHTTP(out, r)
	})
}

// tracked records whether anything was written.
type tracked struct {
	http.ResponseWriter
	begun bool
}

func (t *tracked) WriteHeader(status int) {
	t.begun = true
	t.ResponseWriter.WriteHeader(status)
}

func (t *tracked) Write(p []byte) (int, error) {
	t.begun = true
	return t.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController, which returns the error to a handler that wants it.
func (t *tracked) FlushError() error {
	t.begun = true
	return http.NewResponseController(t.ResponseWriter).Flush()
}

// Flush implements http.Flusher, which the gateway requires.
func (t *tracked) Flush() {
	_ = t.FlushError() // if the client has disconnected, the next write fails
}

// Unwrap is for http.ResponseController.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }
