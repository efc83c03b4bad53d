package cli

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// completeWithin limits how long the tab key waits for a server that does not answer.
const completeWithin = 2 * time.Second

const noFiles = cobra.ShellCompDirectiveNoFileComp

// offer adds a completion to a flag.
func offer(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // the flag is defined where offer is called
	}
}

// completion completes what the user types, with names that the server knows.
type completion struct{ *app }

// ask returns the names that the server answers; nil if it does not answer or refuses the user.
func (c completion) ask(cmd *cobra.Command, call func(context.Context, grpc.ClientConnInterface) ([]string, error)) []string {
	if err := c.settle(cmd); err != nil { // completion runs without PersistentPreRun
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
	defer cancel()
	names, err := call(ctx, c.app)
	if err != nil {
		return nil
	}
	for i := range names {
		names[i] = term.Clean(names[i])
	}
	return names
}

// names returns the names of all objects of a kind.
func (c completion) names(cmd *cobra.Command, k kind.Kind) []string {
	return c.ask(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) (names []string, err error) {
		objects, err := k.List(ctx, conn, kind.Filter{})
		for _, obj := range objects {
			names = append(names, api.Meta(obj).GetName())
		}
		return names, err
	})
}

// services returns the services of a project.
func services(p *carav1.Project) (names []string) {
	for _, s := range p.GetSpec().GetServices() {
		names = append(names, s.GetName())
	}
	return names
}

// parts returns what a project has.
func (c completion) parts(cmd *cobra.Command, project string, of func(*carav1.Project) []string) []string {
	return c.ask(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) ([]string, error) {
		p, err := carav1.NewProjectServiceClient(conn).GetProject(ctx, kind.ByName(project))
		return of(p), err
	})
}

// part completes a flag with what the project on the command line has.
func (c completion) part(of func(*carav1.Project) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, noFiles
		}
		t, err := parseTarget(args[0], "")
		if err != nil {
			return nil, noFiles
		}
		return matching(c.parts(cmd, t.project, of), prefix, nil), noFiles
	}
}

// managedVolumes returns the volumes that a backup has.
func managedVolumes(p *carav1.Project) (names []string) {
	for _, v := range p.GetSpec().GetVolumes() {
		if v.GetType() == api.VolumeManaged {
			names = append(names, v.GetName())
		}
	}
	return names
}

// snapshots returns the snapshots of a project's last backup, each with its volume.
func snapshots(p *carav1.Project) []string {
	words := []string{api.SnapshotLatest + "\tthe newest of each volume"}
	for _, s := range p.GetStatus().GetBackup().GetSnapshots() {
		words = append(words, s.GetId()+"\tvolume "+s.GetVolume())
	}
	return words
}

// name completes the name of one object.
func (c completion) name(k kind.Kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, noFiles
		}
		return c.flag(k)(cmd, args, prefix)
	}
}

// flag completes a flag that names an object.
func (c completion) flag(k kind.Kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return matching(c.names(cmd, k), prefix, nil), noFiles
	}
}

// targets completes PROJECT[/SERVICE] [SERVICE...].
func (c completion) targets(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		t, err := parseTarget(args[0], "")
		if err != nil || t.service != "" {
			return nil, noFiles
		}
		return matching(c.parts(cmd, t.project, services), prefix, args[1:]), noFiles
	}
	return c.target(cmd, args, prefix)
}

// target completes PROJECT[/SERVICE].
func (c completion) target(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	project, _, begun := strings.Cut(prefix, "/")
	switch {
	case len(args) > 0:
		return nil, noFiles
	case !begun:
		return matching(c.names(cmd, kind.Project()), prefix, nil), noFiles
	}
	var targets []string
	for _, s := range c.parts(cmd, project, services) {
		targets = append(targets, project+"/"+s)
	}
	return matching(targets, prefix, nil), noFiles
}

// refs completes KIND NAME... and KIND/NAME... for the kinds that fit. The name of a route has slashes.
func (c completion) refs(fits func(kind.Kind) bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		typ, _, slash := strings.Cut(prefix, "/")
		slash = slash && (len(args) == 0 || strings.Contains(args[0], "/"))
		var words []string
		if !slash && len(args) == 0 {
			for _, k := range kind.All() {
				if fits(k) {
					words = append(words, k.Plural)
				}
			}
			return matching(words, prefix, nil), noFiles
		}
		taken := args
		if !slash {
			typ, taken = args[0], args[1:]
		}
		k, err := kind.Find(typ)
		if err != nil || !fits(k) {
			return nil, noFiles
		}
		words = c.names(cmd, k)
		if slash {
			for i := range words {
				words[i] = typ + "/" + words[i]
			}
		}
		return matching(words, prefix, taken), noFiles
	}
}

// contexts completes the name of a context.
func (c completion) contexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	_, contexts, err := c.remembered()
	if err != nil {
		return nil, noFiles
	}
	return slices.Sorted(maps.Keys(contexts.Contexts)), noFiles
}

func matching(words []string, prefix string, taken []string) []string {
	return slices.DeleteFunc(words, func(w string) bool { return !strings.HasPrefix(w, prefix) || slices.Contains(taken, w) })
}
