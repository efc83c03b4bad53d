package cli

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	"github.com/caravanserai/cara/internal/access"
	"github.com/caravanserai/cara/internal/settings"
)

// completeWithin bounds how long a person who pressed the tab key waits for a server that does not answer.
const completeWithin = 2 * time.Second

const noFiles = cobra.ShellCompDirectiveNoFileComp

// offer gives a flag its completion.
func offer(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // the flag is defined where offer is called
	}
}

// names are the names that there are of a kind. A server that does not answer, or a user whom it refuses, has none.
func (a *app) names(cmd *cobra.Command, k kind.Kind) []string {
	if err := settings.Load(cmd.Flags()); err != nil { // completion skips what runs before commands
		return nil
	}
	conn, err := a.dial()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
	defer cancel()
	objects, err := k.List(ctx, conn, kind.Filter{})
	if err != nil {
		return nil
	}
	names := make([]string, len(objects))
	for i, obj := range objects {
		names[i] = term.Clean(api.Meta(obj).GetName())
	}
	return names
}

// completeNames offers the names of one kind to a command that takes one of them.
func (a *app) completeNames(k kind.Kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, noFiles
		}
		return matching(a.names(cmd, k), prefix, nil), noFiles
	}
}

// completeFlag offers them to a flag.
func (a *app) completeFlag(k kind.Kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return matching(a.names(cmd, k), prefix, nil), noFiles
	}
}

// services are the services of a project, or none if the server does not tell.
func (a *app) services(cmd *cobra.Command, project string) []string {
	if err := settings.Load(cmd.Flags()); err != nil { // completion skips what runs before commands
		return nil
	}
	c, err := a.projects()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
	defer cancel()
	p, err := c.GetProject(ctx, kind.ByName(project))
	if err != nil {
		return nil
	}
	var names []string
	for _, s := range p.GetSpec().GetServices() {
		names = append(names, term.Clean(s.GetName()))
	}
	return names
}

// completeServices offers projects, and after one of them its services: as `project/service`, and as words of their own.
func (a *app) completeServices(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		t, err := parseTarget(args[0], "")
		if err != nil || t.service != "" {
			return nil, noFiles
		}
		return matching(a.services(cmd, t.project), prefix, args[1:]), noFiles
	}
	return a.completeTarget(cmd, args, prefix)
}

// completeTarget offers projects, and the services of one as `project/service`, to a command that takes one of them.
func (a *app) completeTarget(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	project, _, begun := strings.Cut(prefix, "/")
	switch {
	case len(args) > 0:
		return nil, noFiles
	case !begun:
		return matching(a.names(cmd, kind.Project()), prefix, nil), noFiles
	}
	var targets []string
	for _, s := range a.services(cmd, project) {
		targets = append(targets, project+"/"+s)
	}
	return matching(targets, prefix, nil), noFiles
}

// completeServiceFlag offers the services of the project that the command line names already.
func (a *app) completeServiceFlag(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, noFiles
	}
	t, err := parseTarget(args[0], "")
	if err != nil {
		return nil, noFiles
	}
	return matching(a.services(cmd, t.project), prefix, nil), noFiles
}

// completeRefs offers kinds, then names of the kind; and `kind/name` to who began so.
func (a *app) completeRefs(fits func(kind.Kind) bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if typ, _, ok := strings.Cut(prefix, "/"); ok {
			k, err := kind.Find(typ)
			if err != nil || !fits(k) {
				return nil, noFiles
			}
			var refs []string
			for _, name := range a.names(cmd, k) {
				refs = append(refs, typ+"/"+name)
			}
			return matching(refs, prefix, args), noFiles
		}
		if len(args) == 0 {
			var words []string
			for _, k := range kind.All() {
				if fits(k) {
					words = append(words, k.Plural)
				}
			}
			return matching(words, prefix, nil), noFiles
		}
		k, err := kind.Find(args[0])
		if err != nil || !fits(k) {
			return nil, noFiles
		}
		return matching(a.names(cmd, k), prefix, args[1:]), noFiles
	}
}

func (a *app) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	file, err := a.contextsFile()
	if err != nil {
		return nil, noFiles
	}
	contexts, err := access.Load(file)
	if err != nil {
		return nil, noFiles
	}
	return slices.Sorted(maps.Keys(contexts.Contexts)), noFiles
}

func matching(words []string, prefix string, taken []string) []string {
	return slices.DeleteFunc(words, func(w string) bool { return !strings.HasPrefix(w, prefix) || slices.Contains(taken, w) })
}
