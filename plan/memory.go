package plan

import (
	"slices"
	"time"
)

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
