package reconciler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
	"github.com/caravanserai/cara/plan"
)

// totals summarises a pass.
type totals struct {
	created, updated, pruned, failed int
	// states counts claims by state. said holds the first few of each state with their messages.
	states map[string]int
	said   map[string][]string
	// owned is the number of projects that the source owns after the pass.
	owned int
}

// named is the maximum number of projects that a condition names.
const named = 10

func summarise(p *plan.Plan, done *outcome) totals {
	t := totals{states: map[string]int{api.ClaimApplied: p.Settled}, said: map[string][]string{}, owned: p.Owned}
	for i := range p.Steps {
		s, res := &p.Steps[i], &done.results[i]
		state := res.State
		if state == "" && !res.failed {
			continue
		}
		t.states[state]++
		if len(t.said[state]) < named && state != api.ClaimApplied && state != "" {
			t.said[state] = append(t.said[state], s.Project+": "+text.Clip(res.Message, 300))
		}
		switch {
		case res.failed, state == api.ClaimRefused, state == api.ClaimNotAllowed, state == api.ClaimConflict, state == api.ClaimAdoptionRequired, state == api.ClaimStalled:
			t.failed++
		case s.Action == plan.Create:
			t.created, t.owned = t.created+1, t.owned+1
		case s.Action == plan.Adopt, s.Action == plan.HandOver:
			t.updated, t.owned = t.updated+1, t.owned+1
		case s.Action == plan.Update:
			t.updated++
		}
	}
	for i := range p.Steps {
		if p.Steps[i].Action == plan.Delete && !done.results[i].failed {
			t.pruned, t.owned = t.pruned+1, t.owned-1
		}
	}
	return t
}

// statusUpdate returns the one write of the source's status at the end of a pass, or nil if nothing changed.
func statusUpdate(in plan.Input, p *plan.Plan, done *outcome, now time.Time) *carav1.UpdateSourceStatusRequest {
	meta, st := in.Source.Metadata, in.Source.GetStatus()
	t := summarise(p, done)
	req := &carav1.UpdateSourceStatusRequest{Name: meta.Name, Uid: meta.Uid}
	req.Conditions = changedConditions(st.GetConditions(), conditions(in, p, done, t))
	news := len(req.Conditions) > 0
	text := func(field **string, have, want string) {
		if have != want {
			*field, news = &want, true
		}
	}
	passed := !in.Source.GetSpec().GetSuspend() && meta.DeletionTimestamp == nil && st.GetSnapshot() != nil
	if passed {
		text(&req.AttemptedRevision, st.GetAttemptedRevision(), p.Revision)
		if t.failed == 0 && done.err == nil && plan.Whole(st.Snapshot) {
			text(&req.AppliedRevision, st.GetAppliedRevision(), p.Revision)
		}
	}
	if token := answered(in, done); token > st.GetHandledToken() {
		req.HandledToken, news = &token, true
	}
	if want := int32(t.owned); st.GetProjects() != want {
		req.Projects, news = &want, true
	}
	if run := newRun(in, p, done, t, now); run != nil {
		req.Run, news = run, true
	}
	if st.GetObservedGeneration() != meta.Generation && passed && done.err == nil { // else the next pass checks again
		req.ObservedGeneration, news = &meta.Generation, true
	}
	if !news {
		return nil
	}
	return req
}

// changedConditions returns the conditions that differ from those that the source has. A condition that was never true gets no
// entry.
func changedConditions(have, want []*carav1.Condition) []*carav1.Condition {
	var out []*carav1.Condition
	for _, c := range want {
		was := api.FindCondition(have, c.Type)
		if was == nil && c.Status == api.StatusFalse && c.Type != api.CondReady {
			continue
		}
		if was.GetStatus() != c.Status || was.GetReason() != c.Reason || was.GetMessage() != c.Message {
			out = append(out, c)
		}
	}
	return out
}

// answered returns the newest sync request that the pass answers, or an empty string. That is the request that the snapshot
// was read for; a newer request waits for a later pass. A suspended source answers every request immediately: its condition
// says that nothing is done.
func answered(in plan.Input, done *outcome) string {
	st := in.Source.GetStatus()
	switch {
	case done.err != nil:
		return ""
	case in.Source.GetSpec().GetSuspend():
		return st.GetRequestedToken()
	}
	return st.GetSnapshot().GetToken()
}

// newRun returns the pass as one entry of history, or nil if it changed nothing or failed in the same way as the pass
// before.
func newRun(in plan.Input, p *plan.Plan, done *outcome, t totals, now time.Time) *carav1.Run {
	changed := t.created+t.updated+t.pruned > 0
	if (!changed && t.failed == 0 && done.err == nil) || in.Source.GetSpec().GetSuspend() {
		return nil
	}
	run := &carav1.Run{
		Revision: p.Revision, StartTime: timestamppb.New(in.Now), EndTime: timestamppb.New(now),
		Created: int32(t.created), Updated: int32(t.updated), Pruned: int32(t.pruned), Failed: int32(t.failed),
		Message: plan.Bounded(runMessage(t, done)),
	}
	if runs := in.Source.GetStatus().GetRuns(); !changed && len(runs) > 0 {
		if last := runs[0]; last.Revision == run.Revision && last.Failed == run.Failed && last.Message == run.Message {
			return nil
		}
	}
	return run
}

func runMessage(t totals, done *outcome) string {
	if done.err != nil {
		return attempted(done.err)
	}
	for _, state := range troubles() {
		if len(t.said[state]) > 0 {
			return state + ": " + t.said[state][0]
		}
	}
	return ""
}

// troubles are the states that keep a source from being Ready, worst first.
func troubles() []string {
	return []string{api.ClaimConflict, api.ClaimAdoptionRequired, api.ClaimNotAllowed, api.ClaimRefused, api.ClaimStalled}
}

