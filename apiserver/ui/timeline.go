package ui

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// maxMoments limits a time line.
const maxMoments = 100

// together is how far apart the times of records of the same thing may be.
const together = 2 * time.Second

// moment is one entry of a project's time line.
type moment struct {
	At      *timestamppb.Timestamp
	Tone    string
	Title   string // a reason, or what happened
	Message string
	Actor   string
	Commit  string
	Subject string // of the commit
	// Count is how often it happened since First. 1 is once.
	Count int32
	First *timestamppb.Timestamp
}

// timeline makes one list of what is known of a project's past, the newest first: its events, which have each change of the phase
// and each override, the specs that it got, and when its conditions changed. What two of them record is there once.
func timeline(p *carav1.Project, events []*carav1.Event, history []*carav1.Revision, o *carav1.Override) []moment {
	var out []moment
	for _, e := range events {
		m := moment{
			At: e.GetLastTime(), Tone: good, Title: e.GetReason(), Message: e.GetMessage(), Actor: e.GetActor(), Count: max(e.GetCount(), 1), First: e.GetFirstTime(),
		}
		if e.GetType() == string(api.EventWarning) {
			m.Tone = bad
		}
		out = append(out, m)
	}
	for _, r := range history {
		out = addRollout(out, r)
	}
	for _, c := range p.GetStatus().GetConditions() {
		m := moment{At: c.GetLastTransitionTime(), Tone: conditionTone(c), Title: c.GetType() + " is " + c.GetStatus(), Message: c.GetMessage(), Count: 1}
		if c.GetType() != api.CondPhase && m.At != nil && !recorded(out, c.GetReason(), m.At) {
			out = append(out, m)
		}
	}
	if o != nil && o.GetSince() != nil && !recorded(out, api.ReasonOverridden, o.GetSince()) {
		out = append(out, moment{At: o.GetSince(), Tone: warn, Title: api.ReasonOverridden, Message: o.GetReason(), Actor: o.GetActor(), Count: 1})
	}
	slices.SortStableFunc(out, func(a, b moment) int { return b.At.AsTime().Compare(a.At.AsTime()) })
	out = collapse(out)
	return out[:min(len(out), maxMoments)]
}

// addRollout adds a spec that the project got. If an event says that the spec changed, it becomes that event's moment.
func addRollout(all []moment, r *carav1.Revision) []moment {
	if r.GetTime() == nil {
		return all
	}
	m := moment{
		At: r.GetTime(), Tone: dim, Title: fmt.Sprintf("Generation %d", r.GetGeneration()), Message: r.GetReason(), Actor: r.GetActor(),
		Commit: r.GetOrigin().GetRevision(), Subject: r.GetOrigin().GetSubject(), Count: 1,
	}
	i := slices.IndexFunc(all, func(e moment) bool {
		changed := e.Title == api.ReasonCreated || e.Title == api.ReasonSpecChanged
		return changed && e.Count == 1 && near(e.At, m.At)
	})
	if i < 0 {
		return append(all, m)
	}
	all[i].Title, all[i].Tone, all[i].Commit, all[i].Subject = m.Title, m.Tone, m.Commit, m.Subject
	return all
}

// recorded reports whether a moment with a reason is at that time.
func recorded(all []moment, reason string, at *timestamppb.Timestamp) bool {
	return slices.ContainsFunc(all, func(m moment) bool {
		return m.Title == reason && (near(m.At, at) || m.First != nil && near(m.First, at))
	})
}

func near(a, b *timestamppb.Timestamp) bool { return a.AsTime().Sub(b.AsTime()).Abs() < together }

// collapse joins equal moments that follow each other.
func collapse(all []moment) (out []moment) {
	for _, m := range all {
		if n := len(out); n > 0 && out[n-1].Title == m.Title && out[n-1].Message == m.Message && out[n-1].Actor == m.Actor && out[n-1].Commit == m.Commit {
			last := &out[n-1]
			last.Count += m.Count
			if last.First = m.First; last.First == nil {
				last.First = m.At
			}
			continue
		}
		out = append(out, m)
	}
	return out
}

// band is a drawing of the moments: over the last hour if something happened in it, else over the last day.
type band struct {
	Span, Label string
	Tone        string // of the current phase
	Since       string // where the current phase begins, of bandWidth
	Length      string
	Marks       []mark
}

// mark is a moment of a band.
type mark struct{ X, Tone string }

const bandWidth = 1000

// bandOf draws a band, or returns nil if nothing happened in the last day. When a phase before the current one began is not
// stored; the marks show when something changed.
func bandOf(p *carav1.Project, all []moment, now time.Time) *band {
	now = now.Truncate(time.Minute).Add(time.Minute) // or each rendering would differ from the one before
	span, name := time.Hour+time.Minute, "hour"
	within := func(at time.Time) bool { return now.Sub(at) <= span }
	if !slices.ContainsFunc(all, func(m moment) bool { return within(m.At.AsTime()) }) {
		span, name = 24*time.Hour+time.Minute, "day"
	}
	x := func(at time.Time) float64 { return bandWidth * min(max(1-now.Sub(at).Seconds()/span.Seconds(), 0), 1) }
	b := &band{Span: name, Tone: tone(p), Since: fmt.Sprint(bandWidth), Length: "0"}
	for _, m := range all {
		if within(m.At.AsTime()) {
			b.Marks = append(b.Marks, mark{fmt.Sprintf("%.1f", x(m.At.AsTime())), m.Tone})
		}
	}
	if len(b.Marks) == 0 {
		return nil
	}
	b.Label = fmt.Sprintf("What happened in the last %s: %s. The project is %s", name, text.Count(len(b.Marks), "event"), phaseText(p))
	if c := api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase); c.GetLastTransitionTime() != nil {
		from := x(c.GetLastTransitionTime().AsTime())
		b.Since, b.Length = fmt.Sprintf("%.1f", from), fmt.Sprintf("%.1f", bandWidth-from)
		b.Label += " since " + minuteOf(c.GetLastTransitionTime())
	}
	return b
}
