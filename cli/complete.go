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

// completeWithin limits how long the tab key waits for a server that does not answer.
const completeWithin = 2 * time.Second

const noFiles = cobra.ShellCompDirectiveNoFileComp

// offer adds a completion to a flag.
func offer(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // the flag is defined where offer is called
	}
}

// names returns the names of all objects of a kind; nil if the server does not answer or refuses the user.
func (a *app) names(cmd *cobra.Command, k kind.Kind) []string {
	if err := settings.Load(cmd.Flags()); err != nil { // completion runs without PersistentPreRun
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

// completeNames completes the name of one object.
func (a *app) completeNames(k kind.Kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, noFiles
		}
		return matching(a.names(cmd, k), prefix, nil), noFiles
	}
}

// completeFlag completes a flag that names an object.
func (a *app) completeFlag(k kind.Kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return matching(a.names(cmd, k), prefix, nil), noFiles
	}
}

// services returns the services of a project; nil if the server does not answer.
func (a *app) services(cmd *cobra.Command, project string) []string {
	if err := settings.Load(cmd.Flags()); err != nil { // completion runs without PersistentPreRun
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

// completeServices completes PROJECT[/SERVICE] [SERVICE...].
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

// completeTarget completes PROJECT[/SERVICE].
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

// completeServiceFlag completes --service with the services of the project on the command line.
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

// completeRefs completes KIND NAME... and KIND/NAME... for the kinds that fit.
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
