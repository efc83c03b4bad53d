package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type deleteOptions struct {
	*app
	args, files []string
	force       bool
	absent      bool
	yes         bool
	wait        bool
	timeout     time.Duration
	override    overrideFlags
	terms       *carav1.OverrideTerms
}

func newDelete(a *app) *cobra.Command {
	o := &deleteOptions{app: a}
	cmd := command(&cobra.Command{
		Use: "delete KIND NAME... | delete KIND/NAME... | delete -f FILE|DIR|-", Short: "Delete objects",
		Example: "  caractrl delete project web\n  caractrl delete project/web source/platform\n  caractrl delete -f deploy/\n" +
			"  caractrl delete volume shop.db --wait",
		ValidArgsFunction: completion{a}.refs(kind.Kind.Deletable),
	}, o)
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "delete what these manifests describe")
	f.BoolVar(&o.force, "force", false, "remove a project's record although its node does not answer")
	f.BoolVar(&o.absent, "ignore-not-found", false, "succeed if an object does not exist")
	f.BoolVar(&o.yes, "yes", false, "do not ask before the data of a volume is deleted")
	f.BoolVar(&o.wait, "wait", false, "wait until the objects are gone")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait")
	o.override.add(cmd)
	return cmd
}

func (o *deleteOptions) parse(args []string) (err error) {
	o.args = args
	if o.terms, err = o.override.terms(); err != nil {
		return err
	}
	return checkTimeout(o.timeout)
}

// run deletes each object. If one is refused, it continues with the others and fails at the end. Consecutive projects are
// deleted concurrently, since they do not depend on each other; everything else is deleted in the given order.
func (o *deleteOptions) run(ctx context.Context) error {
	refs, err := o.targets()
	if err != nil {
		return err
	}
	if err := o.nameCluster(); err != nil {
		return err
	}
	code := 0
	for len(refs) > 0 {
		if refs[0].Kind.Name != api.KindProject {
			code = max(code, o.report(o.deleteOther(ctx, refs[0])))
			refs = refs[1:]
			continue
		}
		var names []string
		for ; len(refs) > 0 && refs[0].Kind.Name == api.KindProject; refs = refs[1:] {
			names = append(names, refs[0].Name)
		}
		code = max(code, o.deleteProjects(ctx, names))
	}
	if code > 0 {
		return term.Exit{Code: code}
	}
	return nil
}

// report prints why an object was not deleted, and returns the exit code for it; 0 without an error.
func (o *deleteOptions) report(err error) int {
	exit := term.Exit{Code: 1}
	switch {
	case err == nil, o.absent && api.IsNotFound(err):
		return 0
	case errors.As(err, &exit):
		fmt.Fprintln(o.Err, "error:", term.Clean(exit.Message))
	default:
		o.printError(err)
	}
	return exit.Code
}

// targets returns the objects that the arguments or the manifests name.
func (o *deleteOptions) targets() ([]kind.Ref, error) {
	if len(o.files) > 0 && len(o.args) > 0 {
		return nil, errors.New("name the objects or give manifests with -f, not both")
	}
	if len(o.files) > 0 {
		return o.declared()
	}
	refs, err := kind.ParseRefs(o.args)
	if err != nil {
		return nil, err
	}
	for _, r := range refs {
		switch {
		case r.Name == "":
			return nil, fmt.Errorf("name the object: delete %s NAME", r.Kind.Lower())
		case !r.Kind.Deletable():
			return nil, fmt.Errorf("%s cannot be deleted by hand", r.Kind.Plural)
		}
	}
	return refs, nil
}

// declared returns the objects of the manifests.
func (o *deleteOptions) declared() ([]kind.Ref, error) {
	objects, err := o.local().Manifests(o.files, nil)
	if err != nil {
		return nil, err
	}
	refs := make([]kind.Ref, len(objects))
	for i, m := range objects {
		k, err := kind.Find(api.Kind(m))
		if err != nil {
			return nil, err
		}
		refs[i] = kind.Ref{Kind: k, Name: api.Meta(m).GetName()}
	}
	return refs, nil
}

