package ui

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// origin is where a project comes from: its source, what the source declares, and what the server would do about the difference.
// All fields are nil for a project that no source owns.
type origin struct {
	Source *carav1.Source
	Claim  *carav1.Claim
	Plan   *carav1.SourcePlan
	Step   *carav1.PlanStep // nil if the project is as git declares it
}

// Text says what the step does, or why it does nothing.
func (o origin) Text() string { return api.StepText(o.Step, o.Plan) }

// originOf asks the server's own plan for one project.
func (vs views) originOf(ctx context.Context, p *carav1.Project) (o origin, err error) {
	name, ok := api.SourceOf(p.GetMetadata().GetOwner())
	if !ok {
		return o, nil
	}
	if o.Source, err = vs.api.sources.GetSource(ctx, &carav1.GetRequest{Name: name}); err != nil {
		if api.IsNotFound(err) { // it is being removed, and its projects lose their owner
			err = nil
		}
		return origin{}, err
	}
	project := p.GetMetadata().GetName()
	claims, err := vs.api.sources.ListClaims(ctx, &carav1.ListClaimsRequest{Source: name, Project: project})
	if err != nil {
		return o, err
	}
	if len(claims.GetItems()) > 0 {
		o.Claim = claims.GetItems()[0]
	}
	if o.Plan, err = vs.api.sources.PlanSource(ctx, &carav1.PlanSourceRequest{Name: name, Project: project}); err != nil {
		return o, err
	}
	for _, s := range o.Plan.GetSteps() {
		if s.GetDiffers() || s.GetReason() == api.ClaimHeld {
			o.Step = s
		}
	}
	return o, nil
}

// stop is one station on the way of a project from a commit to its containers.
type stop struct {
	Name, Title, Link string
	Tone              string
	State             string // says in one or two words what the colour says
	Why               string
	Stuck             bool // the place to look at
}

// pathOf returns the stations from the commit to the containers, and marks the first that is wrong, or else the first that waits.
func pathOf(p *carav1.Project, o origin, n *carav1.Node) []stop {
	var stops []stop
	if o.Source != nil {
		stops = append(stops, commitStop(o), claimStop(o))
	}
	stops = append(stops, projectStop(p), nodeStop(p, n), containersStop(p))
	for i := range stops {
		s := &stops[i]
		s.State = cmp.Or(s.State, map[string]string{good: "done", warn: "waits here", bad: "stuck here", dim: "not yet"}[s.Tone])
	}
	for _, tone := range []string{bad, warn} { // a failure matters more than what waits before it
		if i := slices.IndexFunc(stops, func(s stop) bool { return s.Tone == tone }); i >= 0 {
			stops[i].Stuck = true
			break
		}
	}
	return stops
}

func commitStop(o origin) stop {
	snapshot, name := o.Source.GetStatus().GetSnapshot(), o.Source.GetMetadata().GetName()
	s := stop{Name: "Commit", Title: api.ShortRevision(snapshot.GetRevision()) + " " + snapshot.GetSubject(), Link: link(api.KindSource, name), Tone: good}
	switch c := api.FindCondition(o.Source.GetStatus().GetConditions(), api.CondFetchFailed); {
	case o.Source.GetMetadata().GetDeletionTimestamp() != nil:
		s.Tone, s.Why = warn, "source "+name+" is being deleted"
	case o.Source.GetSpec().GetSuspend():
		s.Tone, s.Why = warn, "source "+name+" is suspended: newer commits are not read"
	case c.GetStatus() == api.StatusTrue:
		s.Tone, s.Why = bad, "source "+name+" cannot be read: "+c.GetMessage()
	case snapshot == nil:
		s.Tone, s.Title, s.Why = warn, "none yet", "source "+name+" has not been read yet"
	}
	return s
}

func claimStop(o origin) stop {
	spec, status := o.Claim.GetSpec(), o.Claim.GetStatus()
	s := stop{Name: "Claim", Title: api.Place(spec.GetFile(), spec.GetLine(), 0), Link: link(api.KindSource, o.Source.GetMetadata().GetName()), Tone: good}
	switch {
	case o.Claim == nil || !spec.GetPresent():
		s.Tone, s.Title, s.Why = warn, "no manifest", "no manifest of the source declares this project any more"
		if o.Step != nil {
			s.Why = "the project " + o.Text()
		}
	case spec.GetHeld() != "":
		s.Tone, s.Why = bad, spec.GetHeld()
	case o.Step != nil && o.Step.GetReason() == api.ClaimOverridden:
		s.Tone, s.State, s.Why = warn, "overridden", "a person overrides git; below is what git would change"
	case o.Step != nil:
		s.Tone, s.Why = claimTone(o.Claim), "the project "+o.Text()
		if s.Tone != bad {
			s.Tone = warn
		}
	case status.GetState() != api.ClaimApplied && status.GetState() != "":
		s.Tone, s.Why = claimTone(o.Claim), status.GetMessage()
	}
	return s
}

func projectStop(p *carav1.Project) stop {
	meta, st := p.GetMetadata(), p.GetStatus()
	s := stop{Name: "Project", Title: fmt.Sprintf("generation %d", meta.GetGeneration()), Tone: good}
	switch {
	case api.GoingAway(p):
		_, s.Why = api.Telling(p)
		s.Tone, s.State, s.Why = warn, "being deleted", cmp.Or(s.Why, "it is being deleted")
	case st.GetObservedGeneration() < meta.GetGeneration() && st.GetPhase() != api.PhasePending:
		s.Tone, s.Why = warn, fmt.Sprintf("its node has not finished generation %d yet: what runs is generation %d", meta.GetGeneration(), st.GetObservedGeneration())
	}
	return s
}

func nodeStop(p *carav1.Project, n *carav1.Node) stop {
	st := p.GetStatus()
	s := stop{Name: "Node", Title: st.GetNodeRef(), Link: link(api.KindNode, st.GetNodeRef()), Tone: good}
	scheduled := api.FindCondition(st.GetConditions(), api.CondScheduled)
	switch {
	case st.GetNodeRef() == "" && api.GoingAway(p):
		s.Tone, s.Title, s.Link = dim, "none", ""
	case st.GetNodeRef() == "":
		s.Tone, s.Title, s.Link, s.Why = warn, "none yet", "", cmp.Or(scheduled.GetMessage(), "no node has been chosen yet")
		if scheduled.GetStatus() == api.StatusFalse {
			s.Tone = bad
		}
	case st.GetLastSeen() != nil || n != nil && n.GetStatus().GetState() == api.NodeNotReady:
		s.Tone, s.Why = bad, "node "+st.GetNodeRef()+" is not connected: what runs there is not known"
	case st.GetMove() != nil:
		s.Tone, s.State, s.Why = warn, "moving", cmp.Or(api.FindCondition(st.GetConditions(), api.CondMoving).GetMessage(), "the project moves to another node")
	}
	return s
}

func containersStop(p *carav1.Project) stop {
	st := p.GetStatus()
	s := stop{Name: "Containers", Title: fmt.Sprintf("%d of %d ready", api.ReadyServices(p), len(p.GetSpec().GetServices())), Tone: tone(p)}
	reason, message := api.Telling(p)
	switch {
	case st.GetNodeRef() == "", api.GoingAway(p):
		s.Tone = dim
	case s.Tone != good, api.UpdateFailed(p):
		s.Why = cmp.Or(message, reason)
		if s.Tone == good {
			s.Tone = warn
		}
	}
	return s
}
