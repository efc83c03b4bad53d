package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func newCreate(a *app) *cobra.Command {
	create := group(&cobra.Command{
		Use: "create", Short: "Create a source, a secret or a token",
		Example: "  caractrl create source git platform --url https://git.example.com/platform.git\n" +
			"  caractrl create secret shop-db --from-file password=password.txt\n  caractrl create token ci --role deployer --name-prefix shop-",
	})
	source := group(&cobra.Command{
		Use: "source", Short: "Create a source of projects", Example: "  caractrl create source dir local ./deploy",
	})
	source.AddCommand(newCreateGit(a), newCreateDir(a))
	create.AddCommand(source, newCreateSecret(a), newCreateToken(a))
	return create
}

// sourceOptions are the options of both kinds of source.
type sourceOptions struct {
	named
	spec  *carav1.SourceSpec
	prune bool
}

func (o *sourceOptions) flags(cmd *cobra.Command) {
	f, s := cmd.Flags(), o.spec
	f.StringVar(&s.Path, "path", "", "only this subtree")
	f.StringSliceVar(&s.Include, "include", nil, "globs of files to read")
	f.StringSliceVar(&s.Exclude, "exclude", nil, "globs of files to leave out")
	f.StringVar(&s.Interval, "interval", "", "how often to check for changes (default 30s)")
	f.StringVar(&s.Format, "format", "", "what the files are: Manifests (default) or Compose")
	s.Compose = &carav1.ComposeOptions{}
	f.BoolVar(&s.Compose.Lossy, "lossy", false, "leave out keys of Compose files that have no equivalent, if the project can run without them")
	f.StringSliceVar(&s.Compose.Profiles, "profile", nil, "profiles of Compose files to enable")
	f.StringVar(&s.Adopt, "adopt", "", "which existing projects to take over: Never, IfUnowned (default) or Always")
	f.StringVar(&s.OnDelete, "on-delete", "", "what happens to the projects when the source is deleted: Orphan (default) or Delete")
	s.Allow = &carav1.SourceAllow{}
	f.StringSliceVar(&s.Allow.Names, "allow-name", nil, "names that its projects may have, such as shop-* (default: every name)")
	f.StringSliceVar(&s.Allow.Hosts, "allow-host", nil, "hosts that its projects may claim, such as *.example.com (default: every host that is not reserved)")
	f.StringSliceVar(&s.Allow.Secrets, "allow-secret", nil, "Secrets that its projects may use, such as shop-* (default: no Secret)")
	f.BoolVar(&s.AllowEmpty, "allow-empty", false, "let an empty source prune all of its projects")
	f.BoolVar(&o.prune, "prune", true, "delete projects that leave the source")
	offer(cmd, "format", cobra.FixedCompletions([]string{api.FormatManifests, api.FormatCompose}, noFiles))
	offer(cmd, "adopt", cobra.FixedCompletions([]string{api.AdoptNever, api.AdoptIfUnowned, api.AdoptAlways}, noFiles))
	offer(cmd, "on-delete", cobra.FixedCompletions([]string{api.OnDeleteOrphan, api.OnDeleteDelete}, noFiles))
}

