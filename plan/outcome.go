package plan

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// Outcome is the result of one step. Initially it is the expected result.
type Outcome struct {
	// State and Message are the new ones of the claim. Without a State, the claim's status does not change.
	State, Message string
	UID            string
	// Wrote is true if the cluster was changed.
	Wrote bool
}

// Expected returns the outcome of a step that succeeds.
func (s *Step) Expected() Outcome { return Outcome{State: s.State, Message: s.Message, UID: s.UID} }

// ClaimStatus returns the claim's status after the step, or nil if it does not change.
func (s *Step) ClaimStatus(res Outcome, now time.Time) *carav1.ClaimStatus {
	if res.State == "" {
		return nil
	}
	old := s.Row.Status
	next := cmp.Or(proto.CloneOf(old), &carav1.ClaimStatus{})
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

// maxMessage limits a stored message, in bytes.
const maxMessage = 4000

// Bounded truncates a message to be stored.
func Bounded(s string) string { return text.Clip(s, maxMessage) }

// A rejected project is tried again after the first of these times, which doubles up to the second. A change of the
// manifest or of the project causes an immediate attempt.
const (
	refusedFirst = 5 * time.Second
	refusedMost  = 5 * time.Minute
)

// NoteRefused records that the server rejected the step.
func (m *Memory) NoteRefused(s *Step, state, message string, now time.Time) {
	if base := s.Row.base(); m.Hash != s.Row.Want || m.Base != base {
		*m = Memory{Hash: s.Row.Want, Base: base, Applied: m.kept(s.Row.Want)}
	}
	wait := refusedMost
	if m.Failures < 7 {
		wait = min(refusedFirst<<m.Failures, refusedMost)
	}
	m.Failures++
	m.Retry, m.State, m.Message = now.Add(wait), state, message
}

// NoteApplied records that the step was applied; wrote is false if the server had nothing to change.
func (m *Memory) NoteApplied(s *Step, wrote bool, now time.Time) {
	times := m.kept(s.Row.Want)
	if wrote {
		times = append(times, now)
	}
	times = slices.DeleteFunc(times, func(t time.Time) bool { return now.Sub(t) >= breakerWindow || t.After(now) })
	*m = Memory{Hash: s.Row.Want, Applied: times}
}

// kept returns the applies of a hash.
func (m *Memory) kept(hash string) []time.Time {
	if m.Hash != hash {
		return nil
	}
	return slices.Clone(m.Applied)
}
