package kind

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Project is the kind Project.
func Project() Kind {
	return Kind{
		Name: api.KindProject, Plural: "projects", aliases: []string{"proj", "p"},
		Columns: []string{"NAME", "PHASE", "READY", "NODE", "CONDITIONS", "SOURCE", "EXPIRES", "AGE"},
		wide:    []string{"GENERATION", "EPOCH", "REVISION", "HOSTS", "MESSAGE"},
		Row:     projectRow, Describe: describeProject,
		List: lister(carav1.NewProjectServiceClient, carav1.ProjectServiceClient.ListProjects, func(f Filter) *carav1.ListProjectsRequest {
			return &carav1.ListProjectsRequest{Phase: f.Phases, NodeRef: f.Node, Owner: f.Owner, LabelSelector: f.Selector}
		}),
		Get: getter(carav1.NewProjectServiceClient, carav1.ProjectServiceClient.GetProject),
		Watch: func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) (func() (Change, error), error) {
			return receiver(carav1.NewProjectServiceClient(conn).WatchProjects(ctx, &carav1.WatchProjectsRequest{
				Name: f.Name, Phase: f.Phases, NodeRef: f.Node, Owner: f.Owner, LabelSelector: f.Selector,
			}))
		},
	}
}

func describeProject(ctx context.Context, p Page, m proto.Message) error {
	obj := m.(*carav1.Project)
	meta, st := obj.GetMetadata(), obj.GetStatus()
	p.meta(meta)
	p.Field("Phase", PhaseCell(obj, p.Now).Text)
	p.Field("Node", st.GetNodeRef())
	switch m := st.GetMove(); {
	case m.GetRestore() != nil:
		p.Field("Restore", restoreField(m, p.Now))
	case m != nil:
		p.Field("Move", fmt.Sprintf("from %s to %s, %s, since %s by %s", term.Dash(m.GetFrom()), m.GetTo(), m.GetStep(), term.Since(p.Now, m.GetStarted()).Text, m.GetActor()))
	}
	p.Field("Backup", backupField(obj, p.Now))
	p.Field("Generation", fmt.Sprintf("%d (observed %d), epoch %d", meta.GetGeneration(), st.GetObservedGeneration(), st.GetEpoch()))
	p.Field("Expires", deadline(p.Now, api.Expiry(obj)))
	p.Field("Hosts", strings.Join(st.GetHosts(), ", "))
	byName := map[string]*carav1.ServiceStatus{}
	for _, s := range st.GetServices() {
		byName[s.Name] = s
	}
	head := []string{"NAME", "STATE", "HEALTH", "RESTARTS", "IMAGE", "CONTAINER", "MESSAGE"}
	table(p, "Services", head, obj.GetSpec().GetServices(), func(want *carav1.Service) []term.Cell {
		s := byName[want.Name]
		return []term.Cell{
			term.Text(want.Name), term.Text(s.GetState()), term.Text(s.GetHealth()), term.Count(s.GetRestarts()),
			term.Text(want.Image), term.Text(term.Short(s.GetContainerId(), 13)), term.Text(term.Short(term.Line(s.GetMessage()), 100)),
		}
	})
	p.ingress(obj)
	p.ports(obj.GetSpec().GetPorts())
	if err := p.projectVolumes(ctx, obj); err != nil {
		return err
	}
	p.conditions(st.GetConditions())
	return describeOverride(ctx, p, obj)
}

// deadline formats a time as a duration from now and as a timestamp; empty for nil.
func deadline(now time.Time, at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	return term.Until(now, at).Text + " (" + at.AsTime().UTC().Format(time.RFC3339) + ")"
}

func projectRow(m proto.Message, now time.Time) []term.Cell {
	p := m.(*carav1.Project)
	st := p.GetStatus()
	reason, message := api.Telling(p)
	return []term.Cell{
		term.Text(p.GetMetadata().GetName()),
		PhaseCell(p, now),
		term.Text(ReadyText(p)),
		term.Text(st.GetNodeRef()),
		term.Text(reason),
		term.Text(owner(p)),
		term.Until(now, api.Expiry(p)),
		term.Since(now, p.GetMetadata().GetCreationTimestamp()),
		term.Count(p.GetMetadata().GetGeneration()),
		term.Count(st.GetEpoch()),
		term.Text(api.ShortRevision(p.GetMetadata().GetOrigin().GetRevision())),
		term.Text(strings.Join(st.GetHosts(), ",")),
		term.Text(term.Short(term.Line(message), 120)),
	}
}

// PhaseCell returns the phase. If the node is not connected, it returns when the project was last seen.
func PhaseCell(p *carav1.Project, now time.Time) term.Cell {
	phase := p.GetStatus().GetPhase()
	if seen := p.GetStatus().GetLastSeen(); seen != nil {
		return term.Cell{Text: "Unknown (last seen " + term.Age(now.Sub(seen.AsTime())) + " ago)", Colour: term.Red}
	}
	c := term.Text(phase)
	switch phase {
	case api.PhaseRunning:
		c.Colour = term.Green
		if !api.Healthy(p) {
			c.Colour = term.Yellow
		}
	case api.PhaseFailed:
		c.Colour = term.Red
	case api.PhasePending, api.PhaseScheduled:
		c.Colour = term.Yellow
	default:
		c.Colour = term.Faint
	}
	return c
}

// ReadyText returns how many of a project's services are ready: `1/2`.
func ReadyText(p *carav1.Project) string {
	return fmt.Sprintf("%d/%d", api.ReadyServices(p), len(p.GetSpec().GetServices()))
}

func owner(p *carav1.Project) string {
	return strings.TrimPrefix(p.GetMetadata().GetOwner(), api.PrefixSource)
}

// UpdateFailed reports whether the update to the newest generation failed and the previous version still runs.
func UpdateFailed(p *carav1.Project) bool {
	c := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady)
	return c.GetStatus() == api.StatusFalse && c.GetReason() == api.ReasonUpdateFailed && c.GetObservedGeneration() >= p.GetMetadata().GetGeneration()
}

// Tombstone is the kind Tombstone: deleted projects, and why they were deleted.
func Tombstone() Kind {
	return Kind{
		Name: api.KindTombstone, Plural: "tombstones",
		Columns: []string{"PROJECT", "REASON", "ACTOR", "OWNER", "WHEN"},
		Row: func(m proto.Message, now time.Time) []term.Cell {
			t := m.(*carav1.Tombstone)
			return []term.Cell{term.Text(t.GetMetadata().GetName()), term.Text(t.Reason), term.Text(t.Actor), term.Text(t.Owner), term.Ago(now, t.Time)}
		},
		List: lister(carav1.NewProjectServiceClient, carav1.ProjectServiceClient.ListTombstones, byLabel),
	}
}
