package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/local"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// options holds the options of one command. Each command has such a struct: flags set its fields, parse checks the command
// line and sends nothing, and run does the work.
type options interface {
	parse(args []string) error
	run(ctx context.Context) error
}

// command makes cmd parse and run o.
func command(cmd *cobra.Command, o options) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := o.parse(args); err != nil {
			return err
		}
		return o.run(cmd.Context())
	}
	return cmd
}

// local reads files and standard input.
func (a *app) local() local.Reader { return local.Reader{In: a.In, Err: a.Err} }

// noArgs is for commands without options to parse.
type noArgs struct{ *app }

func (noArgs) parse([]string) error { return nil }

// named is for commands about one object, which the first argument names.
type named struct {
	*app
	kind kind.Kind
	name string
}

func (o *named) parse(args []string) error {
	o.name = kind.Bare(o.kind, args[0])
	return nil
}

// done prints what happened to the object.
func (o *named) done(what string) {
	fmt.Fprintf(o.Out, "%s %s\n", kind.Ref{Kind: o.kind, Name: o.name}, term.Line(what))
}

// one makes cmd run o, a command about one object of a kind.
func (o *named) one(cmd *cobra.Command, of options) *cobra.Command {
	if cmd.Args == nil {
		cmd.Args = cobra.ExactArgs(1)
	}
	cmd.ValidArgsFunction = completion{o.app}.name(o.kind)
	return command(cmd, of)
}

func aboutProject(a *app) named { return named{app: a, kind: kind.Project()} }
func aboutSource(a *app) named  { return named{app: a, kind: kind.Source()} }
func aboutNode(a *app) named    { return named{app: a, kind: kind.Node()} }

// verbOptions is for commands that make one change to one object and print the result.
type verbOptions struct {
	named
	change func(ctx context.Context, conn grpc.ClientConnInterface, name string) (done string, err error)
}

func (o *verbOptions) run(ctx context.Context) error {
	done, err := o.change(ctx, o.app, o.name)
	if err == nil {
		o.done(done)
	}
	return err
}

func newVerb(about named, cmd *cobra.Command, change func(context.Context, grpc.ClientConnInterface, string) (string, error)) *cobra.Command {
	o := &verbOptions{named: about, change: change}
	return o.one(cmd, o)
}

// group makes cmd a command that only has subcommands: without arguments it prints its help, and it refuses any other word.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = known
	cmd.SuggestionsMinimumDistance = 2
	if cmd.RunE == nil {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	return cmd
}

// firstWord returns the first word after the command's own path that is neither a flag nor the value of a known flag;
// "" if there is none.
func firstWord(cmd *cobra.Command, args []string) string {
	path := strings.Fields(cmd.CommandPath())[1:]
	for i := 0; i < len(args); i++ {
		flag, isFlag := strings.CutPrefix(args[i], "--")
		switch {
		case isFlag:
			if f := cmd.Flag(flag); f != nil && f.NoOptDefVal == "" {
				i++ // its value
			}
		case strings.HasPrefix(args[i], "-"):
		case len(path) > 0 && args[i] == path[0]:
			path = path[1:]
		default:
			return args[i]
		}
	}
	return ""
}

// known refuses a word that is not a command, and suggests the command that may be meant.
func known(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		hint = ", did you mean " + strings.Join(like, " or ") + "?"
	}
	return fmt.Errorf("there is no command %q%s (%s --help lists the commands)",
		strings.TrimSpace(cmd.CommandPath()+" "+args[0]), hint, cmd.CommandPath())
}

// target is a service of a project on the command line. An empty service means that none was given.
type target struct{ project, service string }

// serviceOptions are for commands about one service: PROJECT, PROJECT/SERVICE, or PROJECT with --service.
type serviceOptions struct {
	*app
	target
	flagged string
}

func (o *serviceOptions) flag(cmd *cobra.Command, usage string) {
	cmd.Flags().StringVarP(&o.flagged, "service", "s", "", usage)
	offer(cmd, "service", completion{o.app}.part(services))
	cmd.ValidArgsFunction = completion{o.app}.target
}

func (o *serviceOptions) parse(args []string) (err error) {
	o.target, err = parseTarget(args[0], o.flagged)
	return err
}

// servicesOptions are for commands about some services of a project.
type servicesOptions struct {
	*app
	project  string
	services []string
}

func (o *servicesOptions) flag(cmd *cobra.Command) {
	cmd.Flags().StringSliceVarP(&o.services, "service", "s", nil, "only these services")
	offer(cmd, "service", completion{o.app}.part(services))
}

func (o *servicesOptions) parse(args []string) error {
	t, err := parseTarget(args[0], "")
	if err != nil {
		return err
	}
	if o.project = t.project; t.service != "" {
		o.services = append(o.services, t.service)
	}
	o.services = append(o.services, args[1:]...)
	return nil
}

// parseTarget reads `shop`, `project/shop`, `shop/web` or `project/shop/web`, and the value of --service.
func parseTarget(arg, service string) (target, error) {
	parts := strings.Split(arg, "/")
	if k, err := kind.Find(parts[0]); err == nil && k.Name == api.KindProject && len(parts) > 1 {
		parts = parts[1:]
	}
	if len(parts) > 2 || slices.Contains(parts, "") {
		return target{}, fmt.Errorf("%q does not name a project or a service: write NAME, or NAME/SERVICE", arg)
	}
	t := target{parts[0], strings.Join(parts[1:], "")}
	if t.service != "" && service != "" && t.service != service {
		return target{}, fmt.Errorf("%q names the service %s, and --service names %s: name one", arg, t.service, service)
	}
	t.service = cmp.Or(t.service, service)
	return t, nil
}

// resolve fills in the service of a project that has only one, and refuses a service that does not exist.
func (t target) resolve(ctx context.Context, c carav1.ProjectServiceClient) (target, error) {
	p, err := c.GetProject(ctx, kind.ByName(t.project))
	if err != nil {
		return t, err
	}
	names := services(p)
	switch {
	case t.service == "" && len(names) == 1:
		t.service = names[0]
	case t.service == "":
		return t, fmt.Errorf("project %s has the services %s; name one, for example %s/%s", t.project, strings.Join(names, ", "), t.project, names[0])
	case !slices.Contains(names, t.service):
		return t, fmt.Errorf("project %s has no service %q; its services are %s", t.project, t.service, strings.Join(names, ", "))
	}
	return t, nil
}
