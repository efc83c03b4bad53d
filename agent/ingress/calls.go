package ingress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

// isGRPC reports whether a header is that of a gRPC call or of its answer.
func isGRPC(h http.Header) bool {
	rest, ok := strings.CutPrefix(h.Get("Content-Type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// isCall reports whether a request is a gRPC call, which needs HTTP/2.
func isCall(r *http.Request) bool { return r.ProtoMajor == 2 && isGRPC(r.Header) }

// rpcStatusOf returns the gRPC status for an HTTP status, as the specification of gRPC maps them.
func rpcStatusOf(status int) codes.Code {
	switch status {
	case http.StatusBadRequest:
		return codes.Internal
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound, http.StatusNotImplemented:
		return codes.Unimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return codes.Unavailable
	}
	return codes.Unknown
}

// endCall answers a call with a status and no message. The access log and the metrics get the HTTP status for it.
func endCall(w http.ResponseWriter, code codes.Code, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", strconv.Itoa(int(code)))
	h.Set("Grpc-Message", escaped(text))
	w.WriteHeader(http.StatusOK)
	if x, ok := w.(*exchange); ok {
		x.status = status
	}
}

// escaped returns a text in the form of the header grpc-message.
func escaped(text string) string {
	var out strings.Builder
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&out, "%%%02X", c)
			continue
		}
		out.WriteByte(c)
	}
	return out.String()
}

// callFailure returns the statuses of gRPC and HTTP for a call that the service has broken off, and what it did.
func callFailure(x *exchange, err error) (code codes.Code, status int, what string) {
	reset, ok := errors.AsType[http2.StreamError](err)
	switch {
	case !ok || reset.Code == http2.ErrCodeRefusedStream:
		return codes.Unavailable, http.StatusBadGateway, "ended the call"
	case reset.Code == http2.ErrCodeCancel && overdue(x):
		return codes.DeadlineExceeded, http.StatusGatewayTimeout, "did not answer before the deadline of the call"
	case reset.Code == http2.ErrCodeCancel:
		return codes.Canceled, http.StatusBadGateway, "cancelled the call"
	case reset.Code == http2.ErrCodeEnhanceYourCalm:
		return codes.ResourceExhausted, http.StatusServiceUnavailable, "has too many calls"
	case reset.Code == http2.ErrCodeInadequateSecurity:
		return codes.PermissionDenied, http.StatusBadGateway, "refused the connection as not secure enough"
	}
	return codes.Internal, http.StatusBadGateway, fmt.Sprintf("ended the call with the HTTP/2 error %s", reset.Code)
}

// overdue reports whether the deadline of a call has passed. The service knows the deadline too, and may end the call before the
// client does.
func overdue(x *exchange) bool {
	limit, ok := callTimeout(x.request.Header.Get("Grpc-Timeout"))
	return ok && time.Since(x.begun) >= limit
}

// callTimeout parses the header grpc-timeout: at most 8 digits and a unit.
func callTimeout(text string) (time.Duration, bool) {
	if len(text) < 2 || len(text) > 9 {
		return 0, false
	}
	unit, ok := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}[text[len(text)-1]]
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
	if !ok || err != nil {
		return 0, false
	}
	if time.Duration(n) > time.Duration(1<<63-1)/unit {
		return 1<<63 - 1, true
	}
	return time.Duration(n) * unit, true
}

// callBody is the body of an answer to a call. If the service breaks it off, the client gets a status instead of a reset stream.
// A message that is incomplete stays incomplete, and the status is never OK, so the client does not take it for the end.
type callBody struct {
	io.ReadCloser
	response *http.Response
	x        *exchange
	backend  string
}

func (b *callBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == nil || err == io.EOF || errors.Is(err, context.Canceled) || b.x.request.Context().Err() != nil {
		return n, err
	}
	code, _, what := callFailure(b.x, err)
	b.x.cut = true
	b.response.Trailer = http.Header{"Grpc-Status": {strconv.Itoa(int(code))}, "Grpc-Message": {escaped(b.backend + " " + what + ".")}}
	return n, io.EOF
}
