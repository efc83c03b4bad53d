package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// What --for names.
const (
	forRunning = "running"
	forReady   = "ready"
	forDeleted = "deleted"
)

type waitOptions struct {
	*app
	object  kind.Ref
	state   string
	timeout time.Duration
}

func newWait(a *app) *cobra.Command {
	o := &waitOptions{app: a}
	cmd := command(&cobra.Command{
		Use: "wait project NAME | wait source NAME", Short: "Wait until a project runs, a source is applied, or one of them is deleted",
		Long: "Wait until a project or a source is in a state:\n" +
			"  running  a project: every service runs, and jobs have completed (default). The last line is its URL\n" +
			"  ready    a project: it is running, and its condition Ready is True\n" +
			"           a source: the cluster is as git says (default)\n" +
			"  deleted  it is gone\n\n" +
			"The object need not exist yet: a pipeline can push a manifest, and then wait for its project. If an older version of\n" +
			"the project may run, use caractrl reconcile SOURCE --wait --project NAME, which waits for what git says now.\n\n" +
			"Exit codes: 0 the state is reached, 2 no node fits, 3 the project failed, 4 --timeout was over, 1 anything else.",
		Example:           "  caractrl wait project pr-42 --timeout 10m\n  caractrl wait project pr-42 --for deleted\n  caractrl wait source platform",
		ValidArgsFunction: completion{a}.refs(func(k kind.Kind) bool { return waitStates(k) != nil }),
	}, o)
	f := cmd.Flags()
	f.StringVar(&o.state, "for", "", "running, ready or deleted (default running for a project, ready for a source)")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait")
	offer(cmd, "for", cobra.FixedCompletions(waitStates(kind.Project()), noFiles))
	return cmd
}

// waitStates returns the states that objects of a kind can be awaited in. The first is the default.
func waitStates(k kind.Kind) []string {
	switch k.Name {
	case api.KindProject:
		return []string{forRunning, forReady, forDeleted}
	case api.KindSource:
		return []string{forReady, forDeleted}
	}
	return nil
}

func (o *waitOptions) parse(args []string) error {
	refs, err := kind.ParseRefs(args)
	if err != nil {
		return err
	}
	o.object = refs[0]
	states := waitStates(o.object.Kind)
	switch {
	case states == nil:
		return fmt.Errorf("%s cannot be awaited: wait for a project or a source", o.object.Kind.Plural)
	case len(refs) > 1 || o.object.Name == "":
		return fmt.Errorf("name one object: wait %s NAME", o.object.Kind.Lower())
	}
	if o.state = cmp.Or(strings.ToLower(o.state), states[0]); !slices.Contains(states, o.state) {
		return fmt.Errorf("a %s has --for %s, not %q", o.object.Kind.Lower(), strings.Join(states, ", "), o.state)
	}
	return checkTimeout(o.timeout)
}

// checkTimeout refuses a time that is over before the wait begins.
func checkTimeout(timeout time.Duration) error {
	if timeout <= 0 {
		return fmt.Errorf("--timeout %s is over at once: give a time such as 5m", timeout)
	}
	return nil
}

func (o *waitOptions) run(ctx context.Context) error {
	if o.object.Kind.Name == api.KindSource {
		return o.source(ctx)
	}
	return o.project(ctx)
}

func (o *waitOptions) project(ctx context.Context) error {
	if o.state == forDeleted {
		err := waitGone(ctx, o.projects(), o.object.Name, o.timeout)
		if err == nil {
			fmt.Fprintf(o.Out, "project %q is gone\n", o.object.Name)
		}
		return err
	}
	w := newWaiting([]string{o.object.Name})
	w.appear, w.ready, w.urls = true, o.state == forReady, true
	return o.await(ctx, w, o.timeout)
}

// source waits until a source is ready or gone, and shows each state on the way.
func (o *waitOptions) source(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	stream, err := o.sources().WatchSources(ctx, &carav1.WatchObjectsRequest{})
	if err != nil {
		return err
	}
	w := sourceWaiting{name: o.object.Name, deleted: o.state == forDeleted, message: "it does not exist"}
	for {
		e, err := stream.Recv()
		switch {
		case timedOut(err):
			return term.Exit{Code: term.ExitTimeout, Message: fmt.Sprintf("source %q is not %s after %s: %s", o.object.Name, o.state, o.timeout, w.message)}
		case err != nil:
			return err
		}
		before := w.message
		if w.take(e) {
			fmt.Fprintf(o.Out, "source/%s is %s\n", term.Line(o.object.Name), w.message)
			return nil
		}
		if w.message != before {
			fmt.Fprintf(o.Err, "source/%s: %s\n", term.Line(o.object.Name), w.message)
		}
	}
}

// sourceWaiting holds the state of an awaited source. It does no I/O.
type sourceWaiting struct {
	name    string
	deleted bool // wait until the source is gone
	seen    bool
	message string // the last known state
}

// take reads one event of the watch and reports whether the wait is over.
func (w *sourceWaiting) take(e *carav1.SourceEvent) (over bool) {
	s := e.GetObject()
	switch {
	case e.Type == api.WatchBookmark && w.deleted && !w.seen:
		w.message = "gone"
		return true
	case e.Type == api.WatchBookmark:
		return false
	case s.GetMetadata().GetName() != w.name:
		return false
	case e.Type == api.WatchDeleted:
		w.seen, w.message = false, "gone"
		return w.deleted
	}
	w.seen = true
	ready, message := kind.SourceState(s)
	w.message = term.Line(cmp.Or(message, ready.Text))
	c := api.FindCondition(s.GetStatus().GetConditions(), api.CondReady)
	if w.deleted || ready.Text != api.StatusTrue || c.GetObservedGeneration() < s.GetMetadata().GetGeneration() {
		return false
	}
	w.message = "at " + api.ShortRevision(s.GetStatus().GetAppliedRevision())
	return true
}
