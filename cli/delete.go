package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type deleteOptions struct {
	files    []string
	force    bool
	wait     bool
	timeout  time.Duration
	override overrideOptions
}

func (a *app) deleteCommand() *cobra.Command {
	o := deleteOptions{}
	cmd := &cobra.Command{
		Use: "delete KIND NAME... | delete -f FILE|DIR|-", Short: "Delete objects",
		Args: func(_ *cobra.Command, args []string) error {
			if len(o.files) == 0 && (len(args) == 0 || len(args) == 1 && !strings.Contains(args[0], "/")) {
				return fmt.Errorf("say what to delete: delete project NAME, or -f FILE")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.delete(cmd.Context(), o, args) },
	}
	f := cmd.Flags()
	f.StringSliceVarP(&o.files, "filename", "f", nil, "delete what these manifests describe")
	f.BoolVar(&o.force, "force", false, "take a project's record away although its node does not answer")
	f.BoolVar(&o.wait, "wait", false, "wait until it is gone")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait")
	o.override.flags(cmd)
	return cmd
}

// target is one object to delete.
type target struct{ kind, name string }

func (a *app) delete(ctx context.Context, o deleteOptions, args []string) error {
	terms, err := o.override.terms()
	if err != nil {
		return err
	}
	targets, err := a.targets(o.files, args)
	if err != nil {
		return err
	}
	failed := 0
	for _, t := range targets {
		if err := a.deleteOne(ctx, o, terms, t); err != nil {
			printError(a.Err, err)
			failed++
		}
	}
	if failed > 0 {
		return Exit{Code: 1}
	}
	return nil
}

func (a *app) targets(files, args []string) ([]target, error) {
	var out []target
	if len(files) > 0 {
		objects, err := a.readManifests(files)
		if err != nil {
			return nil, err
		}
		for _, m := range objects {
			out = append(out, target{api.Kind(m), api.Meta(m).GetName()})
		}
		return out, nil
	}
	common := ""
	if !strings.Contains(args[0], "/") {
		common, args = args[0], args[1:]
	}
	for _, arg := range args {
		ref := arg
		if common != "" {
			ref = common + "/" + arg
		}
		typ, name := objectRef(ref)
		if k := findKind(typ); k == nil {
			return nil, fmt.Errorf("%q is no kind of object: want project, source, node or secret", typ)
		}
		out = append(out, target{typ, name})
	}
	return out, nil
}

func findKind(name string) *kind {
	for _, k := range kinds() {
		if k.name == name {
			return &k
		}
	}
	return nil
}

func (a *app) deleteOne(ctx context.Context, o deleteOptions, terms *carav1.OverrideTerms, t target) error {
	conn, err := a.dial()
	if err != nil {
		return err
	}
	req := &carav1.DeleteRequest{Name: t.name}
	switch t.kind {
	case api.KindProject:
		return a.deleteProject(ctx, o, terms, t.name)
	case api.KindSource:
		_, err = carav1.NewSourceServiceClient(conn).DeleteSource(ctx, req)
	case api.KindNode:
		_, err = carav1.NewNodeServiceClient(conn).DeleteNode(ctx, req)
	case api.KindSecret:
		_, err = carav1.NewSecretServiceClient(conn).DeleteSecret(ctx, req)
	default:
		return fmt.Errorf("a %s cannot be deleted by hand", strings.ToLower(t.kind))
	}
	if err == nil {
		fmt.Fprintf(a.Out, "%s %q deleted\n", strings.ToLower(t.kind), t.name)
	}
	return err
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
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errWaited)
	defer cancel()
	c, err := a.projects()
	if err != nil {
		return err
	}
	stream, err := c.WatchProjects(ctx, &carav1.WatchProjectsRequest{Name: name})
	if err != nil {
		return err
	}
	var last proto.Message
	for {
		e, err := stream.Recv()
		switch {
		case err != nil && last != nil:
			return a.waitEnded(ctx, map[string]*carav1.Project{name: last.(*carav1.Project)}, timeout, err)
		case err != nil:
			return err
		case e.Type == "Deleted", e.Type == "Bookmark" && last == nil:
			fmt.Fprintf(a.Out, "project %q deleted\n", name)
			return nil
		case e.Object != nil:
			last = e.Object
		}
	}
}
