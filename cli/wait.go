package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// timedOut reports whether a watch ended because of --timeout. The server knows the deadline and may report it first.
func timedOut(err error) bool { return api.Code(err) == codes.DeadlineExceeded }

// await waits for what w describes, and shows the progress.
func (a *app) await(ctx context.Context, w *waiting, timeout time.Duration) error {
	if len(w.open) == 0 {
		return nil
	}
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req := &carav1.WatchProjectsRequest{}
	if len(w.open) == 1 {
		for name := range w.open {
			req.Name = name
		}
	}
	stream, err := a.projects().WatchProjects(ctx, req)
	if timedOut(err) {
		return term.Exit{Code: term.ExitTimeout, Message: fmt.Sprintf("%s has not answered within %s", term.Clean(a.reached), timeout)}
	}
	live := term.NewLive(a.Err)
	for err == nil && len(w.open) > 0 {
		var e *carav1.ProjectEvent
		if e, err = stream.Recv(); err != nil {
			break
		}
		steps := w.take(e)
		if live != nil { // a terminal shows a table that is redrawn, other outputs get one line for each step
			live.Draw(kind.ServiceRows(w.last))
			continue
		}
		for _, step := range steps {
			fmt.Fprintln(a.Err, step)
		}
	}
	switch {
	case timedOut(err):
		return w.verdict(timeout, a.absence(outer, w))
	case err != nil:
		return err
	}
	if err := w.verdict(timeout, nil); err != nil {
		return err
	}
	if err := a.printPorts(ctx, w.last); err != nil {
		return err
	}
	a.printURLs(w)
	return nil
}

// portsOpening reports whether the nodes are about to open the ports of a project.
func portsOpening(p *carav1.Project) bool {
	if len(p.GetSpec().GetPorts()) == 0 {
		return false
	}
	c := api.FindCondition(p.GetStatus().GetConditions(), api.CondPortsReady)
	return c.GetObservedGeneration() < p.GetMetadata().GetGeneration() || c.GetReason() == api.ReasonPortOpening
}

// waiting holds the state of the awaited projects. It decides what to show and does no I/O.
type waiting struct {
	open   map[string]*carav1.Project // the last known state; nil if it is not known yet
	last   map[string]*carav1.Project // the last known state, including finished projects
	shown  map[string]string
	appear bool     // wait for projects that do not exist; without it, they count as deleted
	ready  bool     // the condition Ready must be True, too
	urls   bool     // print internal URLs, too
	failed []string // messages about projects that failed or are gone
	code   int
}

func newWaiting(names []string) *waiting {
	w := &waiting{open: map[string]*carav1.Project{}, last: map[string]*carav1.Project{}, shown: map[string]string{}}
	for _, n := range names {
		w.open[n] = nil
	}
	return w
}

// missing returns a line for each project that does not exist yet.
func (w *waiting) missing() (lines []string) {
	for _, name := range slices.Sorted(maps.Keys(w.open)) {
		if w.open[name] == nil && w.shown[name] == "" {
			w.shown[name] = "project/" + term.Line(name) + " does not exist yet"
			lines = append(lines, w.shown[name])
		}
	}
	return lines
}

// take reads one event of the watch and returns the lines to show.
func (w *waiting) take(e *carav1.ProjectEvent) []string {
	if e.Type == api.WatchBookmark {
		if w.appear {
			return w.missing()
		}
		for _, name := range slices.Sorted(maps.Keys(w.open)) {
			if w.open[name] == nil { // it existed when it was applied, so it has been deleted
				w.settle(name, 1, fmt.Sprintf("project %q was deleted meanwhile", name))
			}
		}
		return nil
	}
	p := e.GetObject()
	name, phase := p.GetMetadata().GetName(), p.GetStatus().GetPhase()
	if _, ok := w.open[name]; !ok {
		return nil
	}
	if e.Type == api.WatchDeleted {
		w.settle(name, 1, fmt.Sprintf("project %q was deleted meanwhile", name))
		return nil
	}
	w.open[name], w.last[name] = p, p
	reason, message := api.Telling(p)
	switch {
	case phase == api.PhaseFailed:
		w.settle(name, term.ExitFailed, fmt.Sprintf("project %q failed: %s: %s", name, reason, message))
		return nil
	case kind.UpdateFailed(p):
		w.settle(name, term.ExitFailed, fmt.Sprintf("project %q is not updated: %s", name, message))
		return nil
	case phase == api.PhaseRunning && p.GetStatus().GetObservedGeneration() >= p.GetMetadata().GetGeneration():
		if jobs := openJobs(p); len(jobs) > 0 {
			message = waitsForJobs(jobs)
			break
		}
		if portsOpening(p) {
			message = "waits until its ports are open"
			break
		}
		if w.ready && !api.IsTrue(p.GetStatus().GetConditions(), api.CondReady) {
			break
		}
		delete(w.open, name)
	}
	step := "project/" + term.Line(name) + " " + term.Line(phase)
	if text := term.Line(message); text != "" {
		step += ": " + text
	}
	if w.shown[name] == step {
		return nil
	}
	w.shown[name] = step
	return []string{step}
}

func (w *waiting) settle(name string, code int, message string) {
	delete(w.open, name)
	w.failed = append(w.failed, message)
	w.code = max(w.code, code)
}

