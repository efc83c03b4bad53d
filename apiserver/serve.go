package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/dispatch"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/rest"
	"github.com/caravanserai/cara/apiserver/ui"
	"github.com/caravanserai/cara/store"
)

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	pingAfter     = 15 * time.Second
	writeTimeout  = 30 * time.Second // time without any progress of a write
	maxHeaders    = 16 << 10
	maxStreams    = 10_000    // per connection; a program may keep many watches on one. The door limits unauthenticated callers
	streamBuffer  = 256 << 10 // unread bytes of a body
)

// Run fills the cache and serves the listener until ctx ends or a fatal error. Then it accepts no new calls, ends the long
// streams, waits for the other calls up to the drain timeout, and closes the rest. It closes the listener at the end. The
// listener may return *tls.Conn and plain connections, as identity.Listener does. Call Run only once.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	defer l.Close()
	if err := s.FirstStart(ctx); err != nil {
		return fmt.Errorf("apiserver: %w", err)
	}
	if s.cfg.Identity != nil {
		s.dropBackups() // left by a server that was killed
	}
	feedCtx, stopFeed := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFeed()
	work, workCtx := s.guard.Group(feedCtx, "Run", guard.Unlimited)
	work.Go(func() error { return s.db.Cache.Feed(workCtx, s.db.Store) })
	work.Go(func() error { return s.visits.EndWithTokens(workCtx) })
	work.Go(func() error { return sessions{s}.keepFresh(workCtx) })
	work.Go(func() error { return s.agents.KeepRoutes(workCtx) })
	work.Go(func() error {
		return dispatch.Recovery{DB: s.db}.Keep(workCtx, cmp.Or(s.cfg.recoveryWait, dispatch.NodeLease))
	})
	work.Go(func() error { return servers{s}.keep(workCtx) })
	s.servePeers(workCtx, work)
	if s.cfg.Directory == nil {
		work.Go(func() error { return s.Keep(workCtx) })
		work.Go(func() error { return s.Settle(workCtx) })
	}

	gs := grpc.NewServer(
		grpc.UnaryInterceptor(s.unary(admission.Visitor, store.Lease{})),
		grpc.StreamInterceptor(s.stream(admission.Visitor, store.Lease{})), //nolint:contextcheck // each stream has its own
		grpc.MaxRecvMsgSize(s.cfg.MaxBodyBytes),
	)
	s.register(gs)
	handler, err := s.door(ctx, gs)
	if err != nil {
		return err
	}
	hs := httpServer(handler, s.cfg.Logger)
	work.Go(func() error {
		if err := hs.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
		return nil
	})
	select {
	case <-ctx.Done():
	case <-workCtx.Done(): // the cache or the listener failed: pending calls end, and Run returns the cause
	}
	err = s.drain(ctx, hs)
	s.openID.settle()
	stopFeed()
	if werr := work.Wait(); werr != nil && !errors.Is(werr, context.Canceled) {
		return fmt.Errorf("apiserver: %w", werr)
	}
	return err
}

// Keep writes what follows from several objects, such as conditions and the Secrets of certificates, until ctx ends. Run does so for a
// server alone. Of several servers one at a time does it, with the lease of the reconciler in ctx.
func (s *Server) Keep(ctx context.Context) error {
	work, ctx := s.guard.Group(ctx, "Keep", guard.Unlimited)
	work.Go(func() error { return objects.Certificates{Service: s.objects}.KeepCertificates(ctx) })
	work.Go(func() error { return dispatch.Conditions{DB: s.db}.Keep(ctx) })
	work.Go(func() error { return dispatch.Handover{DB: s.db}.Keep(ctx) })
	return work.Wait()
}

// Settle settles what an interrupted publication of a snapshot has left. No publication may run meanwhile, so of several servers
// the one with the lease of the loop `sources` does it, before the loop begins.
func (s *Server) Settle(ctx context.Context) error {
	if s.db.Cache.Filled(ctx) != nil {
		return nil // the server ends
	}
	return s.objects.SettleSnapshots(ctx)
}

// serverLog logs net/http's messages at debug level. They are mostly about clients that disconnect.
func serverLog(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }

// drain ends the open calls: long streams immediately, other calls when they are done or the timeout is over.
func (s *Server) drain(ctx context.Context, hs *http.Server) error {
	close(s.db.Draining)
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
	defer cancel()
	err := hs.Shutdown(bounded)
	if errors.Is(err, context.DeadlineExceeded) {
		s.cfg.Logger.Warn("calls still ran at the end of the drain timeout and were cut off", "timeout", s.cfg.DrainTimeout)
		err = hs.Close()
	}
	if err != nil {
		return fmt.Errorf("apiserver: shut down: %w", err)
	}
	return nil
}

// httpServer has no timeouts for bodies and answers, since streams live long. The header timeout, the door and HTTP/2 pings
// stop slow clients.
func httpServer(h http.Handler, logger *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaders,
		ConnContext:       admission.WithConn,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:      maxStreams,
			MaxReceiveBufferPerStream: streamBuffer,
			SendPingTimeout:           pingAfter,
			PingTimeout:               pingAfter,
			WriteByteTimeout:          writeTimeout,
		},
		ErrorLog: serverLog(logger),
	}
}

// door creates the handler for gRPC and REST.
func (s *Server) door(ctx context.Context, gs *grpc.Server) (http.Handler, error) {
	routes, err := newRoutes()
	if err != nil {
		return nil, err
	}
	conn := s.channel(admission.Visitor, shareCloner{}, store.Lease{}) //nolint:contextcheck // each call brings its own context
	handler, err := rest.New(ctx, rest.Config{
		DB: s.db, Guard: s.guard, Conn: conn, Bodies: s.bodies, Refusals: s.anonymous,
		Hints: s.live.Hints, Metrics: s.figures(), Paths: routes.paths,
	})
	if err != nil {
		return nil, err
	}
	page, err := ui.New(ui.Config{
		Conn: conn, Sessions: sessions{s}, Cache: s.db.Cache, Draining: s.db.Draining, MayCall: authorise, Guard: s.guard,
		ClusterID: s.cfg.ClusterID, Version: s.cfg.Version, Logger: s.cfg.Logger, Now: s.cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	return &door{Server: s, routes: routes, grpc: gs, rest: handler, ui: page, strangers: admission.NewStrangers()}, nil
}

// network authenticates a caller from outside the process. Whatever the authenticator returns, such a caller never gets the
// role of a loop.
func (s *Server) network(ctx context.Context) (identity.Actor, error) {
	actor, err := s.cfg.Authenticator.Authenticate(ctx)
	if err != nil {
		return identity.Actor{}, err
	}
	if actor.System() || strings.HasPrefix(actor.Name, api.PrefixSystem) {
		return identity.Actor{}, api.Unauthenticated("the loops of the server do not call over the network")
	}
	return actor, nil
}
