package agent

import (
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
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

// refused says whether a name from the server is none. It becomes a part of names of files and of what the engine has,
// so that nothing may be done for it, not even report.
func (a *Agent) refused(name string) bool {
	if api.IsName(name) {
		return false
	}
	a.log.Error("refused an assignment: its project has no valid name", "project", text.Line(text.Clip(name, 100)))
	return true
}
