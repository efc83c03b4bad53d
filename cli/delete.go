package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/api"
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
	deletable := func(k kind) bool { return k.name == api.KindProject || k.remove != nil }
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

// delete deletes each object, also where another one was refused, and fails if any was.
func (a *app) delete(ctx context.Context, o deleteOptions, args []string) error {
	terms, err := o.override.terms()
	if err != nil {
		return err
	}
	refs, err := a.toDelete(o.files, args)
	if err != nil {
		return err
	}
	code := 0
	for _, r := range refs {
		err := a.deleteOne(ctx, o, terms, r)
		exit := Exit{Code: 1}
		switch {
		case err == nil, o.absent && api.IsNotFound(err):
			continue
		case errors.As(err, &exit):
			fmt.Fprintln(a.Err, "error:", clean(exit.Message))
		default:
			a.printError(err)
		}
		code = max(code, exit.Code)
	}
	if code > 0 {
		return Exit{Code: code}
	}
	return nil
}

// toDelete is what the arguments or the manifests name.
func (a *app) toDelete(files, args []string) ([]ref, error) {
	if len(files) > 0 && len(args) > 0 {
		return nil, errors.New("say what to delete by name or with -f, not both")
	}
	if len(files) > 0 {
		objects, err := a.readManifests(files)
		if err != nil {
			return nil, err
		}
		refs := make([]ref, len(objects))
		for i, m := range objects {
			k, err := findKind(api.Kind(m))
			if err != nil {
				return nil, err
			}
			refs[i] = ref{k, api.Meta(m).GetName()}
		}
		return refs, nil
	}
	refs, err := parseRefs(args)
	if err != nil {
		return nil, err
	}
	for _, r := range refs {
		switch {
		case r.name == "":
			return nil, fmt.Errorf("say which: delete %s NAME", r.kind.lower())
		case r.kind.remove == nil && r.kind.name != api.KindProject:
			return nil, fmt.Errorf("%s are not deleted by hand", r.kind.plural)
		}
	}
	return refs, nil
}

func (a *app) deleteOne(ctx context.Context, o deleteOptions, terms *carav1.OverrideTerms, r ref) error {
	if r.kind.name == api.KindProject {
		return a.deleteProject(ctx, o, terms, r.name)
	}
	conn, err := a.dial()
	if err != nil {
		return err
	}
	if err := r.kind.remove(ctx, conn, r.name); err != nil {
		return err
	}
	if r.kind.name == api.KindSource { // its record goes when the reconciler has let go of its projects
		fmt.Fprintf(a.Out, "source %q is being deleted\n", r.name)
		return nil
	}
	fmt.Fprintf(a.Out, "%s %q deleted\n", r.kind.lower(), r.name)
	return nil
}

func (a *app) deleteProject(ctx context.Context, o deleteOptions, terms *carav1.OverrideTerms, name string) error {
	c, err := a.projects()
	if err != nil {
		return err
	}
	resp, err := c.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: name, Force: o.force, Override: terms})
	if err != nil {
		return err
	}
	fmt.Fprintln(a.Out, clean(resp.Message))
	if !o.wait || resp.Gone {
		return nil
	}
	return a.waitGone(ctx, name, o.timeout)
}

func (a *app) waitGone(ctx context.Context, name string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := a.projects()
	if err != nil {
		return err
	}
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
		case e.Type == "Deleted", e.Type == "Bookmark" && !seen:
			fmt.Fprintf(a.Out, "project %q deleted\n", name)
			return nil
		}
		seen = true
	}
}