func newCreateGit(a *app) *cobra.Command {
	o := &sourceOptions{named: aboutSource(a), spec: &carav1.SourceSpec{Git: &carav1.GitSource{Ref: &carav1.GitRef{}}}}
	cmd := command(&cobra.Command{
		Use: "git NAME --url URL", Short: "Create a source from a git repository", Args: cobra.ExactArgs(1),
		Example: "  caractrl create source git platform --url https://git.example.com/platform.git --branch main --path deploy",
	}, o)
	o.flags(cmd)
	f, git := cmd.Flags(), o.spec.Git
	f.StringVar(&git.Url, "url", "", "https://, ssh:// or file:// address of the repository")
	f.StringVar(&git.Ref.Branch, "branch", "", "branch to follow (default: the remote's HEAD)")
	f.StringVar(&git.Ref.Tag, "tag", "", "tag to follow")
	f.StringVar(&git.Ref.Semver, "semver", "", "range of versions over tags, such as '>=1.2 <2'")
	f.StringVar(&git.Ref.Commit, "commit", "", "commit to stay at")
	f.StringVar(&git.SecretRef, "secret", "", "Secret with the credentials")
	f.BoolVar(&git.Insecure, "insecure", false, "send the Secret's password over http://, where everybody on the network path can read it")
	cmd.MarkFlagsMutuallyExclusive("branch", "tag", "semver", "commit")
	if err := cmd.MarkFlagRequired("url"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

func newCreateDir(a *app) *cobra.Command {
	o := &sourceOptions{named: aboutSource(a), spec: &carav1.SourceSpec{Dir: &carav1.DirSource{}}}
	cmd := command(&cobra.Command{
		Use: "dir NAME DIRECTORY", Short: "Create a source from a directory on the server's machine", Args: cobra.ExactArgs(2),
		Example: "  caractrl create source dir local ./deploy",
	}, o)
	o.flags(cmd)
	return cmd
}

func (o *sourceOptions) parse(args []string) (err error) {
	o.name = args[0]
	if api.RefText(o.spec.GetGit().GetRef()) == "HEAD" && o.spec.Git != nil {
		o.spec.Git.Ref = nil
	}
	if o.spec.Dir != nil {
		if o.spec.Dir.Path, err = filepath.Abs(args[1]); err != nil {
			return fmt.Errorf("directory %s: %w", args[1], err)
		}
	}
	if !o.prune {
		o.spec.Prune = &o.prune
	}
	if proto.Equal(o.spec.Compose, &carav1.ComposeOptions{}) {
		o.spec.Compose = nil
	}
	if proto.Equal(o.spec.Allow, &carav1.SourceAllow{}) {
		o.spec.Allow = nil
	}
	return nil
}

func (o *sourceOptions) run(ctx context.Context) error {
	_, err := o.sources().CreateSource(ctx, &carav1.CreateSourceRequest{Source: &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: o.name}, Spec: o.spec,
	}})
	if err == nil {
		o.done("created")
	}
	return err
}

type secretOptions struct {
	*app
	name     string
	literals []string
	files    []string
	typ      string
}

func newCreateSecret(a *app) *cobra.Command {
	o := &secretOptions{app: a}
	cmd := command(&cobra.Command{
		Use: "secret NAME --from-file KEY=FILE...", Short: "Create or replace a secret", Args: cobra.ExactArgs(1),
		Example: "  caractrl create secret shop-db --from-file password=password.txt\n" +
			"  caractrl create secret ghcr --type registry --from-literal server=ghcr.io --from-literal username=ci --from-file password=-",
	}, o)
	f := cmd.Flags()
	f.StringArrayVar(&o.literals, "from-literal", nil, "KEY=VALUE (shells keep a history of what is typed: a file is safer)")
	f.StringArrayVar(&o.files, "from-file", nil, "KEY=FILE, or FILE whose name is the key; - reads standard input")
	f.StringVar(&o.typ, "type", "", "Opaque (default), registry (keys server, username, password) or backup (keys repository, password, credentials)")
	offer(cmd, "type", cobra.FixedCompletions([]string{api.SecretOpaque, api.SecretRegistry, api.SecretBackup, api.SecretTLS, api.SecretBasicAuth}, noFiles))
	return cmd
}

func (o *secretOptions) parse(args []string) error {
	o.name = args[0]
	return nil
}

func (o *secretOptions) run(ctx context.Context) error {
	data, err := o.data()
	if err != nil {
		return err
	}
	s := &carav1.Secret{
		ApiVersion: api.APIVersion, Kind: api.KindSecret, Metadata: &carav1.ObjectMeta{Name: o.name}, Type: o.typ, Data: data,
	}
	refused := false
	err = o.applyAll(ctx, []proto.Message{s}, &carav1.ApplyRequest{}, func(r *carav1.ApplyResult) {
		refused = r.Action == api.ApplyRefused
		o.printResult(r, false)
	})
	if err == nil && refused {
		return term.Exit{Code: 1}
	}
	return err
}

