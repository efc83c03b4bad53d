package apiserver

import (
	"context"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/store"
)

// unaryUnder runs calls as work that needs a lease.
func unaryUnder(lease store.Lease, next grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	if lease == (store.Lease{}) {
		return next
	}
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return next(store.WithLease(ctx, lease), req, info, handler)
	}
}

// streamUnder runs streams as work that needs a lease.
func streamUnder(lease store.Lease, next grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	if lease == (store.Lease{}) {
		return next
	}
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return next(srv, leasedStream{ss, store.WithLease(ss.Context(), lease)}, info, handler)
	}
}

// leasedStream is a stream of work that needs a lease.
type leasedStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // a ServerStream is where gRPC keeps it
}

func (s leasedStream) Context() context.Context { return s.ctx }
