package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Exit codes of --wait.
const (
	exitUnschedulable = 2
	exitFailed        = 3
	exitTimeout       = 4
)

// waitRunning waits until every project runs at its newest generation, and shows each step on the way.
func (a *app) waitRunning(ctx context.Context, names []string, timeout time.Duration) error {
	if len(names) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errWaited)
	defer cancel()
	c, err := a.projects()
	if err != nil {
		return err
	}
	stream, err := c.WatchProjects(ctx, &carav1.WatchProjectsRequest{})
	if err != nil {
		return err
	}
	waiting := map[string]*carav1.Project{}
	shown := map[string]string{}
	for _, n := range names {
		waiting[n] = nil
	}
	for len(waiting) > 0 {
		e, err := stream.Recv()
		if err != nil {
			return a.waitEnded(ctx, waiting, timeout, err)
		}
		p := e.GetObject()
		name := p.GetMetadata().GetName()
		if _, ok := waiting[name]; !ok {
			continue
		}
		if e.Type == "Deleted" {
			return Exit{Code: 1, Message: fmt.Sprintf("project %q was deleted meanwhile", name)}
		}
		waiting[name] = p
		reason, message := telling(p)
		step := fmt.Sprintf("project/%s %s", name, p.GetStatus().GetPhase())
		if text := line(message); text != "" {
			step += ": " + text
		}
		if shown[name] != step {
			fmt.Fprintln(a.Err, clean(step))
			shown[name] = step
		}
		switch p.GetStatus().GetPhase() {
		case api.PhaseRunning:
			if p.GetStatus().GetObservedGeneration() >= p.GetMetadata().GetGeneration() {
				delete(waiting, name)
			}
		case api.PhaseFailed:
			return Exit{Code: exitFailed, Message: fmt.Sprintf("project %q failed: %s: %s", name, reason, line(message))}
		}
	}
	return nil
}

var errWaited = errors.New("waited long enough")

// waitEnded says why the waiting is over: time is up, with what still stood in the way, or the server went.
func (a *app) waitEnded(ctx context.Context, waiting map[string]*carav1.Project, timeout time.Duration, err error) error {
	if !errors.Is(context.Cause(ctx), errWaited) {
		return err
	}
	for name, p := range waiting {
		code, reason := exitTimeout, ""
		if c := api.FindCondition(p.GetStatus().GetConditions(), api.CondScheduled); p.GetStatus().GetPhase() == api.PhasePending && c != nil {
			code, reason = exitUnschedulable, ": "+line(c.Message)
		}
		return Exit{Code: code, Message: fmt.Sprintf("project %q is %s after %s%s", name, dash(p.GetStatus().GetPhase()), timeout, reason)}
	}
	return err
}
