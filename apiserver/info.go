package apiserver

import (
	"context"

	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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