func (o *secretOptions) data() (map[string][]byte, error) {
	data := secretData{}
	for _, l := range o.literals {
		key, value, ok := strings.Cut(l, "=")
		if !ok {
			return nil, errors.New("--from-literal wants KEY=VALUE")
		}
		if err := data.put(key, []byte(value)); err != nil {
			return nil, err
		}
	}
	for _, f := range o.files {
		key, path, ok := strings.Cut(f, "=")
		if !ok {
			key, path = filepath.Base(f), f
		}
		value, err := o.local().File(path)
		if err != nil {
			return nil, err
		}
		if err := data.put(key, value); err != nil {
			return nil, err
		}
	}
	if len(data) == 0 {
		return nil, errors.New("give the content with --from-file KEY=FILE")
	}
	return data, nil
}

// secretData is the content of a Secret, by key.
type secretData map[string][]byte

func (d secretData) put(key string, value []byte) error {
	if _, twice := d[key]; twice || key == "" {
		return fmt.Errorf("key %q is empty or given twice: each value needs a key of its own", key)
	}
	d[key] = value
	return nil
}

type tokenOptions struct {
	*app
	token  *carav1.Token
	length time.Duration
}

func newCreateToken(a *app) *cobra.Command {
	t := &carav1.Token{}
	o := &tokenOptions{app: a, token: t}
	cmd := command(&cobra.Command{
		Use: "token NAME --role ROLE", Short: "Create a token for a person, a pipeline or an agent; it is shown once", Args: cobra.ExactArgs(1),
		Example: "  caractrl create token ci --role deployer --name-prefix shop- --for 720h\n  caractrl create token rack7 --role join --uses 4",
	}, o)
	f := cmd.Flags()
	f.StringVar(&t.Role, "role", api.RoleViewer, "admin, deployer, viewer, or join for agents")
	f.StringVar(&t.NamePrefix, "name-prefix", "", "limits a deployer: only objects whose names begin with this")
	f.StringSliceVar(&t.Hosts, "host", nil, "limits a deployer: hosts that its projects may claim, such as *.example.com (default: those that begin with the name prefix)")
	f.DurationVar(&o.length, "for", 0, "end after this long (default: never; 24h for join)")
	f.Int32Var(&t.UsesLeft, "uses", 0, "how many agents may join with it (default: 10)")
	f.StringSliceVar(&t.NodeNames, "node-name", nil, "names that nodes may join under, such as rack7-* (default: every name)")
	f.StringToStringVar(&t.Labels, "label", nil, "labels of the nodes that join: key=value; a node may choose the part that is *, as in disk=*")
	offer(cmd, "role", cobra.FixedCompletions([]string{api.RoleAdmin, api.RoleDeployer, api.RoleViewer, api.RoleJoin}, noFiles))
	return cmd
}

func (o *tokenOptions) parse(args []string) error {
	o.token.Metadata = &carav1.ObjectMeta{Name: args[0]}
	if o.length > 0 {
		o.token.ExpireAt = timestamppb.New(o.now().Add(o.length))
	}
	return nil
}

func (o *tokenOptions) run(ctx context.Context) error {
	resp, err := carav1.NewTokenServiceClient(o.app).CreateToken(ctx, &carav1.CreateTokenRequest{Token: o.token})
	if err != nil {
		return err
	}
	fmt.Fprintln(o.Out, resp.Secret)
	if t := resp.GetToken(); t.GetRole() == api.RoleJoin {
		fmt.Fprintf(o.Err, "for %s, until %s\n", term.Plural(int(t.GetUsesLeft()), "node"), t.GetExpireAt().AsTime().UTC().Format(time.RFC3339))
	}
	return nil
}
