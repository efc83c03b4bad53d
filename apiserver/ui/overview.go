package ui

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	maxProblems = 100
	maxProgress = 50
	maxChanges  = 30
)

// matter is a line of the overview: an object, and what is wrong with it or in progress.
type matter struct {
	Kind, Name      string
	Tone            string
	Reason, Message string
	Since           *timestamppb.Timestamp
}

// overview answers three questions: what is wrong now and why, what is in progress, what was changed last.
type overview struct {
	Problems, Progress         []matter
	MoreProblems, MoreProgress int
	Changes                    []*carav1.Event
	Projects, Running          int
	Nodes, Ready               int
	Sources                    int
}

func (vs views) overview(ctx context.Context, _ request) (view, error) {
	var err error
	projects := get(ctx, &err, vs.api.projects.ListProjects, &carav1.ListProjectsRequest{})
	nodes := get(ctx, &err, vs.api.nodes.ListNodes, &carav1.ListRequest{})
	sources := get(ctx, &err, vs.api.sources.ListSources, &carav1.ListRequest{})
	volumes := get(ctx, &err, vs.api.volumes.ListVolumes, &carav1.ListVolumesRequest{})
	events := get(ctx, &err, vs.api.events.ListEvents, &carav1.ListEventsRequest{NewestFirst: true, Limit: maxChanges})
	if err != nil {
		return view{}, err
	}
	o := overviewOf(projects.GetItems(), nodes.GetItems(), sources.GetItems(), volumes.GetItems())
	o.Changes = events.GetItems()
	return view{
		title: "Overview", nav: "overview", template: "overview", data: o,
		kinds: []string{api.KindProject, api.KindNode, api.KindSource, api.KindVolume, api.KindEvent},
	}, nil
}

// overviewOf sorts out the objects that need somebody's attention. The newest problem comes first.
func overviewOf(projects []*carav1.Project, nodes []*carav1.Node, sources []*carav1.Source, volumes []*carav1.Volume) overview {
	o := overview{Projects: len(projects), Nodes: len(nodes), Sources: len(sources)}
	for _, p := range projects {
		o.addProject(p)
	}
	for _, n := range nodes {
		o.addNode(n)
	}
	for _, s := range sources {
		if c := api.SourceProblem(s); c != nil {
			o.addProblem(api.KindSource, s.GetMetadata().GetName(), bad, c.GetType(), c)
		}
	}
	for _, v := range volumes {
		if st := v.GetStatus(); st.GetState() == api.VolumeLost {
			o.Problems = append(o.Problems, matter{api.KindVolume, v.GetMetadata().GetName(), bad, st.GetState(), st.GetMessage(), st.GetSince()})
		}
	}
	o.Problems, o.MoreProblems = newest(o.Problems, maxProblems)
	o.Progress, o.MoreProgress = newest(o.Progress, maxProgress)
	return o
}

// addProject counts a project, and adds what is wrong with it or what it is waiting for. Most projects of a large cluster run
// well, so it looks for reasons only if there is something to say.
func (o *overview) addProject(p *carav1.Project) {
	st, name, tone := p.GetStatus(), p.GetMetadata().GetName(), tone(p)
	switch {
	case st.GetLastSeen() != nil:
		o.Problems = append(o.Problems, matter{api.KindProject, name, tone, api.StatusUnknown, "its node " + st.GetNodeRef() + " is not connected", st.GetLastSeen()})
	case st.GetPhase() == api.PhaseFailed, api.UpdateFailed(p), st.GetPhase() == api.PhaseRunning && tone == warn:
		reason, message := api.Telling(p)
		o.Problems = append(o.Problems, matter{api.KindProject, name, tone, reason, message, since(p)})
	case st.GetMove() != nil, st.GetPhase() != api.PhaseRunning:
		reason, message := api.Telling(p)
		o.Progress = append(o.Progress, matter{api.KindProject, name, tone, cmp.Or(reason, st.GetPhase()), message, since(p)})
	}
	if tone == good {
		o.Running++
	}
	for _, c := range st.GetConditions() {
		switch c.GetType() {
		case api.CondBackupStale, api.CondBackupBlocked:
			if c.GetStatus() == api.StatusTrue {
				o.addProblem(api.KindProject, name, warn, c.GetType(), c)
			}
		case api.CondCertificateReady, api.CondPortsReady, api.CondIngressReady:
			if c.GetStatus() == api.StatusFalse {
				o.addProblem(api.KindProject, name, warn, c.GetType(), c)
			}
		}
	}
}

// addNode counts a node, and adds what is wrong with it.
func (o *overview) addNode(n *carav1.Node) {
	if n.GetStatus().GetState() == api.NodeReady {
		o.Ready++
	}
	for _, c := range n.GetStatus().GetConditions() {
		if api.NodeTroubled(c) {
			o.addProblem(api.KindNode, n.GetMetadata().GetName(), bad, c.GetReason(), c)
		}
	}
}

// addProblem adds a problem that a condition describes.
func (o *overview) addProblem(kind, name, tone, reason string, c *carav1.Condition) {
	o.Problems = append(o.Problems, matter{kind, name, tone, reason, c.GetMessage(), c.GetLastTransitionTime()})
}

// since returns when a project got into its state, as far as its conditions say.
func since(p *carav1.Project) *timestamppb.Timestamp {
	types := []string{api.CondReady, api.CondPhase}
	if p.GetStatus().GetPhase() == api.PhasePending {
		types = []string{api.CondScheduled, api.CondPhase}
	}
	for _, typ := range types {
		if c := api.FindCondition(p.GetStatus().GetConditions(), typ); c.GetLastTransitionTime() != nil {
			return c.GetLastTransitionTime()
		}
	}
	return p.GetMetadata().GetCreationTimestamp()
}

// newest sorts by time and keeps the newest.
func newest(all []matter, most int) (kept []matter, left int) {
	slices.SortFunc(all, func(a, b matter) int {
		return cmp.Or(-timeOf(a.Since).Compare(timeOf(b.Since)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Reason, b.Reason))
	})
	kept = all[:min(len(all), most)]
	return kept, len(all) - len(kept)
}

func timeOf(at *timestamppb.Timestamp) time.Time {
	if at == nil {
		return time.Time{}
	}
	return at.AsTime()
}
