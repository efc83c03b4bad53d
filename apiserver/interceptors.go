package apiserver

import (
	"cmp"
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/store"
)

// identify returns the caller.
type identify func(context.Context) (identity.Actor, error)

// unary is the interceptor of every unary call. In this order: recover, measure, audit, authenticate, authorise, validate. What the
// calls write has the lease as a condition, if there is one.
func (s *Server) unary(who identify, lease store.Lease) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		start := time.Now()
		var actor identity.Actor
		defer func() {
			if p := recover(); p != nil {
				err = s.guard.Panicked(info.FullMethod, p)
			}
			err = api.Wire(err)
			s.metrics.observe(info.FullMethod, err, time.Since(start))
			s.audit(ctx, actor, info.FullMethod, req, resp, err)
		}()
		if actor, err = s.admit(ctx, who, info.FullMethod); err != nil {
			return nil, err
		}
		if err := s.check(actor, info.FullMethod, req); err != nil {
			return nil, err
		}
		if err := s.catchUp(ctx, actor, req); err != nil {
			return nil, err
		}
		return handler(store.WithLease(identity.WithActor(ctx, actor), lease), req)
	}
}

// stream is the interceptor of every stream. It validates each incoming message when it arrives.
func (s *Server) stream(who identify, lease store.Lease) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		start := time.Now()
		checked := &checkedStream{ServerStream: ss, server: s, method: info.FullMethod}
		defer func() {
			if p := recover(); p != nil {
				err = s.guard.Panicked(info.FullMethod, p)
			}
			err = api.Wire(err)
			s.metrics.observe(info.FullMethod, err, time.Since(start))
			s.audit(ss.Context(), checked.actor, info.FullMethod, checked.first, nil, err)
		}()
		if checked.actor, err = s.admit(ss.Context(), who, info.FullMethod); err != nil {
			return err
		}
		ctx, end := context.WithCancelCause(store.WithLease(identity.WithActor(ss.Context(), checked.actor), lease))
		defer end(nil)
		if v := admission.VisitOf(ss.Context()); v != nil {
			defer s.guard.AtEnd(v.Over, info.FullMethod, func() { end(context.Cause(v.Over)) })()
		}
		checked.ctx = ctx
		if err = handler(srv, checked); ctx.Err() != nil {
			return cmp.Or(checked.rejected(), err)
		}
		return err
	}
}

// admit waits for the cache, authenticates the caller and checks that its role may call the method.
func (s *Server) admit(ctx context.Context, who identify, method string) (identity.Actor, error) {
	if err := s.db.Cache.Filled(ctx); err != nil {
		return identity.Actor{}, err
	}
	actor, err := who(ctx)
	if err != nil {
		return identity.Actor{}, err
	}
	return actor, authorise(actor, method)
}

// check limits the names that the caller may use, and validates the request.
func (s *Server) check(actor identity.Actor, method string, req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "%s takes a %T, which is no message", method, req)
	}
	if name := objectName(m); name != "" && methods[method].write && !methods[method].own {
		if err := actor.CheckName(name); err != nil {
			return err
		}
	}
	return objects.Validate(m)
}

// checkedStream validates incoming messages and carries the actor.
type checkedStream struct {
	grpc.ServerStream
	ctx    context.Context //nolint:containedctx // a ServerStream is where gRPC keeps it
	server *Server
	actor  identity.Actor
	method string
	first  any
}

func (c *checkedStream) Context() context.Context { return c.ctx }

// rejected returns why the caller's credentials are no longer valid, or nil if they are valid.
func (c *checkedStream) rejected() error {
	if cause := context.Cause(c.ctx); cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

// SendMsg sends nothing to a caller whose credentials are no longer valid.
func (c *checkedStream) SendMsg(m any) error {
	if err := c.rejected(); err != nil {
		return err
	}
	return c.ServerStream.SendMsg(m)
}

func (c *checkedStream) RecvMsg(m any) error {
	err := admission.Receive(c.ServerStream, m)
	if rejected := c.rejected(); rejected != nil {
		return rejected
	}
	if err != nil {
		return err
	}
	if c.first == nil {
		c.first = m
	}
	return c.server.check(c.actor, c.method, m)
}