// conditions returns the reconciler's conditions of a source after a pass.
func conditions(in plan.Input, p *plan.Plan, done *outcome, t totals) []*carav1.Condition {
	is := func(typ string, yes bool, reason, message string) *carav1.Condition {
		c := &carav1.Condition{
			Type: typ, Status: api.StatusFalse, Reason: api.Not(typ), ObservedGeneration: in.Source.Metadata.Generation,
		}
		if yes {
			c.Status, c.Reason, c.Message = api.StatusTrue, reason, plan.Bounded(message)
		}
		return c
	}
	if in.Source.Metadata.DeletionTimestamp != nil {
		return []*carav1.Condition{ready(in, p, done, t)}
	}
	suspended := in.Source.GetSpec().GetSuspend()
	all := []*carav1.Condition{
		is(api.CondSuspended, suspended, api.ReasonSuspended, "nothing is fetched, applied or pruned; projects still expire; `caractrl resume` ends it"),
	}
	if !suspended {
		conflicts, reason := t.states[api.ClaimConflict]+t.states[api.ClaimAdoptionRequired], api.ClaimConflict
		if t.states[api.ClaimConflict] == 0 {
			reason = api.ClaimAdoptionRequired
		}
		all = append(all,
			is(api.CondConflict, conflicts > 0, reason, list(t, api.ClaimConflict, api.ClaimAdoptionRequired)),
			is(api.CondStalled, t.states[api.ClaimStalled] > 0, api.ReasonFight, list(t, api.ClaimStalled)),
			is(api.CondPruneBlocked, pruneBlocked(p), pruneReason(p), pruneText(p)))
	}
	return append(all, ready(in, p, done, t))
}

func pruneBlocked(p *plan.Plan) bool { return len(p.Prune.Reasons) > 0 }

func pruneReason(p *plan.Plan) string {
	if len(p.Prune.Reasons) == 1 && p.Prune.Reasons[0] == api.PruneOff {
		return api.ReasonPruneOff
	}
	return api.ReasonBlocked
}

func pruneText(p *plan.Plan) string {
	names := p.Prune.Delete
	more := ""
	if len(names) > named {
		more = fmt.Sprintf(" and %d more", len(names)-named)
		names = names[:named]
	}
	text := strings.Join(p.Prune.Reasons, "; ")
	if len(names) > 0 {
		text += "; kept: " + strings.Join(names, ", ") + more
	}
	return text
}

// list names the first projects in some states and counts the rest.
func list(t totals, states ...string) string {
	var lines []string
	n := 0
	for _, s := range states {
		lines = append(lines, t.said[s]...)
		n += t.states[s]
	}
	text := strings.Join(lines, "; ")
	if n > len(lines) {
		text += fmt.Sprintf("; and %d more", n-len(lines))
	}
	return text
}

// ready returns the Ready condition. It is True if the cluster matches the source.
func ready(in plan.Input, p *plan.Plan, done *outcome, t totals) *carav1.Condition {
	c := &carav1.Condition{Type: api.CondReady, Status: api.StatusFalse, ObservedGeneration: in.Source.Metadata.Generation}
	c.Reason, c.Message = notReady(in, p, done, t)
	if c.Reason == "" {
		c.Status, c.Reason = api.StatusTrue, api.ReasonApplied
		c.Message = fmt.Sprintf("%s as at %s", text.Count(t.owned, "project"), api.ShortRevision(p.Revision))
	}
	c.Message = plan.Bounded(c.Message)
	return c
}

func notReady(in plan.Input, p *plan.Plan, done *outcome, t totals) (reason, message string) {
	st := in.Source.GetStatus()
	switch {
	case in.Source.Metadata.DeletionTimestamp != nil:
		return api.ReasonDeleting, deletionText(in, p)
	case in.Source.GetSpec().GetSuspend():
		return api.ReasonSuspended, "the source is suspended"
	}
	for _, typ := range []string{api.CondFetchFailed, api.CondInvalidManifests} {
		if c := api.FindCondition(st.GetConditions(), typ); c != nil && c.Status == api.StatusTrue {
			return typ, c.Message
		}
	}
	switch {
	case st.GetSnapshot() == nil:
		return api.ReasonNotRead, "the source was not read yet"
	case !plan.Whole(st.Snapshot):
		return api.CondInvalidManifests, plan.FileErrors(st.Snapshot, max(int(st.Snapshot.ErrorCount), len(st.Snapshot.FileErrors)))
	case done.err != nil:
		return api.ReasonFailed, attempted(done.err)
	}
	for _, state := range troubles() {
		if t.states[state] > 0 {
			return state, list(t, state)
		}
	}
	if pruneBlocked(p) && pruneReason(p) != api.ReasonPruneOff {
		return api.CondPruneBlocked, pruneText(p)
	}
	return "", ""
}

// deletionText says what a deleted source is waiting for.
func deletionText(in plan.Input, p *plan.Plan) string {
	text := "the source is being deleted, onDelete: " + cmp.Or(in.Source.GetSpec().GetOnDelete(), api.OnDeleteOrphan)
	var left []string
	for i := range p.Steps {
		if s := &p.Steps[i]; s.Reason == api.ReasonLeftToOther {
			left = append(left, fmt.Sprintf("project %s to be taken over by source/%s", s.Project, s.Row.Heir(in.Now).GetSpec().GetSource()))
		}
	}
	if len(left) == 0 {
		return text
	}
	slices.Sort(left)
	if len(left) > named {
		left = append(left[:named], fmt.Sprintf("and %d more", len(left)-named))
	}
	return text + "; it waits for " + strings.Join(left, ", ")
}
