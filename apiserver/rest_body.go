package apiserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// bodyTimeout is how long a client may take to send a body.
const bodyTimeout = time.Minute

// boundBody reads a request's body within the bounds of its caller, before anybody decodes it. One that says that it is
// larger is not read at all. A path that leads to a method only the gateway's way, and not the door's, is not served.
func (s *Server) boundBody(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		v := visitOf(r.Context())
		if v == nil || v.method == "" {
			writeProblem(w, noRoute(r))
			return
		}
		if r.Method == http.MethodGet || r.Body == nil || r.Body == http.NoBody {
			next(w, r, params)
			return
		}
		body, release, problem := s.takeBody(w, r, v)
		if problem != nil {
			writeProblem(w, problem)
			return
		}
		defer release()
		if err := sameName(r, body, params); err != nil {
			writeProblem(w, api.ProblemOf(err))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next(w, r, params)
	}
}

// takeBody reserves room for a body and reads it.
func (s *Server) takeBody(w http.ResponseWriter, r *http.Request, v *visit) (body []byte, release func(), problem *carav1.Problem) {
	limit := s.bodyLimit(v.actor)
	tooLarge := &carav1.Problem{
		Title: api.TitleTooLarge, Status: http.StatusRequestEntityTooLarge,
		Detail: "the request's body is larger than " + text.Size(limit) + ": apply the objects in parts",
	}
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close")
		return nil, nil, tooLarge
	}
	size := r.ContentLength
	if size < 0 { // it comes in chunks
		size = limit
	}
	release, err := s.roomFor(r.Context(), v, size)
	if err != nil {
		w.Header().Set("Connection", "close")
		return nil, nil, api.ProblemOf(err)
	}
	body, err = readBody(w, r, v, limit)
	if err == nil {
		return body, release, nil
	}
	release()
	if over, ok := errors.AsType[*http.MaxBytesError](err); ok && over != nil {
		return nil, nil, tooLarge
	}
	return nil, nil, api.ProblemOf(bodyError(err))
}

// readBody reads a body in bounded time.
func readBody(w http.ResponseWriter, r *http.Request, v *visit, limit int64) ([]byte, error) {
	conn, within := http.NewResponseController(w), bodyTimeout
	if v.actor.Role == api.RoleNone {
		within = strangerTimeout
	}
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, err
	}
	return body, conn.SetReadDeadline(time.Time{})
}

// sameName refuses a PUT whose path names another object than its body: the gateway would let the path win in silence.
func sameName(r *http.Request, body []byte, params map[string]string) error {
	if r.Method != http.MethodPut {
		return nil
	}
	var in struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
	}
	if json.Unmarshal(body, &in) != nil || in.Metadata.Name == "" {
		return nil // what is wrong with the body is for the decoder to say
	}
	for key, name := range params {
		if strings.HasSuffix(key, "metadata.name") && name != in.Metadata.Name {
			return api.Invalid("the request", api.Field("metadata.name", "is %q, and the path says %q", in.Metadata.Name, name))
		}
	}
	return nil
}
