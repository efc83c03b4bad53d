package kind

import (
	"cmp"
	"context"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Server shows the running servers of the cluster. A server has no object: its name is its address.
func Server() Kind {
	return Kind{
		Name: "Server", Plural: "servers",
		Columns: []string{"ADDRESS", "VERSION", "AGENTS", "LAG", "LOOPS", "AGE"},
		wide:    []string{"HOST", "ID"},
		Row:     serverRow,
		List: func(ctx context.Context, conn grpc.ClientConnInterface, _ Filter) ([]proto.Message, error) {
			l, err := carav1.NewInfoServiceClient(conn).ListServers(ctx, &emptypb.Empty{})
			all := make([]*ClusterServer, len(l.GetItems()))
			for i, s := range l.GetItems() {
				all[i] = &ClusterServer{s}
			}
			return messages(all, err)
		},
	}
}

// ClusterServer is a Server with a name.
type ClusterServer struct{ *carav1.Server }

// GetMetadata returns the name of the server, and when it was started.
func (s *ClusterServer) GetMetadata() *carav1.ObjectMeta {
	return &carav1.ObjectMeta{Name: cmp.Or(s.GetAddress(), s.GetId()), CreationTimestamp: s.GetStartedAt()}
}

func serverRow(m proto.Message, now time.Time) []term.Cell {
	s := m.(*ClusterServer)
	lag := term.Text("unknown")
	if s.Lag != nil {
		lag = term.Text(strconv.FormatInt(s.GetLag(), 10))
	}
	return []term.Cell{
		term.Text(cmp.Or(s.GetAddress(), "unknown")), term.Text(s.GetVersion()), term.Text(strconv.Itoa(int(s.GetAgents()))), lag,
		term.Text(strings.Join(s.GetLoops(), ",")), term.Since(now, s.GetStartedAt()), term.Text(s.GetHost()), term.Text(s.GetId()),
	}
}
