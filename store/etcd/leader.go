package etcd

import (
	"context"
	"errors"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

const (
	leaderAgain = 50 * time.Millisecond
	leaderWait  = 3 * time.Second // above the time of an election
)

// leaderForCall lets requests go past a member that the others do not reach. Such a member keeps a request for 7 seconds, unless the
// request asks for a leader: then the member says at once that it knows none, and has not begun it. The next try goes to another member.
// Reads are repeated by etcd's client itself.
func leaderForCall(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if !strings.HasPrefix(method, "/etcdserverpb.KV/") && !strings.HasPrefix(method, "/etcdserverpb.Lease/") {
		return call(ctx, method, request, answer, conn, opts...) // for example the state of one member
	}
	ctx = clientv3.WithRequireLeader(ctx)
	for until := time.Now().Add(leaderWait); ; {
		err := call(ctx, method, request, answer, conn, opts...)
		if !leaderless(err) || method == "/etcdserverpb.KV/Range" || time.Now().After(until) || !leaderPause(ctx) {
			return err
		}
	}
}

// leaderless reports whether a member has refused a request because it knows no leader.
func leaderless(err error) bool { return errors.Is(rpctypes.Error(err), rpctypes.ErrNoLeader) }

// leaderPause returns false if ctx ends.
func leaderPause(ctx context.Context) bool {
	select {
	case <-time.After(leaderAgain):
		return true
	case <-ctx.Done():
		return false
	}
}
