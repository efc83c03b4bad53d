package step

import (
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// violation is the end of an assignment that asks for what no project may have. The server refuses such a manifest; one
// that comes all the same is never run, whatever else the server says.
func violation(bad []*carav1.FieldError) *Failure {
	words := make([]string, len(bad))
	for i, e := range bad {
		words[i] = e.GetField() + ": " + e.GetMessage()
	}
	return &Failure{Reason: api.ReasonPolicyViolation, Message: "this node does not run what breaks its policies: " + strings.Join(words, "; ")}
}