// deleteOther deletes an object that is not a Project.
func (o *deleteOptions) deleteOther(ctx context.Context, r kind.Ref) error {
	if r.Kind.Name == api.KindVolume {
		return o.deleteVolume(ctx, o.app, r.Name)
	}
	if err := r.Kind.Remove(ctx, o.app, r.Name); err != nil {
		return err
	}
	if r.Kind.Name == api.KindSource { // the record stays until the reconciler has released the projects
		fmt.Fprintf(o.Out, "source %q is being deleted\n", r.Name)
		return nil
	}
	fmt.Fprintf(o.Out, "%s %q deleted\n", r.Kind.Lower(), r.Name)
	if r.Kind.Name == api.KindSecret {
		o.warnUsers(ctx, r.Name)
	}
	return nil
}

// warnUsers names the sources that use a Secret themselves, because they can read nothing until it exists again. The Secret is deleted
// whatever the answer is, so an error is not reported.
func (o *deleteOptions) warnUsers(ctx context.Context, secret string) {
	list, err := o.sources().ListSources(ctx, &carav1.ListRequest{})
	if err != nil {
		return
	}
	for _, s := range list.GetItems() {
		if slices.Contains(api.SourceSecretNames(s.GetSpec()), secret) {
			fmt.Fprintf(o.Err, "warning: source %q uses secret %q: create it again, or change the source\n", s.GetMetadata().GetName(), term.Line(secret))
		}
	}
}

// deleteProjects deletes projects concurrently, and with --wait waits until they are gone. It prints results in the given
// order and returns the highest exit code.
func (o *deleteOptions) deleteProjects(ctx context.Context, names []string) (code int) {
	c := o.projects()
	type answer struct {
		*carav1.DeleteProjectResponse
		err error
	}
	var rest []string
	inParallel(names, func(name string) answer {
		resp, err := c.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: name, Force: o.force, Override: o.terms})
		return answer{resp, err}
	}, func(name string, got answer) {
		code = max(code, o.report(got.err))
		if got.err != nil {
			return
		}
		fmt.Fprintln(o.Out, term.Clean(got.Message))
		if o.wait && !got.Gone {
			rest = append(rest, name)
		}
	})
	inParallel(rest, func(name string) error { return waitGone(ctx, c, name, o.timeout) }, func(name string, err error) {
		code = max(code, o.report(err))
		if err == nil {
			fmt.Fprintf(o.Out, "project %q deleted\n", name)
		}
	})
	return code
}

// maxDeletions is how many projects are deleted concurrently.
const maxDeletions = 16

// inParallel calls do for each name, several at a time, and tell with each result, in the order of the names.
func inParallel[T any](names []string, do func(name string) T, tell func(name string, result T)) {
	results := make([]chan T, len(names))
	for i := range results {
		results[i] = make(chan T, 1)
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	defer workers.Wait()
	for range min(maxDeletions, len(names)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(names)); i = next.Add(1) - 1 {
				results[i] <- do(names[i])
			}
		})
	}
	for i, name := range names {
		tell(name, <-results[i])
	}
}

// waitGone waits until a project is gone.
func waitGone(ctx context.Context, c carav1.ProjectServiceClient, name string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stream, err := c.WatchProjects(ctx, &carav1.WatchProjectsRequest{Name: name})
	if err != nil {
		return err
	}
	phase, seen := api.PhaseTerminating, false
	for {
		e, err := stream.Recv()
		switch {
		case timedOut(err) && phase != api.PhaseTerminating:
			return term.Exit{Code: term.ExitTimeout, Message: fmt.Sprintf("project %q is still %s after %s: nobody has deleted it; caractrl describe project %s tells more", name, phase, timeout, name)}
		case timedOut(err):
			return term.Exit{Code: term.ExitTimeout, Message: fmt.Sprintf("project %q is still being deleted after %s; caractrl describe project %s tells more", name, timeout, name)}
		case err != nil:
			return err
		case e.Type == api.WatchDeleted, e.Type == api.WatchBookmark && !seen:
			return nil
		}
		if e.Type != api.WatchBookmark {
			seen, phase = true, e.GetObject().GetStatus().GetPhase()
		}
	}
}
