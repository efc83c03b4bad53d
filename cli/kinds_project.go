package cli

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

func projectKind() kind {
	return kind{
		name: api.KindProject, plural: "projects", aliases: []string{"proj", "p"},
		columns: []string{"NAME", "PHASE", "READY", "NODE", "CONDITIONS", "SOURCE", "EXPIRES", "AGE"},
		wide:    []string{"GENERATION", "EPOCH", "REVISION", "HOSTS", "MESSAGE"},
		row:     projectRow,
		list: func(ctx context.Context, conn grpc.ClientConnInterface, f filter) ([]proto.Message, error) {
			l, err := carav1.NewProjectServiceClient(conn).ListProjects(ctx, &carav1.ListProjectsRequest{
				Phase: f.phases, NodeRef: f.node, Owner: f.owner, LabelSelector: f.selector,
			})
			return messages(l.GetItems(), err)
		},
		get: func(ctx context.Context, conn grpc.ClientConnInterface, name string) (proto.Message, error) {
			return message(carav1.NewProjectServiceClient(conn).GetProject(ctx, byName(name)))
		},
		watch: func(ctx context.Context, conn grpc.ClientConnInterface, f filter) (func() (watchEvent, error), error) {
			return receiver(carav1.NewProjectServiceClient(conn).WatchProjects(ctx, &carav1.WatchProjectsRequest{
				Name: f.name, Phase: f.phases, NodeRef: f.node, Owner: f.owner, LabelSelector: f.selector,
			}))
		},
	}
}

func projectRow(m proto.Message, now time.Time) []term.Cell {
	p := m.(*carav1.Project)
	st := p.GetStatus()
	reason, message := telling(p)
	return []term.Cell{
		term.Text(p.GetMetadata().GetName()),
		phaseCell(p, now),
		term.Text(readyText(p)),
		term.Text(st.GetNodeRef()),
		term.Text(reason),
		term.Text(owner(p)),
		term.Until(now, expiry(p)),
		term.Since(now, p.GetMetadata().GetCreationTimestamp()),
		term.Count(p.GetMetadata().GetGeneration()),
		term.Count(st.GetEpoch()),
		term.Text(api.ShortRevision(p.GetMetadata().GetOrigin().GetRevision())),
		term.Text(strings.Join(st.GetHosts(), ",")),
		term.Text(term.Short(term.Line(message), 120)),
	}
}

// phaseCell is the phase; where the node is silent, what was seen last and when.
func phaseCell(p *carav1.Project, now time.Time) term.Cell {
	phase := p.GetStatus().GetPhase()
	if seen := p.GetStatus().GetLastSeen(); seen != nil {
		return term.Cell{Text: "Unknown (last seen " + term.Age(now.Sub(seen.AsTime())) + " ago)", Colour: term.Red}
	}
	c := term.Text(phase)
	switch phase {
	case api.PhaseRunning:
		c.Colour = term.Green
		notReady := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady).GetStatus() == api.StatusFalse
		if notReady || readyServices(p) < len(p.GetSpec().GetServices()) {
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

func readyText(p *carav1.Project) string {
	return fmt.Sprintf("%d/%d", readyServices(p), len(p.GetSpec().GetServices()))
}

// readyServices counts the services that are as they should be.
func readyServices(p *carav1.Project) (ready int) {
	for _, s := range p.GetStatus().GetServices() {
		if serviceReady(s) {
			ready++
		}
	}
	return ready
}

func serviceReady(s *carav1.ServiceStatus) bool {
	return s.GetState() == api.ServiceCompleted || s.GetState() == api.ServiceRunning && (s.GetHealth() == "" || s.GetHealth() == api.HealthHealthy)
}

// telling is the condition that explains most where a project is.
func telling(p *carav1.Project) (reason, message string) {
	st := p.GetStatus()
	order := map[string][]string{
		api.PhasePending:     {api.CondScheduled, api.CondPhase},
		api.PhaseScheduled:   {api.CondImagesReady, api.CondReady, api.CondPhase},
		api.PhaseRunning:     {api.CondReady},
		api.PhaseFailed:      {api.CondPhase, api.CondReady},
		api.PhaseTerminating: {api.CondPhase},
	}[st.GetPhase()]
	if updateFailed(p) {
		order = []string{api.CondReady}
	}
	for _, typ := range order {
		if c := api.FindCondition(st.GetConditions(), typ); c != nil && (c.Status != api.StatusTrue || typ == api.CondPhase) {
			reason, message = c.Reason, c.Message
			break
		}
	}
	for _, typ := range []string{api.CondOverridden, api.CondExpiring} {
		if c := api.FindCondition(st.GetConditions(), typ); c.GetStatus() == api.StatusTrue {
			reason = strings.TrimPrefix(reason+","+typ, ",")
			message = strings.TrimPrefix(message+"; "+c.Message, "; ")
		}
	}
	return reason, message
}

func owner(p *carav1.Project) string {
	return strings.TrimPrefix(p.GetMetadata().GetOwner(), api.PrefixSource)
}

func expiry(p *carav1.Project) *timestamppb.Timestamp {
	if at := p.GetStatus().GetExpireAt(); at != nil {
		return at
	}
	return p.GetSpec().GetExpireAt()
}
