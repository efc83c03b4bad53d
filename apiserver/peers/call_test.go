package peers

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestFailed: the caller hears which address failed and why.
func TestFailed(t *testing.T) {
	err := Failed(t.Context(), "10.0.0.12:8080", status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp: connection refused"`))
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "10.0.0.12:8080") || !strings.Contains(err.Error(), "asked: dial tcp: connection refused: try") {
		t.Error(err)
	}
}
