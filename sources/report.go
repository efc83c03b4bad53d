package sources

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// report writes the result of a pass: always the poll, which the server keeps in memory; conditions if they changed; an
// event if something failed or recovered. bad is nil if head was read.
func (p *pass) report(ctx context.Context, head *carav1.Snapshot, bad *Error) (time.Duration, error) {
	st, wait := p.st, p.nextPass(bad)
	st.due = p.cfg.Now().Add(wait)
	req := &carav1.UpdateSourceStatusRequest{
		Name: p.src.Metadata.Name, Uid: p.src.Metadata.Uid,
		Poll: &carav1.PollStatus{LastTime: timestamppb.New(p.cfg.Now()), NextTime: timestamppb.New(st.due), ObservedRevision: p.revision},
	}
	var events []*carav1.Event
	req.Conditions = p.changed(head, bad)
	for _, c := range req.Conditions {
		was := api.FindCondition(p.src.GetStatus().GetConditions(), c.Type)
		if was.GetStatus() != c.Status || was.GetReason() != c.Reason {
			events = append(events, p.event(c))
		}
	}
	if token := st.asked(p.src); bad != nil && token != "" {
		req.HandledToken, st.token = &token, token
	}
	stored, err := p.client.UpdateSourceStatus(ctx, req)
	if err != nil {
		if api.IsNotFound(err) || api.IsConflict(err) {
			return wait, nil // the source was deleted or replaced; the watch reports it
		}
		return 0, fmt.Errorf("update status: %w", err)
	}
	st.published = max(st.published, api.RevisionOf(stored))
	p.tell(bad)
	for _, e := range events {
		if _, err := p.events.CreateEvent(ctx, &carav1.CreateEventRequest{Event: e}); err != nil {
			p.cfg.Logger.Warn("event not recorded", "source", p.src.Metadata.Name, "reason", e.Reason, "error", err)
		}
	}
	return wait, nil
}

// nextPass counts the failures in a row, and returns the wait until the next pass.
func (p *pass) nextPass(bad *Error) time.Duration {
	st, every := p.st, interval(p.src, p.st.driver)
	if bad == nil {
		st.failures = 0
		return jitter(every)
	}
	st.failures++
	st.moves = 0
	st.barred = p.cfg.Now().Add(bad.RetryAfter) // hints wait for it too
	// Jitter must not shorten the wait that the server asked for.
	return max(jitter(backoff(bad, st.failures, every)), bad.RetryAfter)
}

// tell logs when a source starts to fail, fails for another reason, or recovers.
func (p *pass) tell(bad *Error) {
	var reason api.Reason
	if bad != nil {
		reason = bad.Reason
	}
	if reason == p.st.failed {
		return
	}
	p.st.failed = reason
	if bad != nil {
		p.cfg.Logger.Warn("source cannot be read", "source", p.src.Metadata.Name, "reason", reason, "error", bad)
		return
	}
	p.cfg.Logger.Info("source can be read again", "source", p.src.Metadata.Name, "rev", p.revision)
}

// changed returns the conditions that differ from the source's status.
func (p *pass) changed(head *carav1.Snapshot, bad *Error) []*carav1.Condition {
	var all []*carav1.Condition
	for _, c := range p.conditions(head, bad) {
		was := api.FindCondition(p.src.GetStatus().GetConditions(), c.Type)
		if was == nil && c.Status == api.StatusFalse || was.GetStatus() == c.Status && was.GetReason() == c.Reason && was.GetMessage() == c.Message {
			continue
		}
		c.ObservedGeneration = p.src.Metadata.Generation
		all = append(all, c)
	}
	return all
}

// conditions returns the conditions that this package owns. After a failed fetch, the condition about manifests stays as it
// is.
func (p *pass) conditions(head *carav1.Snapshot, bad *Error) []*carav1.Condition {
	var all []*carav1.Condition
	if bad != nil {
		message := bad.Message
		if s := p.src.GetStatus().GetSnapshot(); s != nil {
			message += fmt.Sprintf(" (what was read at %.12s stays in force)", s.Revision)
		}
		all = append(all, condition(api.CondFetchFailed, bad.Reason, message))
	} else {
		all = append(all, condition(api.CondFetchFailed, "", ""), condition(api.CondInvalidManifests, invalid(head), summary(head)))
	}
	degraded := ""
	if live, ok := p.st.driver.(Live); ok {
		degraded = live.Degraded()
	}
	var reason api.Reason
	if degraded != "" {
		reason = api.ReasonPolling
	}
	return append(all, condition(api.CondWatchDegraded, reason, degraded))
}

func invalid(head *carav1.Snapshot) api.Reason {
	if head.GetErrorCount() > 0 {
		return api.ReasonInvalidFiles
	}
	return ""
}

// summary names the first errors of a snapshot and counts the files.
func summary(head *carav1.Snapshot) string {
	n := int(head.GetErrorCount())
	if n == 0 {
		return ""
	}
	files := map[string]bool{}
	var lines []string
	for i, f := range head.GetFileErrors() {
		files[f.File] = true
		if i < 3 {
			lines = append(lines, describe(f))
		}
	}
	out := fmt.Sprintf("%s in %s: %s", text.Count(n, "error"), text.Count(len(files), "file"), strings.Join(lines, "; "))
	if n > len(lines) {
		out += fmt.Sprintf("; and %d more", n-len(lines))
	}
	return text.Clip(out, 4000)
}

func describe(f *carav1.FileProblem) string {
	if f.Path == "" {
		return Place(f) + ": " + f.Message
	}
	return Place(f) + ": " + f.Path + ": " + f.Message
}

// condition is True if there is a reason, otherwise False.
func condition(typ string, reason api.Reason, message string) *carav1.Condition {
	if reason == "" {
		return &carav1.Condition{Type: typ, Status: api.StatusFalse, Reason: api.Not(typ)}
	}
	return &carav1.Condition{Type: typ, Status: api.StatusTrue, Reason: string(reason), Message: message}
}

func (p *pass) event(c *carav1.Condition) *carav1.Event {
	e := &carav1.Event{
		ApiVersion: api.APIVersion, Kind: api.KindEvent, Type: api.EventWarning, Message: c.Message,
		Object: &carav1.ObjectRef{Kind: api.KindSource, Name: p.src.Metadata.Name, Uid: p.src.Metadata.Uid},
	}
	broken := c.Status == api.StatusTrue
	switch c.Type {
	case api.CondFetchFailed:
		e.Reason = api.CondFetchFailed
		if !broken {
			e.Reason, e.Message = api.ReasonFetchRecovered, "the source can be read again"
		}
	case api.CondInvalidManifests:
		e.Reason = api.CondInvalidManifests
		if !broken {
			e.Reason, e.Message = api.ReasonManifestsRecovered, "every manifest can be read again"
		}
	default:
		e.Reason = api.CondWatchDegraded
		if !broken {
			e.Message = "changes are noticed at once again"
		}
	}
	if !broken {
		e.Type = api.EventNormal
	}
	return e
}
