package cli

import (
	"context"
	"errors"
	"fmt"
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
	files    []string
	force    bool
	absent   bool
	wait     bool
	timeout  time.Duration
	override overrideOptions
}

func (a *app) deleteCommand() *cobra.Command {
	o := deleteOptions{}
	deletable := func(k kind.Kind) bool { return k.Name == api.KindProject || k.Remove != nil }
	cmd := &cobra.Command{
		Use: "delete KIND NAME... | delete KIND/NAME... | delete -f FILE|DIR|-", Short: "Delete objects",
		Example:           "  caractrl delete project web\n  caractrl delete project/web source/platform\n  caractrl delete -f deploy/",
		ValidArgsFunction: a.completeRefs(deletable),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.delete(cmd.Context(), o, args) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "delete what these manifests describe")
	f.BoolVar(&o.force, "force", false, "take a project's record away although its node does not answer")
	f.BoolVar(&o.absent, "ignore-not-found", false, "what is not there is no error")
	f.BoolVar(&o.wait, "wait", false, "wait until it is gone")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait")
	o.override.flags(cmd)
	return cmd
}

// delete deletes each object, also where another one was refused, and fails if any was. Projects that stand next to one
// another are deleted side by side, as nothing in one depends on another; all else goes in the order given.
func (a *app) delete(ctx context.Context, o deleteOptions, args []string) error {
	terms, err := o.override.terms()
	if err != nil {
		return err
	}
	refs, err := a.toDelete(o.files, args)
	if err != nil {
		return err
	}
	if err := a.nameCluster(); err != nil {
		return err
	}
	code := 0
	for len(refs) > 0 {
		if refs[0].Kind.Name != api.KindProject {
			code = max(code, a.deleted(o, a.deleteOther(ctx, refs[0])))
			refs = refs[1:]
			continue
		}
		var names []string
		for ; len(refs) > 0 && refs[0].Kind.Name == api.KindProject; refs = refs[1:] {
			names = append(names, refs[0].Name)
		}
		exit, err := a.deleteProjects(ctx, o, terms, names)
		if err != nil {
			return err
		}
		code = max(code, exit)
	}
	if code > 0 {
		return Exit{Code: code}
	}
	return nil
}

// deleted prints why an object was not deleted, and returns the exit code for it; 0 where there is nothing to say.
func (a *app) deleted(o deleteOptions, err error) int {
	exit := Exit{Code: 1}
	switch {
	case err == nil, o.absent && api.IsNotFound(err):
		return 0
	case errors.As(err, &exit):
		fmt.Fprintln(a.Err, "error:", term.Clean(exit.Message))
	default:
		a.printError(err)
	}
	return exit.Code
}

// toDelete is what the arguments or the manifests name.
func (a *app) toDelete(files, args []string) ([]kind.Ref, error) {
	if len(files) > 0 && len(args) > 0 {
		return nil, errors.New("say what to delete by name or with -f, not both")
	}
	if len(files) > 0 {
		objects, err := a.readManifests(files)
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
	refs, err := kind.ParseRefs(args)
	if err != nil {
		return nil, err
	}
	for _, r := range refs {
		switch {
		case r.Name == "":
			return nil, fmt.Errorf("say which: delete %s NAME", r.Kind.Lower())
		case r.Kind.Remove == nil && r.Kind.Name != api.KindProject:
			return nil, fmt.Errorf("%s are not deleted by hand", r.Kind.Plural)
		}
	}
	return refs, nil
}

// deleteOther deletes an object that is no project.
func (a *app) deleteOther(ctx context.Context, r kind.Ref) error {
	conn, err := a.dial()
	if err != nil {
		return err
	}
	if err := r.Kind.Remove(ctx, conn, r.Name); err != nil {
		return err
	}
	if r.Kind.Name == api.KindSource { // its record goes when the reconciler has let go of its projects
		fmt.Fprintf(a.Out, "source %q is being deleted\n", r.Name)
		return nil
	}
	fmt.Fprintf(a.Out, "%s %q deleted\n", r.Kind.Lower(), r.Name)
	return nil
}

// deleteProjects asks for the deletion of projects side by side, and then waits for their end if it is to. It prints in
// the order given, and returns the worst exit code.
func (a *app) deleteProjects(ctx context.Context, o deleteOptions, terms *carav1.OverrideTerms, names []string) (code int, err error) {
	c, err := a.projects()
	if err != nil {
		return 0, err
	}
	type answer struct {
		*carav1.DeleteProjectResponse
		err error
	}
	var rest []string
	sideBySide(names, func(name string) answer {
		resp, err := c.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: name, Force: o.force, Override: terms})
		return answer{resp, err}
	}, func(name string, got answer) {
		code = max(code, a.deleted(o, got.err))
		if got.err != nil {
			return
		}
		fmt.Fprintln(a.Out, term.Clean(got.Message))
		if o.wait && !got.Gone {
			rest = append(rest, name)
		}
	})
	sideBySide(rest, func(name string) error { return waitGone(ctx, c, name, o.timeout) }, func(name string, err error) {
		code = max(code, a.deleted(o, err))
		if err == nil {
			fmt.Fprintf(a.Out, "project %q deleted\n", name)
		}
	})
	return code, nil
}

// maxDeletions is how many deletions are asked for, or waited for, at a time.
const maxDeletions = 16

// sideBySide calls do for each name, several at a time, and tell with what came of it, in the order of the names.
func sideBySide[T any](names []string, do func(name string) T, tell func(name string, came T)) {
	came := make([]chan T, len(names))
	for i := range came {
		came[i] = make(chan T, 1)
	}
	var begun atomic.Int64
	var workers sync.WaitGroup
	defer workers.Wait()
	for range min(maxDeletions, len(names)) {
		workers.Go(func() {
			for i := begun.Add(1) - 1; i < int64(len(names)); i = begun.Add(1) - 1 {
				came[i] <- do(names[i])
			}
		})
	}
	for i, name := range names {
		tell(name, <-came[i])
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
	for seen := false; ; {
		e, err := stream.Recv()
		switch {
		case waited(err):
			return Exit{Code: exitTimeout, Message: fmt.Sprintf("project %q is still being deleted after %s; caractrl describe project %s tells more", name, timeout, name)}
		case err != nil:
			return err
		case e.Type == api.WatchDeleted, e.Type == api.WatchBookmark && !seen:
			return nil
		}
		seen = true
	}
}
