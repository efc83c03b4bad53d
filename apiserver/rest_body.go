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
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// bodyTimeout is how long a client may take to send a body.
const bodyTimeout = time.Minute

// boundBody reads a request's body up to the limit before anybody decodes it. One that says that it is larger is not
// read at all.
func (s *Server) boundBody(next runtime.HandlerFunc) runtime.HandlerFunc {
	limit := int64(s.cfg.MaxBodyBytes)
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		if r.Method == http.MethodGet || r.Body == nil || r.Body == http.NoBody {
			next(w, r, params)
			return
		}
		tooLarge := &carav1.Problem{
			Title: "TooLarge", Status: http.StatusRequestEntityTooLarge,
			Detail: "the request's body is larger than " + sizeText(limit) + ": apply the objects in parts",
		}
		if r.ContentLength > limit {
			w.Header().Set("Connection", "close")
			writeProblem(w, tooLarge)
			return
		}
		body, err := readBody(w, r, limit)
		var over *http.MaxBytesError
		switch {
		case errors.As(err, &over):
			writeProblem(w, tooLarge)
			return
		case err != nil:
			writeProblem(w, api.ProblemOf(api.Errorf(codes.InvalidArgument, api.TitleInvalid, "read the request's body: %v", err)))
			return
		}
		if err := sameName(r, body, params); err != nil {
			writeProblem(w, api.ProblemOf(err))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next(w, r, params)
	}
}

// readBody reads a body in bounded time.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	conn := http.NewResponseController(w)
	if err := conn.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, err
	}
	return body, conn.SetReadDeadline(time.Time{})
}

func sizeText(n int64) string {
	b, _ := json.Marshal(n >> 20)
	return string(b) + " MiB"
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
			return api.Invalid("the request", fieldError("metadata.name", "is %q, and the path says %q", in.Metadata.Name, name))
		}
	}
	return nil
}
