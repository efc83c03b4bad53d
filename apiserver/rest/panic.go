package rest

import (
	"net/http"

	"github.com/caravanserai/cara/api"
)

// guardHTTP answers with a problem when a handler panics before it has written anything.
func (s *server) guardHTTP(next http.Handler) http.Handler {
	return s.Guard.HTTP(next, func(w http.ResponseWriter, _ *http.Request, err error) { WriteProblem(w, api.ProblemOf(err)) })
}
