package stream

import (
	"context"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// usageHistory sends what the services of a project used in the last hour, one message for each service.
func (s *Server) usageHistory(ctx context.Context, request *carav1.UsageHistoryRequest, server *serverEnd) error {
	want := s.Want(request.GetName())
	if want == nil {
		return nil // nothing of it has been measured here
	}
	for _, history := range s.Usage(want.Project, want.UID, request.GetServices()) {
		if err := server.Send(ctx, &carav1.AttachRequest{UsageHistory: history}); err != nil {
			return err
		}
	}
	return nil
}
