package apiserver

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/rest"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// serversEvery is how often the addresses of the servers are read, which agents are told.
const serversEvery = 5 * time.Second

// ListServers returns the servers of the cluster, and how many agents are connected to each.
func (s infoService) ListServers(ctx context.Context, _ *emptypb.Empty) (*carav1.ListServersResponse, error) {
	all, err := s.servers(ctx)
	if err != nil {
		return nil, api.Unavailable("the servers of the cluster are not known: %v", err)
	}
	agents := s.agents.Sessions.Through()
	for _, one := range all {
		one.Agents = int32(agents[one.GetId()]) //nolint:gosec // bounded by the connections of a server
		if one.GetState() == api.ServerActive {
			one.Agents += int32(agents[""]) //nolint:gosec // see above
		}
	}
	return &carav1.ListServersResponse{Items: all}, nil
}

// servers returns the servers, first the active one and then by address.
func (s *Server) servers(ctx context.Context) ([]*carav1.Server, error) {
	all, err := s.cfg.Servers(ctx)
	slices.SortFunc(all, func(a, b *carav1.Server) int {
		return cmp.Or(cmp.Compare(a.GetState(), b.GetState()), cmp.Compare(a.GetAddress(), b.GetAddress()), cmp.Compare(a.GetId(), b.GetId()))
	})
	return all, err
}

// keepServers keeps the addresses that agents are told. The agents of a server alone are told nothing.
func (s *Server) keepServers(ctx context.Context) error {
	tick := time.NewTicker(serversEvery)
	defer tick.Stop()
	var known []string
	for {
		if all, err := s.servers(ctx); err == nil {
			if known = addresses(all, known); len(known) > 1 {
				s.agents.KnowServers(known)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

const maxServersTold = 16 // as many as an agent keeps

// addresses returns the addresses of servers, and then those that were known before: a server that is restarted is away only
// for a short time.
func addresses(all []*carav1.Server, before []string) []string {
	var out []string
	for _, one := range all {
		if one.GetAddress() != "" && !slices.Contains(out, one.GetAddress()) {
			out = append(out, one.GetAddress())
		}
	}
	for _, address := range before {
		if !slices.Contains(out, address) {
			out = append(out, address)
		}
	}
	return out[:min(len(out), maxServersTold)]
}

// serveForwarded serves the connections that standbys pass on, if there can be any.
func (s *Server) serveForwarded(work guard.Group, hs *http.Server) {
	if s.cfg.Forwarded == nil {
		return
	}
	l := s.cfg.Forwarded.Clients(s.cfg.ForwardedLimits, s.cfg.Identity.TLSConfig())
	work.Go(func() error {
		if err := hs.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the connections of standbys: %w", err)
		}
		return nil
	})
}

// fromStandby handles what is different for a connection that a standby has passed on: the standby is not ready in the sense of
// a load balancer, which should choose the active server, and a request may have been encrypted on its way to the standby.
func (s *Server) fromStandby(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn := admission.Forwarded(r.Context())
		if conn == nil {
			next.ServeHTTP(w, r)
			return
		}
		if r.URL.Path == "/readyz" {
			rest.WriteProblem(w, api.ProblemOf(api.Unavailable("this server is a standby; it passes calls on to the active one")))
			return
		}
		if conn.Secure() {
			r.TLS = &tls.ConnectionState{HandshakeComplete: true, Version: tls.VersionTLS13}
		}
		next.ServeHTTP(w, r)
	})
}
