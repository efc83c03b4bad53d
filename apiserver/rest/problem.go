package rest

import (
	"context"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/validate"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// WriteProblem answers with a problem (RFC 9457).
func WriteProblem(w http.ResponseWriter, p *carav1.Problem) {
	body, err := compact(p)
	if err != nil {
		body = []byte(`{"title":"Internal","status":500}`)
	}
	code := int(p.GetStatus())
	if code < 400 || code > 599 {
		code = http.StatusInternalServerError
	}
	h := w.Header()
	h.Del("Transfer-Encoding")
	h.Del("Trailer")
	h.Del("ETag")
	h.Set("Content-Type", ContentProblem)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if code == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="cara"`)
	}
	w.WriteHeader(code)
	_, _ = w.Write(body) // the client may have disconnected
}

// answerError handles every error of a call through the gateway.
func answerError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	WriteProblem(w, Problem(err))
}

var unknownField = regexp.MustCompile(`unknown field "([^"]*)"`)

// Problem converts an error to a problem. Errors of the gateway itself get the same form as the others.
func Problem(err error) *carav1.Problem {
	p := api.ProblemOf(err)
	if api.Code(err) != codes.InvalidArgument || len(p.GetErrors()) > 0 {
		return p
	}
	// protojson sometimes puts a no-break space after its name, so that programs do not compare its messages
	detail := strings.TrimLeft(strings.TrimPrefix(strings.ReplaceAll(p.GetDetail(), "\u00a0", " "), "proto:"), " ")
	p = &carav1.Problem{Title: p.GetTitle(), Status: p.GetStatus(), Detail: detail}
	if m := unknownField.FindStringSubmatch(detail); m != nil {
		p.Errors = api.Field(m[1], "is not a field here; remove it or check its spelling")
		if policy, why := validate.RefusedField(m[1]); policy != "" {
			p.Errors = api.Field(m[1], "%s", validate.PolicyText(policy, why))
		}
	}
	return p
}

// routingError answers a request with an unknown path or a wrong method.
func (t Paths) routingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	switch code {
	case http.StatusMethodNotAllowed:
		wrongMethod(w, r, t.methods(r.URL.Path)...)
	case http.StatusNotFound:
		WriteProblem(w, noRoute(r))
	default:
		WriteProblem(w, &carav1.Problem{Title: api.TitleInvalid, Status: int32(code), Detail: "the path " + r.URL.Path + " is malformed"})
	}
}

// wrongMethod answers a request whose path takes other methods.
func wrongMethod(w http.ResponseWriter, r *http.Request, allowed ...string) {
	methods := strings.Join(allowed, ", ")
	w.Header().Set("Allow", methods)
	WriteProblem(w, &carav1.Problem{
		Title: api.TitleMethodNotAllowed, Status: http.StatusMethodNotAllowed, Detail: r.Method + " " + r.URL.Path + ": this path takes " + methods,
	})
}

func noRoute(r *http.Request) *carav1.Problem {
	return &carav1.Problem{
		Title: api.TitleNotFound, Status: http.StatusNotFound,
		Detail: "there is nothing at " + r.URL.Path + ": /openapi.json has the paths that there are",
	}
}

// streamHold lets a stream that fails before its first message answer with a problem like any other call. The gateway would
// write the status that it derives from the gRPC code.
type streamHold struct {
	http.ResponseWriter
	problem *carav1.Problem
	begun   bool
	refused bool
}

type streamHoldKey struct{}

// holdStream adds a streamHold to a GET request.
func holdStream(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		if r.Method != http.MethodGet {
			next(w, r, params)
			return
		}
		hold := &streamHold{ResponseWriter: w}
		next(hold, r.WithContext(context.WithValue(r.Context(), streamHoldKey{}, hold)), params)
	}
}

// streamError gets a stream's error before the gateway writes it.
func streamError(ctx context.Context, err error) *status.Status {
	if hold, ok := ctx.Value(streamHoldKey{}).(*streamHold); ok && !hold.begun {
		hold.problem = Problem(err)
	}
	return status.Convert(err)
}

// WriteHeader answers with the problem if there is one.
func (h *streamHold) WriteHeader(code int) {
	if h.problem != nil && !h.begun {
		h.begun, h.refused = true, true
		WriteProblem(h.ResponseWriter, h.problem)
		return
	}
	h.begun = true
	h.ResponseWriter.WriteHeader(code)
}

// Write drops what the gateway writes after a problem.
func (h *streamHold) Write(p []byte) (int, error) {
	if h.refused {
		return len(p), nil
	}
	h.begun = true
	return h.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (h *streamHold) Unwrap() http.ResponseWriter { return h.ResponseWriter }
