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
	"github.com/caravanserai/cara/manifest"
)

// report writes the result of a pass: always the poll, which the server keeps in memory; conditions if they changed; an
// event if something failed or recovered. bad is nil if head was read.
func (p *pass) report(ctx context.Context, head *carav1.Snapshot, bad *Error) (time.Duration, error) {
	return (&outcome{pass: p, head: head, bad: bad}).report(ctx)
}

// outcome is the result of a pass: what it read, or why it failed.
type outcome struct {
	*pass
	head *carav1.Snapshot
	bad  *Error
}

func (o *outcome) report(ctx context.Context) (time.Duration, error) {
	st, wait := o.st, o.nextPass()
	st.due = o.cfg.Now().Add(wait)
	req := &carav1.UpdateSourceStatusRequest{
		Name: o.src.Metadata.Name, Uid: o.src.Metadata.Uid,
		Poll: &carav1.PollStatus{LastTime: timestamppb.New(o.cfg.Now()), NextTime: timestamppb.New(st.due), ObservedRevision: o.revision},
	}
	var events []*carav1.Event
	req.Conditions = o.changed()
	for _, c := range req.Conditions {
		was := api.FindCondition(o.src.GetStatus().GetConditions(), c.Type)
		if was.GetStatus() != c.Status || was.GetReason() != c.Reason {
			events = append(events, o.event(c))
		}
	}
	if token := st.asked(o.src); o.bad != nil && token != "" {
		req.HandledToken, st.token = &token, token
	}
	stored, err := o.client.UpdateSourceStatus(ctx, req)
	if err != nil {
		if api.IsNotFound(err) || api.IsConflict(err) {
			return wait, nil // the source was deleted or replaced; the watch reports it
		}
		return 0, fmt.Errorf("update status: %w", err)
	}
	st.published = max(st.published, api.RevisionOf(stored))
	o.tell()
	for _, e := range events {
		if _, err := o.events.CreateEvent(ctx, &carav1.CreateEventRequest{Event: e}); err != nil {
			o.cfg.Logger.Warn("event not recorded", "source", o.src.Metadata.Name, "reason", e.Reason, "error", err)
		}
	}
	return wait, nil
}

// nextPass counts the failures in a row, and returns the wait until the next pass.
func (o *outcome) nextPass() time.Duration {
	st, every := o.st, interval(o.src, o.st.driver)
	if o.bad == nil {
		st.failures = 0
		return jitter(every)
	}
	st.failures++
	st.moves = 0
	st.barred = o.cfg.Now().Add(o.bad.RetryAfter) // hints wait for it too
	// Jitter must not shorten the wait that the server asked for.
	return max(jitter(backoff(o.bad, st.failures, every)), o.bad.RetryAfter)
}

// tell logs when a source starts to fail, fails for another reason, or recovers.
func (o *outcome) tell() {
	var reason api.Reason
	if o.bad != nil {
		reason = o.bad.Reason
	}
	if reason == o.st.failed {
		return
	}
	o.st.failed = reason
	if o.bad != nil {
		o.cfg.Logger.Warn("source cannot be read", "source", o.src.Metadata.Name, "reason", reason, "error", o.bad)
		return
	}
	o.cfg.Logger.Info("source can be read again", "source", o.src.Metadata.Name, "rev", o.revision)
}

// changed returns the conditions that differ from the source's status.
func (o *outcome) changed() []*carav1.Condition {
	var all []*carav1.Condition
	for _, c := range o.conditions() {
		was := api.FindCondition(o.src.GetStatus().GetConditions(), c.Type)
		if was == nil && c.Status == api.StatusFalse || was.GetStatus() == c.Status && was.GetReason() == c.Reason && was.GetMessage() == c.Message {
			continue
		}
		c.ObservedGeneration = o.src.Metadata.Generation
		all = append(all, c)
	}
	return all
}

// conditions returns the conditions that this package owns. After a failed fetch, the condition about manifests stays as it
// is.
func (o *outcome) conditions() []*carav1.Condition {
	var all []*carav1.Condition
	if o.bad != nil {
		message := o.bad.Message
		if s := o.src.GetStatus().GetSnapshot(); s != nil {
			message += fmt.Sprintf(" (what was read at %.12s stays in force)", s.Revision)
		}
		all = append(all, condition(api.CondFetchFailed, o.bad.Reason, message))
	} else {
		var invalid api.Reason
		if o.head.GetErrorCount() > 0 {
			invalid = api.ReasonInvalidFiles
		}
		all = append(all, condition(api.CondFetchFailed, "", ""), condition(api.CondInvalidManifests, invalid, summary(o.head)))
	}
	degraded := ""
	if live, ok := o.st.driver.(Live); ok {
		degraded = live.Degraded()
	}
	var reason api.Reason
	if degraded != "" {
		reason = api.ReasonPolling
	}
	return append(all, condition(api.CondWatchDegraded, reason, degraded))
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
			lines = append(lines, manifest.Format(f))
		}
	}
	out := fmt.Sprintf("%s in %s: %s", text.Count(n, "error"), text.Count(len(files), "file"), strings.Join(lines, "; "))
	if n > len(lines) {
		out += fmt.Sprintf("; and %d more", n-len(lines))
	}
	return text.Clip(out, 4000)
}

// condition is True if there is a reason, otherwise False.
func condition(typ string, reason api.Reason, message string) *carav1.Condition {
	if reason == "" {
		return &carav1.Condition{Type: typ, Status: api.StatusFalse, Reason: api.Not(typ)}
	}
	return &carav1.Condition{Type: typ, Status: api.StatusTrue, Reason: string(reason), Message: message}
}

func (o *outcome) event(c *carav1.Condition) *carav1.Event {
	e := &carav1.Event{
		ApiVersion: api.APIVersion, Kind: api.KindEvent, Type: api.EventWarning, Reason: c.Type, Message: c.Message,
		Object: &carav1.ObjectRef{Kind: api.KindSource, Name: o.src.Metadata.Name, Uid: o.src.Metadata.Uid},
	}
	if c.Status == api.StatusTrue {
		return e
	}
	e.Type = api.EventNormal
	switch c.Type {
	case api.CondFetchFailed:
		e.Reason, e.Message = api.ReasonFetchRecovered, "the source can be read again"
	case api.CondInvalidManifests:
		e.Reason, e.Message = api.ReasonManifestsRecovered, "every manifest can be read again"
	default:
		e.Message = "changes are noticed at once again"
	}
	return e
}
