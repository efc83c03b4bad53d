package plan

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// Outcome is what became of one step. It begins as what the plan expects.
type Outcome struct {
	// State and Message of the claim; without a state its status stays.
	State, Message string
	UID            string
	// Wrote is true where the cluster was changed.
	Wrote bool
}

// Expected is the outcome of a step that goes as planned.
func (s *Step) Expected() Outcome { return Outcome{State: s.State, Message: s.Message, UID: s.UID} }

// ClaimStatus is the claim's status after the step; nil if it stays as it is.
func (s *Step) ClaimStatus(res Outcome, now time.Time) *carav1.ClaimStatus {
	if res.State == "" {
		return nil
	}
	old := s.Row.Status
	next := &carav1.ClaimStatus{}
	if old != nil {
		next = proto.CloneOf(old)
	}
	next.State, next.Message = res.State, Bounded(res.Message)
	switch {
	case s.Reason == api.ReasonInventory:
		next.ProjectUid = res.UID
	case res.State == api.ClaimApplied:
		if next.AppliedHash != s.Row.Want || next.AppliedTime == nil || res.Wrote {
			next.AppliedHash, next.AppliedRevision = s.Row.Want, s.Row.Claim.Spec.Revision
			next.AppliedTime = timestamppb.New(now)
		}
		next.ProjectUid = res.UID
	}
	if old != nil && proto.Equal(old, next) {
		return nil
	}
	return next
}

// maxMessage is the most bytes of a message that is stored.
const maxMessage = 4000

// Bounded cuts a message that is stored.
func Bounded(s string) string { return text.Clip(s, maxMessage) }
