package apiserver

import (
	"context"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/objects"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// rest is everything that is not gRPC: the gateway, which calls the same services over a channel in this process, and the
// pages beside it.
func (s *Server) rest(ctx context.Context, paths pathTable) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, marshaler{cache: s.db.Cache}),
		runtime.WithMiddlewares(s.boundBody, holdStream),
		runtime.WithMetadata(requestMetadata),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithForwardResponseOption(answerHeaders),
		runtime.WithErrorHandler(answerError),
		runtime.WithStreamErrorHandler(streamError),
		runtime.WithRoutingErrorHandler(paths.routingError),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithWriteContentLength(),
	)
	if err := s.connect(ctx, mux); err != nil {
		return nil, err
	}
	pages := http.NewServeMux()
	s.pages(pages) //nolint:contextcheck // each call brings its own context
	pages.Handle("/api/", mux)
	pages.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { writeProblem(w, noRoute(r)) })
	return headAsGet(pages), nil
}

// connect ties the gateway's patterns with the services.
func (s *Server) connect(ctx context.Context, mux *runtime.ServeMux) error {
	conn := s.channel(admission.Visitor, shareCloner{}) //nolint:contextcheck // each call brings its own context
	for _, register := range []func() error{
		func() error {
			return carav1.RegisterProjectServiceHandlerClient(ctx, mux, carav1.NewProjectServiceClient(conn))
		},
		func() error {
			return carav1.RegisterApplyServiceHandlerClient(ctx, mux, carav1.NewApplyServiceClient(conn))
		},
		func() error {
			return carav1.RegisterNodeServiceHandlerClient(ctx, mux, carav1.NewNodeServiceClient(conn))
		},
		func() error {
			return carav1.RegisterSourceServiceHandlerClient(ctx, mux, carav1.NewSourceServiceClient(conn))
		},
		func() error {
			return carav1.RegisterSecretServiceHandlerClient(ctx, mux, carav1.NewSecretServiceClient(conn))
		},
		func() error {
			return carav1.RegisterEventServiceHandlerClient(ctx, mux, carav1.NewEventServiceClient(conn))
		},
		func() error {
			return carav1.RegisterWatchServiceHandlerClient(ctx, mux, carav1.NewWatchServiceClient(conn))
		},
		func() error {
			return carav1.RegisterTokenServiceHandlerClient(ctx, mux, carav1.NewTokenServiceClient(conn))
		},
		func() error {
			return carav1.RegisterInfoServiceHandlerClient(ctx, mux, carav1.NewInfoServiceClient(conn))
		},
	} {
		if err := register(); err != nil {
			return err
		}
	}
	return nil
}

// headAsGet answers HEAD like GET: net/http keeps the request as it came, and sends no body.
func headAsGet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			r = r.WithContext(r.Context())
			r.Method = http.MethodGet
		}
		next.ServeHTTP(w, r)
	})
}

// requestMetadata is what of a request's headers the services want to know; the gateway adds the authorization.
func requestMetadata(_ context.Context, r *http.Request) metadata.MD {
	if v := r.Header.Get("If-Match"); v != "" {
		return metadata.Pairs(objects.HeaderIfMatch, v)
	}
	return nil
}

// answerHeaders gives an answer its status and its ETag.
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
