package apiserver

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// serversEvery is how often the addresses of the servers are read, which agents are told.
const serversEvery = 5 * time.Second

// ListServers returns the servers of the cluster, and how many agents are connected to each.
func (s infoService) ListServers(ctx context.Context, _ *emptypb.Empty) (*carav1.ListServersResponse, error) {
	known := servers{s.Server}
	all, err := known.list(ctx)
	if err != nil {
		return nil, api.Unavailable("the servers of the cluster are not known: %v", err)
	}
	agents := known.countAgents()
	for _, one := range all {
		one.Agents = int32(agents(one.GetId())) //nolint:gosec // bounded by the connections of a server
		one.Lag = known.lag(one.GetId())
	}
	return &carav1.ListServersResponse{Items: all}, nil
}

// servers are those of the cluster, as this one knows them.
type servers struct{ *Server }

// countAgents returns what counts the agents that are connected to a server.
func (s servers) countAgents() func(server string) int {
	if s.cfg.Directory == nil {
		return func(string) int { return s.agents.Sessions.Count() }
	}
	count := map[string]int{}
	for _, n := range state.List[*carav1.Node](s.db.Cache, "") {
		if h, ok := s.cfg.Directory.Holder(n.GetMetadata().GetName()); ok {
			count[h.Server]++
		}
	}
	return func(server string) int { return count[server] }
}

// lag returns how many revisions a server is behind this one, or nil if this one hears nothing from it.
func (s servers) lag(server string) *int64 {
	var behind int64
	if s.cfg.Directory != nil && server != s.cfg.Directory.Self() {
		revision := s.peers.Revision(server)
		if revision == 0 {
			return nil
		}
		behind = max(0, s.db.Cache.Followed()-revision)
	}
	return &behind
}

// list returns the servers, by address.
func (s servers) list(ctx context.Context) ([]*carav1.Server, error) {
	all, err := s.cfg.Servers(ctx)
	slices.SortFunc(all, func(a, b *carav1.Server) int {
		return cmp.Or(cmp.Compare(a.GetAddress(), b.GetAddress()), cmp.Compare(a.GetId(), b.GetId()))
	})
	return all, err
}

// keep keeps the addresses that agents are told. The agents of a server alone are told nothing.
func (s servers) keep(ctx context.Context) error {
	var known []string
	guard.Every(ctx, serversEvery, func() {
		if all, err := s.list(ctx); err == nil {
			if known = addresses(all, known); len(known) > 1 {
				s.agents.KnowServers(known)
			}
		}
	})
	return ctx.Err()
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

// GetInfo returns the server's version and cluster, and the authenticated caller.
func (s infoService) GetInfo(ctx context.Context, _ *emptypb.Empty) (*carav1.Info, error) {
	actor := identity.ActorOf(ctx)
	info := &carav1.Info{
		Version:   s.cfg.Version,
		ClusterId: s.cfg.ClusterID,
		Time:      timestamppb.New(s.db.Now()),
		Actor:     actor.Name,
		Role:      string(actor.Role), NamePrefixes: actor.NamePrefixes,
	}
	if !actor.Expires.IsZero() {
		info.ExpireAt = timestamppb.New(actor.Expires)
	}
	return info, nil
}