// verdict returns the result: failures first, then the projects that did not finish in time. If none of the latter had a
// node, the exit code is term.ExitUnschedulable. absence has the reasons why projects do not exist.
func (w *waiting) verdict(timeout time.Duration, absence map[string]string) error {
	messages, code := w.failed, term.ExitUnschedulable
	for _, name := range slices.Sorted(maps.Keys(w.open)) {
		p := w.open[name]
		if p == nil && w.appear {
			messages, code = append(messages, fmt.Sprintf("project %q does not exist after %s: %s", name, timeout, absence[name])), term.ExitTimeout
			continue
		}
		_, message := api.Telling(p)
		if jobs := openJobs(p); p.GetStatus().GetPhase() == api.PhaseRunning && len(jobs) > 0 {
			message = waitsForJobs(jobs)
		}
		text := fmt.Sprintf("project %q is %s after %s", name, term.Dash(p.GetStatus().GetPhase()), timeout)
		if message != "" {
			text += ": " + term.Line(message)
		}
		messages = append(messages, text)
		if !unschedulable(p) {
			code = term.ExitTimeout
		}
	}
	if len(messages) == 0 {
		return nil
	}
	if w.code > 0 {
		code = w.code
	}
	return term.Exit{Code: code, Message: strings.Join(messages, "\n       ")} // aligned with the first line, which begins with "error: "
}

// openJobs returns the jobs of a project that have not completed.
func openJobs(p *carav1.Project) []string {
	completed := map[string]bool{}
	for _, s := range p.GetStatus().GetServices() {
		completed[s.GetName()] = s.GetState() == api.ServiceCompleted
	}
	var open []string
	for _, s := range p.GetSpec().GetServices() {
		if api.IsJob(p.GetSpec(), s) && !completed[s.GetName()] {
			open = append(open, s.GetName())
		}
	}
	return open
}

func waitsForJobs(jobs []string) string {
	return "waiting for " + strings.Join(jobs, ", ") + " to complete"
}

// unschedulable reports whether the scheduler found no node for a project.
func unschedulable(p *carav1.Project) bool {
	c := api.FindCondition(p.GetStatus().GetConditions(), api.CondScheduled)
	return p.GetStatus().GetPhase() == api.PhasePending && c.GetStatus() == api.StatusFalse && c.GetReason() != api.ReasonWaiting
}

// followed is work of the server that a command follows to its end.
type followed struct {
	watch   func(ctx context.Context) error // returns nil at the end
	remains func() string                   // describes what continues without the command
	lost    func() bool                     // reports whether the loss of the server is not shown yet
}

// within returns a context that ends after the timeout, unless that is 0.
func within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// pause waits for a second, or until ctx ends.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
}

// untilEnded follows work of the server to its end, for at most the timeout unless that is 0. If the connection to the server
// is lost, it waits for the server, which then continues the work.
func (a *app) untilEnded(ctx context.Context, timeout time.Duration, f followed) error {
	interrupted := ctx
	ctx, cancel := within(ctx, timeout)
	defer cancel()
	for {
		err := f.watch(ctx)
		switch {
		case err == nil:
			return nil
		case interrupted.Err() != nil:
			return term.Exit{Code: exitInterrupted, Message: "interrupted: " + f.remains()}
		case ctx.Err() != nil, timeout > 0 && timedOut(err):
			return term.Exit{Code: term.ExitTimeout, Message: fmt.Sprintf("after %s %s", timeout, f.remains())}
		case api.Code(err) != codes.Unavailable:
			return err
		}
		if cause, _ := unreachable(err); f.lost() {
			fmt.Fprintln(a.Err, "the connection to the server is lost: waiting for it", term.Line(cause))
		}
		pause(ctx)
	}
}

// printURLs ends a successful wait with the URLs of the projects: the last line of a script's output is a URL and nothing else.
func (a *app) printURLs(w *waiting) {
	for _, name := range slices.Sorted(maps.Keys(w.last)) {
		p := w.last[name]
		a.printBut(p, api.CondIngressReady)
		for _, host := range kind.WithoutCertificate(p) {
			fmt.Fprintf(a.Err, "project/%s runs, but %s has no certificate yet\n", term.Line(name), term.Line(host))
		}
		for _, url := range kind.BareURLs(p, w.urls) {
			fmt.Fprintln(a.Out, term.Line(url))
		}
	}
}

// printBut prints why a project that runs cannot be used everywhere, if the condition says so.
func (a *app) printBut(p *carav1.Project, condition string) {
	if c := api.FindCondition(p.GetStatus().GetConditions(), condition); c.GetStatus() == api.StatusFalse {
		fmt.Fprintln(a.Err, "project/"+term.Line(p.GetMetadata().GetName()), "runs, but:", term.Line(c.GetMessage()))
	}
}

// printPorts prints the addresses where the ports of projects are open, and why one is not.
func (a *app) printPorts(ctx context.Context, projects map[string]*carav1.Project) error {
	var with []*carav1.Project
	for _, name := range slices.Sorted(maps.Keys(projects)) {
		if p := projects[name]; len(p.GetSpec().GetPorts()) > 0 {
			with = append(with, p)
		}
	}
	if len(with) == 0 {
		return nil
	}
	nodes, err := carav1.NewNodeServiceClient(a).ListNodes(ctx, &carav1.ListRequest{})
	if api.Code(err) == codes.PermissionDenied {
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range with {
		for _, at := range kind.OpenPorts(p, nodes.GetItems()) {
			fmt.Fprintln(a.Out, term.Line(at))
		}
		a.printBut(p, api.CondPortsReady)
	}
	return nil
}
