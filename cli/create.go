package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func (a *app) createCommand() *cobra.Command {
	create := group(&cobra.Command{Use: "create", Short: "Create a source, a secret or a token"})
	source := group(&cobra.Command{Use: "source", Short: "Create a source of projects"})
	source.AddCommand(a.createGitCommand(), a.createDirCommand())
	create.AddCommand(source, a.createSecretCommand(), a.createTokenCommand())
	return create
}

// sourceFlags are those that both sorts of source have.
func sourceFlags(cmd *cobra.Command, s *carav1.SourceSpec) (prune *bool) {
	f := cmd.Flags()
	f.StringVar(&s.Path, "path", "", "only this subtree")
	f.StringSliceVar(&s.Include, "include", nil, "globs of files to read")
	f.StringSliceVar(&s.Exclude, "exclude", nil, "globs of files to leave out")
	f.StringVar(&s.Interval, "interval", "", "how often to look (default 30s)")
	f.StringVar(&s.Adopt, "adopt", "", "which existing projects to take over: Never, IfUnowned (default) or Always")
	f.StringVar(&s.OnDelete, "on-delete", "", "what becomes of the projects when the source is deleted: Orphan (default) or Delete")
	s.Allow = &carav1.SourceAllow{}
	f.StringSliceVar(&s.Allow.Names, "allow-name", nil, "names that its projects may have, such as shop-* (default: every name)")
	f.StringSliceVar(&s.Allow.Hosts, "allow-host", nil, "hosts that its projects may claim, such as *.example.com (default: every host that is not reserved)")
	f.StringSliceVar(&s.Allow.Secrets, "allow-secret", nil, "Secrets that its projects may use, such as shop-* (default: no Secret)")
	f.BoolVar(&s.AllowEmpty, "allow-empty", false, "let an empty source prune all of its projects")
	offer(cmd, "adopt", cobra.FixedCompletions([]string{api.AdoptNever, api.AdoptIfUnowned, api.AdoptAlways}, noFiles))
	offer(cmd, "on-delete", cobra.FixedCompletions([]string{api.OnDeleteOrphan, api.OnDeleteDelete}, noFiles))
	return f.Bool("prune", true, "delete projects that leave the source")
}

func (a *app) createGitCommand() *cobra.Command {
	spec := &carav1.SourceSpec{Git: &carav1.GitSource{Ref: &carav1.GitRef{}}}
	cmd := &cobra.Command{Use: "git NAME --url URL", Short: "Create a source from a git repository", Args: cobra.ExactArgs(1)}
	prune := sourceFlags(cmd, spec)
	f := cmd.Flags()
	f.StringVar(&spec.Git.Url, "url", "", "https://, ssh:// or file:// address of the repository")
	f.StringVar(&spec.Git.Ref.Branch, "branch", "", "branch to follow (default: the remote's HEAD)")
	f.StringVar(&spec.Git.Ref.Tag, "tag", "", "tag to follow")
	f.StringVar(&spec.Git.Ref.Semver, "semver", "", "range of versions over tags, such as '>=1.2 <2'")
	f.StringVar(&spec.Git.Ref.Commit, "commit", "", "commit to stay at")
	f.StringVar(&spec.Git.SecretRef, "secret", "", "Secret with the credentials")
	f.BoolVar(&spec.Git.Insecure, "insecure", false, "send the Secret's password over http://, where everybody on the way can read it")
	cmd.MarkFlagsMutuallyExclusive("branch", "tag", "semver", "commit")
	if err := cmd.MarkFlagRequired("url"); err != nil {
		panic(err) // the flag is defined above
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if kind.RefText(spec.Git.Ref) == "HEAD" {
			spec.Git.Ref = nil
		}
		return a.createSource(cmd.Context(), args[0], spec, *prune)
	}
	return cmd
}

func (a *app) createDirCommand() *cobra.Command {
	spec := &carav1.SourceSpec{Dir: &carav1.DirSource{}}
	cmd := &cobra.Command{Use: "dir NAME DIRECTORY", Short: "Create a source from a directory on the server's machine", Args: cobra.ExactArgs(2)}
	prune := sourceFlags(cmd, spec)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path, err := filepath.Abs(args[1])
		if err != nil {
			return fmt.Errorf("directory %s: %w", args[1], err)
		}
		spec.Dir.Path = path
		return a.createSource(cmd.Context(), args[0], spec, *prune)
	}
	return cmd
}

func (a *app) createSource(ctx context.Context, name string, spec *carav1.SourceSpec, prune bool) error {
	if !prune {
		spec.Prune = &prune
	}
	if proto.Equal(spec.Allow, &carav1.SourceAllow{}) {
		spec.Allow = nil
	}
	c, err := a.sources()
	if err != nil {
		return err
	}
	_, err = c.CreateSource(ctx, &carav1.CreateSourceRequest{Source: &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: name}, Spec: spec,
	}})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "source/%s created\n", term.Clean(name))
	return nil
}
