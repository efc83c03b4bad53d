package peers

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// callKey is the metadata key that says on whose behalf a server calls.
const callKey = "cara-call-bin"

// maxCall limits the bytes of its value.
const maxCall = 4 << 10

// maxCause limits the bytes of a cause in an error.
const maxCause = 300

// Claims reports whether a request says on whose behalf it is sent.
func Claims(h http.Header) bool { return len(h.Values(callKey)) > 0 }

// WithCall returns a context for a call to another server on behalf of somebody.
func WithCall(ctx context.Context, call *carav1.PeerCall) (context.Context, error) {
	value, err := proto.Marshal(call)
	if err != nil {
		return nil, err
	}
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(callKey, string(value))), nil
}

// CallOf returns on whose behalf a request was sent; nil if it says nothing about that. Whether to believe it depends on the
// connection: see identity.PeerServer.
func CallOf(h http.Header) (*carav1.PeerCall, error) {
	values := h.Values(callKey)
	switch {
	case len(values) == 0:
		return nil, nil //nolint:nilnil // there is none
	case len(values) > 1 || len(values[0]) > maxCall:
		return nil, errCall()
	}
	value, err := base64.RawStdEncoding.DecodeString(values[0])
	call := &carav1.PeerCall{}
	if err != nil || proto.Unmarshal(value, call) != nil {
		return nil, errCall()
	}
	return call, nil
}

func errCall() error {
	return api.BadRequest("the header %s is for the servers of one cluster, and this one is not valid", callKey)
}

// Failed returns the error of a call to another server for the caller. An error that the other server has returned stays as it is.
func Failed(ctx context.Context, address string, err error) error {
	st, ok := status.FromError(err)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case ok && len(st.Details()) > 0:
		return err
	case errors.Is(err, context.Canceled):
		return err
	}
	return api.Unavailable("the server at %s, which has the agent, cannot be reached from the one that was asked: %s: try again in some seconds",
		address, text.Printable(causeOf(st.Message()), maxCause))
}

// causeOf returns the message of an error without what gRPC puts around it: a client takes that for an error of its own connection.
func causeOf(message string) string {
	if _, cause, ok := strings.Cut(message, `desc = "transport: `); ok {
		return strings.TrimPrefix(strings.TrimSuffix(cause, `"`), "Error while dialing: ")
	}
	return message
}
