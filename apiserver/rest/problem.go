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
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// WriteProblem answers with a problem as in RFC 9457.
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
	_, _ = w.Write(body) // the client may be gone; there is nobody else to tell
}

// answerError is every error of a call through the gateway.
func answerError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	WriteProblem(w, Problem(err))
}

var unknownField = regexp.MustCompile(`unknown field "([^"]*)"`)

// Problem gives what the gateway itself finds wrong with a request the same shape as the rest.
func Problem(err error) *carav1.Problem {
	p := api.ProblemOf(err)
	if api.Code(err) != codes.InvalidArgument || len(p.GetErrors()) > 0 {
		return p
	}
	// protojson puts a no-break space after its name, sometimes, so that nobody compares its messages
	detail := strings.TrimLeft(strings.TrimPrefix(strings.ReplaceAll(p.GetDetail(), "\u00a0", " "), "proto:"), " ")
	p = &carav1.Problem{Title: p.GetTitle(), Status: p.GetStatus(), Detail: detail}
	if m := unknownField.FindStringSubmatch(detail); m != nil {
		p.Errors = api.Field(m[1], "is not a field here; remove it or check its spelling")
		if policy, why := api.RefusedField(m[1]); policy != "" {
			p.Errors = api.Field(m[1], "%s", api.PolicyText(policy, why))
		}
	}
	return p
}

// routingError is a path or a method that there is not.
func (t Paths) routingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	switch code {
	case http.StatusMethodNotAllowed:
		allowed := t.methods(r.URL.Path)
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		WriteProblem(w, &carav1.Problem{
			Title: api.TitleMethodNotAllowed, Status: int32(code),
			Detail: r.Method + " " + r.URL.Path + ": this path takes " + strings.Join(allowed, ", "),
		})
	case http.StatusNotFound:
		WriteProblem(w, noRoute(r))
	default:
		WriteProblem(w, &carav1.Problem{Title: api.TitleInvalid, Status: int32(code), Detail: "the path " + r.URL.Path + " is malformed"})
	}
}

func noRoute(r *http.Request) *carav1.Problem {
	return &carav1.Problem{
		Title: api.TitleNotFound, Status: http.StatusNotFound,
		Detail: "there is nothing at " + r.URL.Path + ": /openapi.json has the paths that there are",
	}
}

// A stream that fails before its first message has an answer like any other call. The gateway would write the status
// that it takes the code for; streamHold lets our own through instead.
type streamHold struct {
	http.ResponseWriter
	problem *carav1.Problem
	begun   bool
	refused bool
}

type streamHoldKey struct{}

// holdStream puts a hold on an answer.
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

// streamError is told of a stream's end before the gateway writes it.
func streamError(ctx context.Context, err error) *status.Status {
	if hold, ok := ctx.Value(streamHoldKey{}).(*streamHold); ok && !hold.begun {
		hold.problem = Problem(err)
	}
	return status.Convert(err)
}

// WriteHeader answers with the problem where there is one.
func (h *streamHold) WriteHeader(code int) {
	if h.problem != nil && !h.begun {
		h.begun, h.refused = true, true
		WriteProblem(h.ResponseWriter, h.problem)
		return
	}
	h.begun = true
	h.ResponseWriter.WriteHeader(code)
}

// Write drops what the gateway says after a problem.
func (h *streamHold) Write(p []byte) (int, error) {
	if h.refused {
		return len(p), nil
	}
	h.begun = true
	return h.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController flush.
func (h *streamHold) Unwrap() http.ResponseWriter { return h.ResponseWriter }
