package ui

import (
	"fmt"
	"html/template"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// maxText limits a message on the page. The stored ones are shorter.
const maxText = 16 << 10

// funcs are what the templates may call.
func funcs() template.FuncMap {
	return template.FuncMap{
		"when":  when,
		"text":  func(s string) string { return text.Clip(text.Clean(s), maxText) },
		"line":  func(s string) string { return text.Clip(text.Line(s), maxText) },
		"first": func(s string) string { line, _, _ := strings.Cut(s, "\n"); return line },
		"rest":  func(s string) string { _, more, _ := strings.Cut(s, "\n"); return more },
		"rev":   api.ShortRevision,
		"tone":  tone,
		"phase": phaseText,
		"ready": func(p *carav1.Project) string {
			return fmt.Sprintf("%d/%d", api.ReadyServices(p), len(p.GetSpec().GetServices()))
		},
		"reason":     func(p *carav1.Project) string { r, _ := api.Telling(p); return r },
		"message":    func(p *carav1.Project) string { _, m := api.Telling(p); return m },
		"expiry":     api.Expiry,
		"owner":      func(p *carav1.Project) string { return p.GetMetadata().GetOwner() },
		"source":     func(owner string) string { s, _ := api.SourceOf(owner); return s },
		"status":     conditionTone,
		"count":      text.Count,
		"link":       link,
		"service":    serviceTone,
		"place":      api.Place,
		"took":       took,
		"sourceTone": func(s *carav1.Source) string { tone, _ := sourceState(s); return tone },
		"sourceText": sourceText,
		"nodeTone":   nodeTone,
		"nodeText":   nodeText,
		"volumeTone": volumeTone,
		"serverName": serverName,
		"problem":    api.SourceProblem,
		"claim":      claimTone,
		"host":       hostURL,
		"ref":        api.RefText,
		"bytes":      bytesText,
		"diff":       func(d []*carav1.FieldDiff, now, then string) fieldDiffs { return fieldDiffs{d, now, then} },
		"stepReason": (*carav1.PlanStep).GetReason,
		"high":       func(all int64) int64 { return all * 85 / 100 },
		"int":        func(n int32) int { return int(n) },
	}
}

// fieldDiffs is a table of fields that differ, with the headings of both sides.
type fieldDiffs struct {
	Diff      []*carav1.FieldDiff
	Now, Then string
}

// when shows a time. The script replaces its text by the time from now; the exact one is the title.
func when(at *timestamppb.Timestamp) template.HTML {
	if at == nil || at.AsTime().IsZero() {
		return `<span class="dim">never</span>`
	}
	exact := at.AsTime().UTC()
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s">%s</time>`, //nolint:gosec // digits and letters only
		exact.Format(time.RFC3339), exact.Format("2006-01-02 15:04:05 UTC"), exact.Format("2006-01-02 15:04")))
}

// minuteOf formats a time to the minute, for a sentence.
func minuteOf(at *timestamppb.Timestamp) string {
	return at.AsTime().UTC().Format("2006-01-02 15:04 UTC")
}

// trusted marks what the templates have already escaped.
func trusted(html []byte) template.HTML { return template.HTML(html) } //nolint:gosec // it comes from render

// Tones are the colours of states, as classes of the style sheet.
const (
	good = "good"
	warn = "warn"
	bad  = "bad"
	dim  = "dim"
)

func tone(p *carav1.Project) string {
	if p.GetStatus().GetLastSeen() != nil {
		return bad
	}
	switch p.GetStatus().GetPhase() {
	case api.PhaseRunning:
		if !api.Healthy(p) {
			return warn
		}
		return good
	case api.PhaseFailed:
		return bad
	case api.PhasePending, api.PhaseScheduled:
		return warn
	}
	return dim
}

func phaseText(p *carav1.Project) string {
	switch {
	case p.GetStatus().GetLastSeen() != nil:
		return api.StatusUnknown
	case p.GetStatus().GetPhase() == api.PhaseRunning && !api.Healthy(p):
		return "Running, not ready"
	}
	return p.GetStatus().GetPhase()
}

