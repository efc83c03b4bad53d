package ui

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// servers lists the running servers of the cluster. They are not objects: the view is rendered again when an agent comes or goes, and
// with the time.
func (vs views) servers(ctx context.Context, r request) (view, error) {
	return plain(ctx, r, "Servers", []string{api.KindNode}, vs.api.info.ListServers, &emptypb.Empty{}, serverMatches)
}

// serverMatches reports whether each word is in a text by which people know a server.
func serverMatches(s *carav1.Server, words []string) bool {
	return all(words, append(slices.Clone(s.GetLoops()), s.GetAddress(), s.GetHost(), s.GetVersion())...)
}

// serverName returns the name of a server for people.
func serverName(s *carav1.Server) string {
	return cmp.Or(s.GetAddress(), s.GetHost(), "this server")
}
