package rest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
)

// boundBody reads a request's body within the limits of its caller, before it is decoded. It does not read a body whose
// declared length is too large. It rejects a path for which the gateway finds a method but the door does not.
func (s *server) boundBody(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		v := admission.VisitOf(r.Context())
		if v == nil || v.Method == "" {
			WriteProblem(w, noRoute(r))
			return
		}
		if r.Method == http.MethodGet || r.Body == nil || r.Body == http.NoBody {
			next(w, r, params)
			return
		}
		body, release, problem := s.Bodies.TakeBody(w, r, v)
		if problem != nil {
			WriteProblem(w, problem)
			return
		}
		defer release()
		if err := sameName(r, body, params); err != nil {
			WriteProblem(w, api.ProblemOf(err))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next(w, r, params)
	}
}

// sameName returns an error if a PUT's path and body name different objects. The gateway would silently use the path.
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
		return nil // the decoder reports errors in the body
	}
	for key, name := range params {
		if strings.HasSuffix(key, "metadata.name") && name != in.Metadata.Name {
			return api.Invalid("the request", api.Field("metadata.name", "is %q, and the path says %q", in.Metadata.Name, name))
		}
	}
	return nil
}