// conditionTone returns the tone of a condition. Some conditions are bad news when they are True.
func conditionTone(c *carav1.Condition) string {
	switch c.GetType() {
	case api.CondFetchFailed, api.CondInvalidManifests, api.CondPruneBlocked, api.CondStalled, api.CondConflict, api.CondDiskPressure,
		api.CondMemoryPressure, api.CondBackupStale, api.CondBackupBlocked:
		if c.GetStatus() == api.StatusTrue {
			return bad
		}
		return dim
	case api.CondOverridden, api.CondExpiring, api.CondMoving, api.CondRestoring, api.CondSuspended, api.CondWatchDegraded,
		api.CondSecretChanged, api.CondUnmountedVolume:
		if c.GetStatus() == api.StatusTrue {
			return warn
		}
		return dim
	}
	switch c.GetStatus() {
	case api.StatusTrue:
		return good
	case api.StatusFalse:
		return bad
	}
	return warn
}

func serviceTone(s *carav1.ServiceStatus) string {
	switch {
	case api.ServiceReady(s):
		return good
	case s.GetState() == api.ServiceFailed:
		return bad
	}
	return warn
}

func sourceState(s *carav1.Source) (tone, text string) {
	switch problem := api.SourceProblem(s); {
	case s.GetMetadata().GetDeletionTimestamp() != nil:
		return dim, "being deleted"
	case s.GetSpec().GetSuspend():
		return warn, "suspended"
	case problem != nil:
		return bad, problem.GetType()
	case api.IsTrue(s.GetStatus().GetConditions(), api.CondReady):
		return good, "up to date"
	}
	return warn, "not read yet"
}

func sourceText(s *carav1.Source) string { _, text := sourceState(s); return text }

func nodeTone(n *carav1.Node) string {
	switch {
	case n.GetStatus().GetState() == api.NodeNotReady:
		return bad
	case n.GetStatus().GetState() != api.NodeReady, n.GetSpec().GetUnschedulable():
		return warn
	}
	return good
}

func nodeText(n *carav1.Node) string {
	switch state := n.GetStatus().GetState(); {
	case state == api.NodeDraining && api.IsTrue(n.GetStatus().GetConditions(), api.CondDrained):
		return "drained"
	case state == api.NodeReady && n.GetSpec().GetUnschedulable():
		return state + ", cordoned"
	case state == "":
		return "never connected"
	default:
		return state
	}
}

func volumeTone(v *carav1.Volume) string {
	switch v.GetStatus().GetState() {
	case api.VolumeInUse:
		return good
	case api.VolumeLost:
		return bad
	}
	return warn
}

func claimTone(c *carav1.Claim) string {
	switch {
	case !c.GetSpec().GetPresent(), c.GetStatus().GetState() == "":
		return dim
	case c.GetStatus().GetState() == api.ClaimApplied:
		return good
	case c.GetStatus().GetState() == api.ClaimOverridden:
		return warn
	}
	return bad
}

func bytesText(n int64) string {
	value, prefix := text.Scale(float64(n))
	if value >= 100 || prefix == "" {
		return fmt.Sprintf("%.0f %sB", value, prefix)
	}
	return fmt.Sprintf("%.1f %sB", value, prefix)
}

// link returns the address of an object's view, or "" for a kind without one.
func link(kind, name string) string {
	at := map[string]string{api.KindProject: "projects/", api.KindNode: "nodes/", api.KindSource: "sources/"}[kind]
	switch {
	case at != "":
		return Prefix + at + url.PathEscape(name)
	case kind == api.KindVolume:
		return Prefix + "volumes"
	case kind == api.KindSecret:
		return Prefix + "secrets"
	}
	return ""
}

func took(from, to *timestamppb.Timestamp) string {
	if from == nil || to == nil {
		return ""
	}
	return to.AsTime().Sub(from.AsTime()).Round(time.Millisecond).String()
}

func cpuText(milli int64) string {
	return strings.TrimSuffix(strings.TrimSuffix(fmt.Sprintf("%.1f", float64(milli)/1000), "0"), ".") + " CPU"
}
