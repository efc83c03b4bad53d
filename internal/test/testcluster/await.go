package testcluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
)

// AwaitProject waits until cond holds for a project, and returns the project. An error contains the last state.
func (c *Cluster) AwaitProject(ctx context.Context, name, what string, cond func(*carav1.Project) bool) (*carav1.Project, error) {
	client, err := c.Projects()
	if err != nil {
		return nil, err
	}
	var p *carav1.Project
	err = WaitFor(ctx, "project "+name+" "+what, func(ctx context.Context) error {
		if p, err = client.GetProject(ctx, &carav1.GetRequest{Name: name}); err != nil {
			return err
		}
		if !cond(p) {
			return fmt.Errorf("it is %s", Summary(p))
		}
		return nil
	})
	return p, err
}

// AwaitRunning waits until all these projects run at their newest generation with all services ready.
func (c *Cluster) AwaitRunning(ctx context.Context, names ...string) error {
	for _, name := range names {
		if _, err := c.AwaitProject(ctx, name, "runs", Runs); err != nil {
			return err
		}
	}
	return nil
}

// Runs reports whether a project is Running and ready at its newest generation.
func Runs(p *carav1.Project) bool {
	st := p.GetStatus()
	return st.GetPhase() == api.PhaseRunning && st.GetObservedGeneration() == p.GetMetadata().GetGeneration() &&
		api.FindCondition(st.GetConditions(), api.CondReady).GetStatus() == api.StatusTrue
}

// AwaitGone waits until no project has one of these names.
func (c *Cluster) AwaitGone(ctx context.Context, names ...string) error {
	client, err := c.Projects()
	if err != nil {
		return err
	}
	for _, name := range names {
		err := WaitFor(ctx, "project "+name+" is gone", func(ctx context.Context) error {
			p, err := client.GetProject(ctx, &carav1.GetRequest{Name: name})
			switch {
			case api.IsNotFound(err):
				return nil
			case err != nil:
				return err
			}
			return fmt.Errorf("it is %s", Summary(p))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// AwaitNode waits until a node is in a state.
func (c *Cluster) AwaitNode(ctx context.Context, name, state string) error {
	client, err := c.Nodes()
	if err != nil {
		return err
	}
	return WaitFor(ctx, "node "+name+" is "+state, func(ctx context.Context) error {
		n, err := client.GetNode(ctx, &carav1.GetRequest{Name: name})
		if err != nil {
			return err
		}
		if n.GetStatus().GetState() != state {
			return fmt.Errorf("it is %s%s", n.GetStatus().GetState(), conditions(n.GetStatus().GetConditions()))
		}
		return nil
	})
}

// AwaitSource waits until cond holds for a source, and returns the source. An error contains the last state.
func (c *Cluster) AwaitSource(ctx context.Context, name, what string, cond func(*carav1.Source) bool) (*carav1.Source, error) {
	client, err := c.Sources()
	if err != nil {
		return nil, err
	}
	var s *carav1.Source
	err = WaitFor(ctx, "source "+name+" "+what, func(ctx context.Context) error {
		if s, err = client.GetSource(ctx, &carav1.GetRequest{Name: name}); err != nil {
			return err
		}
		if !cond(s) {
			st := s.GetStatus()
			return fmt.Errorf("it has observed %.7s, attempted %.7s, applied %.7s%s", st.GetSnapshot().GetRevision(),
				st.GetAttemptedRevision(), st.GetAppliedRevision(), conditions(st.GetConditions()))
		}
		return nil
	})
	return s, err
}

// AwaitNothing waits until an engine has nothing of this cluster, or of one project if it is named.
func (c *Cluster) AwaitNothing(ctx context.Context, host, project string) error {
	return c.AwaitHeld(ctx, host, project, "nothing", testdocker.Held.Empty)
}

// AwaitHeld waits until cond holds for what an engine has of this cluster, or of one project.
func (c *Cluster) AwaitHeld(ctx context.Context, host, project, what string, cond func(testdocker.Held) bool) error {
	return WaitFor(ctx, "the engine holds "+what, func(ctx context.Context) error {
		held, err := c.Held(ctx, host, project)
		if err == nil && !cond(held) {
			err = fmt.Errorf("it holds\n%s", held)
		}
		return err
	})
}

// Summary returns a project's status in a few lines, for error messages.
func Summary(p *carav1.Project) string {
	st := p.GetStatus()
	var b strings.Builder
	fmt.Fprintf(&b, "%s, generation %d, observed %d, epoch %d, node %q%s", st.GetPhase(), p.GetMetadata().GetGeneration(),
		st.GetObservedGeneration(), st.GetEpoch(), st.GetNodeRef(), conditions(st.GetConditions()))
	for _, s := range st.GetServices() {
		fmt.Fprintf(&b, "\n  service %s: %s, restarts %d, %s", s.GetName(), s.GetState(), s.GetRestarts(), s.GetMessage())
	}
	return b.String()
}

func conditions(all []*carav1.Condition) string {
	var b strings.Builder
	for _, c := range slices.SortedFunc(slices.Values(all), func(x, y *carav1.Condition) int { return strings.Compare(x.GetType(), y.GetType()) }) {
		fmt.Fprintf(&b, "\n  %s %s %s: %s", c.GetType(), c.GetStatus(), c.GetReason(), c.GetMessage())
	}
	return b.String()
}
