// Package rest serves everything that is not gRPC: the REST paths of the contract, problems, streams as lines of JSON,
// webhooks and the other pages. When a push is processed, the webhook arrives here.
//
// Invariants:
//
//   - A REST call uses the same services as a gRPC call, with the same permissions and limits. Package rest makes no
//     decision about an object.
//   - A path is served only if the door has found the same method for it.
//   - A delivery changes only hints, and only if its signature is valid.
package rest

import (
	"context"
	"errors"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/live"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loglimit"
)

// Config holds the dependencies of package rest.
type Config struct {
	DB    *state.DB
	Guard guard.Guard
	// Conn connects to the services, which see the caller's Visit.
	Conn   grpc.ClientConnInterface
	Bodies *admission.Bodies
	// Refusals samples the log lines about unsigned deliveries.
	Refusals *loglimit.Limit
	Hints    *live.Hints
	Metrics  http.Handler
	Paths    Paths
}

// server serves everything that is not gRPC: the gateway, which calls the services over Conn, and the other pages.
type server struct {
	Config
	deliveries *admission.Turns // webhook deliveries that are being read
}

// New returns a handler for every request that is not gRPC. A panic in it becomes an error of that request.
func New(ctx context.Context, cfg Config) (http.Handler, error) {
	s := &server{Config: cfg, deliveries: admission.NewTurns(maxWebhooks, maxWebhooksEach)}
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, Marshaler{cache: s.DB.Cache}),
		runtime.WithMiddlewares(s.boundBody, holdStream),
		runtime.WithMetadata(requestMetadata),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithForwardResponseOption(answerHeaders),
		runtime.WithErrorHandler(answerError),
		runtime.WithStreamErrorHandler(streamError),
		runtime.WithRoutingErrorHandler(cfg.Paths.routingError),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithWriteContentLength(),
	)
	if err := s.connect(ctx, mux); err != nil {
		return nil, err
	}
	pages := http.NewServeMux()
	s.pages(pages)
	pages.Handle("/api/", mux)
	pages.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { WriteProblem(w, noRoute(r)) })
	return s.guardHTTP(headAsGet(pages)), nil
}

// connect registers all services with the gateway. The gateway tries the routes one after the other, the last registered ones
// first: so those of projects come last.
func (s *server) connect(ctx context.Context, mux *runtime.ServeMux) error {
	return errors.Join(
		connect(ctx, mux, s.Conn, carav1.RegisterApplyServiceHandlerClient, carav1.NewApplyServiceClient),
		connect(ctx, mux, s.Conn, carav1.RegisterNodeServiceHandlerClient, carav1.NewNodeServiceClient),
		connect(ctx, mux, s.Conn, carav1.RegisterSourceServiceHandlerClient, carav1.NewSourceServiceClient),
		connect(ctx, mux, s.Conn, carav1.RegisterSecretServiceHandlerClient, carav1.NewSecretServiceClient),
		connect(ctx, mux, s.Conn, carav1.RegisterVolumeServiceHandlerClient, carav1.NewVolumeServiceClient),
		connect(ctx, mux, s.Conn, carav1.RegisterEventServiceHandlerClient, carav1.NewEventServiceClient),
		connect(ctx, mux, s.Conn, carav1.RegisterWatchServiceHandlerClient, carav1.NewWatchServiceClient),
		connect(ctx, mux, s.Conn, carav1.RegisterTokenServiceHandlerClient, carav1.NewTokenServiceClient),
		connect(ctx, mux, s.Conn, carav1.RegisterSessionServiceHandlerClient, carav1.NewSessionServiceClient),
		connect(ctx, mux, s.Conn, carav1.RegisterInfoServiceHandlerClient, carav1.NewInfoServiceClient),
		connect(ctx, mux, s.Conn, carav1.RegisterProjectServiceHandlerClient, carav1.NewProjectServiceClient),
	)
}

// connect registers one service with the gateway.
func connect[C any](
	ctx context.Context, mux *runtime.ServeMux, conn grpc.ClientConnInterface,
	register func(context.Context, *runtime.ServeMux, C) error, client func(grpc.ClientConnInterface) C,
) error {
	return register(ctx, mux, client(conn))
}

// headAsGet handles HEAD like GET. net/http still knows the original method and sends no body.
func headAsGet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			r = r.WithContext(r.Context())
			r.Method = http.MethodGet
		}
		next.ServeHTTP(w, r)
	})
}

// requestMetadata returns the request headers that services use. The gateway adds the authorization.
func requestMetadata(_ context.Context, r *http.Request) metadata.MD {
	if v := r.Header.Get("If-Match"); v != "" {
		return metadata.Pairs(objects.HeaderIfMatch, v)
	}
	return nil
}

// answerHeaders sets the status and the ETag of an answer.
func answerHeaders(ctx context.Context, w http.ResponseWriter, m proto.Message) error {
	switch m := m.(type) {
	case *emptypb.Empty:
		w.WriteHeader(http.StatusNoContent)
		return nil
	case *carav1.DeleteProjectResponse:
		if m.GetGone() {
			w.WriteHeader(http.StatusNoContent)
		} else {
			w.WriteHeader(http.StatusAccepted)
		}
		return nil
	case interface{ GetMetadata() *carav1.ObjectMeta }:
		if rev := m.GetMetadata().GetResourceVersion(); rev != "" {
			w.Header().Set("ETag", `"`+rev+`"`)
		}
	}
	if md, ok := runtime.ServerMetadataFromContext(ctx); ok && len(md.HeaderMD.Get(objects.HeaderStatus)) > 0 {
		w.WriteHeader(http.StatusCreated)
	}
	return nil
}

// guardHTTP answers with a problem when a handler panics before it has written anything.
func (s *server) guardHTTP(next http.Handler) http.Handler {
	return s.Guard.HTTP(next, func(w http.ResponseWriter, _ *http.Request, err error) { WriteProblem(w, api.ProblemOf(err)) })
}
