// Package testproblem checks the errors of the API in tests. The rooms of the apiserver use it, beside the line from push
// to container. A check ends its test: what follows may depend on the error.
package testproblem

import (
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
)

// Want ends the test unless err has the code and the title. An empty title matches every title.
func Want(t testing.TB, err error, code codes.Code, title string) {
	t.Helper()
	if got := api.Code(err); got != code {
		t.Fatalf("got %v (%v), want code %v", got, err, code)
	}
	if got := api.ProblemOf(err).GetTitle(); title != "" && got != title {
		t.Fatalf("got title %q (%v), want %q", got, err, title)
	}
}
