package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func projectKind() kind {
	return kind{
		name: api.KindProject, plural: "projects", aliases: []string{"project", "proj", "p"}, short: "Projects and how they are",
		columns: []string{"NAME", "PHASE", "READY", "NODE", "CONDITIONS", "SOURCE", "EXPIRES", "AGE"},
		wide:    []string{"GENERATION", "EPOCH", "REVISION", "HOSTS", "MESSAGE"},
		row:     projectRow,
		list: func(ctx context.Context, a *app, o getOptions) ([]proto.Message, error) {
			c, err := a.projects()
			if err != nil {
				return nil, err
			}
			l, err := c.ListProjects(ctx, &carav1.ListProjectsRequest{
				Phase: o.phases, NodeRef: o.node, Owner: o.owner, LabelSelector: o.selector,
			})
			return messages(l.GetItems()), err
		},
		get: func(ctx context.Context, a *app, name string) (proto.Message, error) {
			c, err := a.projects()
			if err != nil {
				return nil, err
			}
			return c.GetProject(ctx, &carav1.GetRequest{Name: name})
		},
		watch: func(ctx context.Context, a *app, o getOptions) (func() (watchEvent, error), error) {
			c, err := a.projects()
			if err != nil {
				return nil, err
			}
			s, err := c.WatchProjects(ctx, &carav1.WatchProjectsRequest{
				Phase: o.phases, NodeRef: o.node, Owner: o.owner, LabelSelector: o.selector,
			})
			return receiver[*carav1.ProjectEvent](grpc.ServerStreamingClient[carav1.ProjectEvent](s)), err
		},
	}
}

func projectRow(m proto.Message, now time.Time) []cell {
	p := m.(*carav1.Project)
	st := p.GetStatus()
	reason, message := telling(p)
	return []cell{
		text(p.GetMetadata().GetName()),
		phaseCell(p, now),
		text(readyText(p)),
		text(st.GetNodeRef()),
		text(reason),
		text(owner(p)),
		text(until(now, expiry(p))),
		text(since(now, p.GetMetadata().GetCreationTimestamp())),
		count(p.GetMetadata().GetGeneration()),
		count(st.GetEpoch()),
		text(revision(p.GetMetadata().GetOrigin().GetRevision())),
		text(strings.Join(st.GetHosts(), ",")),
		text(short(line(message), 120)),
	}
}

// phaseCell is the phase; where the node is silent, what was seen last and when.
func phaseCell(p *carav1.Project, now time.Time) cell {
	phase := p.GetStatus().GetPhase()
	if seen := p.GetStatus().GetLastSeen(); seen != nil {
		return cell{"Unknown (last seen " + age(now.Sub(seen.AsTime())) + " ago)", red}
	}
	switch phase {
	case api.PhaseRunning:
		if c := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady); c.GetStatus() == api.StatusFalse {
			return cell{phase, yellow}
		}
		return cell{phase, green}
	case api.PhaseFailed:
		return cell{phase, red}
	case api.PhasePending, api.PhaseScheduled:
		return cell{phase, yellow}
	}
	return cell{dash(line(phase)), faint}
}

// readyText counts the services that are as they should be.
func readyText(p *carav1.Project) string {
	ready := 0
	for _, s := range p.GetStatus().GetServices() {
		if s.State == "Completed" || s.State == "Running" && (s.Health == "" || s.Health == "Healthy") {
			ready++
		}
	}
	return fmt.Sprintf("%d/%d", ready, len(p.GetSpec().GetServices()))
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
	return strings.TrimPrefix(p.GetMetadata().GetOwner(), "source/")
}

func expiry(p *carav1.Project) *timestamppb.Timestamp {
	if at := p.GetStatus().GetExpireAt(); at != nil {
		return at
	}
	return p.GetSpec().GetExpireAt()
}

// revision is a commit as people write it.
func revision(r string) string {
	if len(r) > 12 {
		return r[:7]
	}
	return r
}

func count(n int32) cell { return cell{text: strconv.Itoa(int(n))} }

func ago(now time.Time, t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return age(now.Sub(t.AsTime())) + " ago"
}
