package ui

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// minute returns a time so many minutes after an hour.
func minute(n float64) *timestamppb.Timestamp {
	return timestamppb.New(time.Unix(1_800_000_000, 0).Add(time.Duration(n * float64(time.Minute))))
}

func happened(at float64, reason, message string) *carav1.Event {
	return &carav1.Event{Type: string(api.EventNormal), Reason: reason, Message: message, Actor: "node/n1", Count: 1, FirstTime: minute(at), LastTime: minute(at)}
}

func again(first float64, count int32, e *carav1.Event) *carav1.Event {
	e.FirstTime, e.Count = minute(first), count
	return e
}

func warning(e *carav1.Event) *carav1.Event {
	e.Type = string(api.EventWarning)
	return e
}

// told writes moments as text.
func told(all []moment) (out []string) {
	for _, m := range all {
		line := fmt.Sprintf("%g %s %s: %s", m.At.AsTime().Sub(minute(0).AsTime()).Minutes(), m.Tone, m.Title, m.Message)
		if m.Count > 1 {
			line += fmt.Sprintf(" x%d since %g", m.Count, m.First.AsTime().Sub(minute(0).AsTime()).Minutes())
		}
		if m.Commit != "" {
			line += " " + m.Commit
		}
		out = append(out, line)
	}
	return out
}

func TestTimeline(t *testing.T) {
	condition := func(typ, status, reason string, at float64) *carav1.Condition {
		return &carav1.Condition{Type: typ, Status: status, Reason: reason, Message: "m", LastTransitionTime: minute(at)}
	}
	rollout := func(generation int32, at float64, commit string) *carav1.Revision {
		return &carav1.Revision{Generation: generation, Time: minute(at), Reason: "why", Origin: &carav1.Origin{Revision: commit}}
	}
	for name, c := range map[string]struct {
		events     []*carav1.Event
		history    []*carav1.Revision
		conditions []*carav1.Condition
		override   *carav1.Override
		want       []string
	}{
		"nothing": {},
		"the newest first": {
			events: []*carav1.Event{happened(3, "Scheduled", "on n1"), warning(happened(9, "CrashLoop", "exited")), happened(5, "ServicesUp", "all up")},
			want:   []string{"9 bad CrashLoop: exited", "5 good ServicesUp: all up", "3 good Scheduled: on n1"},
		},
		"a repeat": {events: []*carav1.Event{again(2, 5, happened(9, "CrashLoop", "exited"))}, want: []string{"9 good CrashLoop: exited x5 since 2"}},
		"repeats that follow each other": {
			events: []*carav1.Event{happened(9, "Retry", "m"), happened(8, "Retry", "m"), again(2, 3, happened(6, "Retry", "m")), happened(1, "Retry", "other")},
			want:   []string{"9 good Retry: m x5 since 2", "1 good Retry: other"},
		},
		"repeats with something in between": {
			events: []*carav1.Event{happened(9, "Retry", "m"), happened(8, "Exited", "m"), happened(7, "Retry", "m")},
			want:   []string{"9 good Retry: m", "8 good Exited: m", "7 good Retry: m"},
		},
		"a rollout has the event's text and the commit": {
			events:  []*carav1.Event{happened(3, api.ReasonSpecChanged, "image: a -> b"), happened(1, api.ReasonCreated, "created")},
			history: []*carav1.Revision{rollout(2, 3.01, "c2"), rollout(1, 1, "c1")},
			want:    []string{"3 dim Generation 2: image: a -> b c2", "1 dim Generation 1: created c1"},
		},
		"a rollout whose event is gone": {
			events:  []*carav1.Event{happened(5, api.ReasonSpecChanged, "later")},
			history: []*carav1.Revision{rollout(2, 3, "c2"), {Generation: 1}},
			want:    []string{"5 good SpecChanged: later", "3 dim Generation 2: why c2"},
		},
		"a condition without an event": {
			events: []*carav1.Event{happened(5, "ServicesUp", "all up")},
			conditions: []*carav1.Condition{
				condition(api.CondPhase, api.StatusTrue, "ServicesUp", 5), condition(api.CondReady, api.StatusTrue, "ServicesUp", 5.01),
				condition(api.CondSecretChanged, api.StatusTrue, "Changed", 7),
				{Type: api.CondScheduled, Status: api.StatusTrue},
			},
			want: []string{"7 warn SecretChanged is True: m", "5 good ServicesUp: all up"},
		},
		"an override whose event is gone": {
			override: &carav1.Override{Since: minute(4), Actor: "user/ada", Reason: "a test"},
			want:     []string{"4 warn Overridden: a test"},
		},
		"an override with its event": {
			events:   []*carav1.Event{happened(4, api.ReasonOverridden, "by user/ada: a test")},
			override: &carav1.Override{Since: minute(4), Actor: "user/ada", Reason: "a test"},
			want:     []string{"4 good Overridden: by user/ada: a test"},
		},
	} {
		p := &carav1.Project{Status: &carav1.ProjectStatus{Conditions: c.conditions}}
		if diff := cmp.Diff(c.want, told(timeline(p, c.events, c.history, c.override))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestTimelineIsBounded(t *testing.T) {
	var events []*carav1.Event
	for i := range maxMoments + 10 {
		events = append(events, happened(float64(i), "Exited", fmt.Sprint(i)))
	}
	got := timeline(&carav1.Project{}, events, nil, nil)
	if len(got) != maxMoments || got[0].Message != fmt.Sprint(maxMoments+9) {
		t.Errorf("%d moments, the first is %q; want the newest %d", len(got), got[0].Message, maxMoments)
	}
}

// A rectangle of SVG without a colour is black, so the style sheet has one for the phases of each tone.
func TestBandHasColours(t *testing.T) {
	css, err := files.ReadFile("assets/app.css")
	if err != nil {
		t.Fatal(err)
	}
	for _, tone := range []string{good, warn, bad, dim} {
		if !strings.Contains(string(css), ".band rect."+tone+" { fill:") {
			t.Errorf("a phase of the tone %s has no colour", tone)
		}
	}
}

func TestBand(t *testing.T) {
	p := &carav1.Project{Status: &carav1.ProjectStatus{
		Phase: api.PhaseFailed, Conditions: []*carav1.Condition{{Type: api.CondPhase, LastTransitionTime: minute(-31)}},
	}}
	moments := []moment{{At: minute(-1), Tone: good}, {At: minute(-31), Tone: bad}, {At: minute(-500), Tone: dim}}
	now := minute(0).AsTime()
	b := bandOf(p, moments, now)
	if b == nil || b.Span != "hour" || len(b.Marks) != 2 || b.Tone != bad || !strings.HasPrefix(b.Since, "47") || !strings.HasPrefix(b.Label, "What happened in the last hour: 2 events. The project is Failed since ") {
		t.Errorf("of the last hour: %+v", b)
	}
	if again := bandOf(p, moments, now.Add(30*time.Second)); !cmp.Equal(b, again) {
		t.Errorf("half a minute later it differs: %+v", again)
	}
	if b := bandOf(p, moments, now.Add(5*time.Hour)); b == nil || b.Span != "day" || len(b.Marks) != 3 {
		t.Errorf("of the last day: %+v", b)
	}
	if b := bandOf(p, moments, now.Add(50*time.Hour)); b != nil {
		t.Errorf("if nothing happened: %+v", b)
	}
	if b := bandOf(p, []moment{{At: minute(5), Tone: good}}, now); b == nil || b.Marks[0].X != "1000.0" {
		t.Errorf("by a clock that is ahead: %+v", b)
	}
}
