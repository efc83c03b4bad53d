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

// boundBody reads a request's body within the bounds of its caller, before anybody decodes it. One that says that it is
// larger is not read at all. A path that leads to a method only the gateway's way, and not the door's, is not served.
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
