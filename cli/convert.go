package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	"github.com/caravanserai/cara/manifest"
	"github.com/caravanserai/cara/manifest/compose"
)

type convertOptions struct {
	*app
	from  compose.Options
	dir   string
	lossy bool
}

func newConvert(a *app) *cobra.Command {
	o := &convertOptions{app: a}
	cmd := command(&cobra.Command{
		Use: "convert [COMPOSE-FILE... | DIRECTORY]", Short: "Convert Compose files to a manifest",
		Long: `Convert Compose files to the manifest of a project. Without a file, the Compose file of the current directory is used, or
that of the directory.

Variables come from the environment and from the file .env, as for docker compose. Values that look like passwords become a Secret
in a file of its own, which must not be committed. Every key without an equivalent is an error with its line, and says what to do
instead. With --lossy, keys that the project can run without are left out. docs/compose.md lists all keys.

With -o DIR, the manifest refers to files in DIR and below, such as ./nginx.conf: keep them together. Other files become part of
the manifest.

No data is copied: volumes are empty at first.`,
		Example: "  caractrl convert -o .\n  caractrl convert compose.yaml compose.prod.yaml -o deploy/ --lossy\n  caractrl convert compose.yaml --name shop >shop.yaml",
	}, o)
	f := cmd.Flags()
	f.StringVarP(&o.dir, "output-dir", "o", "", "directory for the manifest and the Secret (default: the manifest goes to standard output)")
	f.BoolVar(&o.lossy, "lossy", false, "leave out what has no equivalent, if the project can run without it")
	f.StringVar(&o.from.Name, "name", "", "name of the project (default: the name in the files, or of their directory)")
	f.StringSliceVar(&o.from.Profiles, "profile", nil, "profiles to enable")
	f.StringArrayVar(&o.from.EnvFiles, "env-file", nil, "files with variables (default: .env)")
	return cmd
}

func (o *convertOptions) parse(args []string) error {
	o.from.Files, o.from.Environ, o.from.ManifestDir = args, os.Environ(), o.dir
	if o.from.Name != "" && !api.IsName(o.from.Name) {
		return fmt.Errorf("--name %q is no name of a project: use lower-case letters, digits and hyphens", o.from.Name)
	}
	return nil
}

func (o *convertOptions) run(ctx context.Context) error {
	r, err := compose.Convert(ctx, o.from)
	if err != nil {
		return err
	}
	errs := o.report(r.Findings)
	if errs > 0 {
		hint := ""
		if r.Worst() == compose.Loss {
			hint = ". With --lossy, the project is written without " + map[bool]string{true: "it", false: "them"}[errs == 1]
		}
		return term.Exit{Code: 1, Message: "nothing is written: " + term.Plural(errs, "key") + " cannot be converted" + hint}
	}
	text, err := manifest.Encode(r.Project)
	if err != nil {
		return err
	}
	if o.dir == "" {
		if n := len(r.Secret.GetStringData()) + len(r.Secret.GetData()); n > 0 {
			fmt.Fprintf(o.Err, "note: %s in the Secret %s; write it with -o DIR\n", are(term.Plural(n, "value"), n), r.Secret.GetMetadata().GetName())
		}
		_, err := o.Out.Write(text)
		return err
	}
	return o.write(r, text)
}

func are(what string, n int) string {
	if n == 1 {
		return what + " is"
	}
	return what + " are"
}

// report prints the findings and returns how many of them prevent the conversion.
func (o *convertOptions) report(findings []compose.Finding) (errs int) {
	t := term.NewTable(o.Err)
	for _, f := range findings {
		label := term.Cell{Text: "note"}
		switch {
		case f.Severity == compose.Refusal, f.Severity == compose.Loss && !o.lossy:
			errs++
			label = term.Cell{Text: "error", Colour: term.Red}
		case f.Severity == compose.Loss:
			label = term.Cell{Text: "warning", Colour: term.Yellow}
		}
		t.Print([]term.Cell{
			{Text: fmt.Sprintf("%s:%d:%d", term.Line(f.File), f.Line, f.Column)},
			label,
			{Text: term.Line(f.Key + ": " + f.Message)},
		})
	}
	return errs
}

// write writes the manifest and the Secret. It replaces no file.
func (o *convertOptions) write(r *compose.Result, text []byte) error {
	name := r.Project.GetMetadata().GetName()
	project := filepath.Join(o.dir, name+".yaml")
	files := []output{{project, text, 0o644}}
	if r.Secret != nil {
		secret, err := manifest.Encode(proto.Message(r.Secret))
		if err != nil {
			return err
		}
		files = append(files, output{filepath.Join(o.dir, r.Secret.GetMetadata().GetName()+".yaml"), secret, 0o600})
	}
	for _, f := range files {
		if _, err := os.Lstat(f.name); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s exists: remove it, or choose another directory", f.name)
		}
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil { //nolint:gosec // manifests are not secret
		return err
	}
	for _, f := range files {
		if err := renameio.WriteFile(f.name, f.data, f.mode, renameio.WithStaticPermissions(f.mode)); err != nil {
			return fmt.Errorf("write %s: %w", f.name, err)
		}
		fmt.Fprintf(o.Out, "%s written\n", term.Clean(f.name))
	}
	if len(files) > 1 {
		fmt.Fprintf(o.Err, "Do not commit %s. Apply it by hand: caractrl apply -f %s\n", term.Clean(files[1].name), term.Clean(files[1].name))
	}
	fmt.Fprintf(o.Err, "Commit %s to a source, or apply it: caractrl apply -f %s\n", term.Clean(project), term.Clean(project))
	return nil
}

type output struct {
	name string
	data []byte
	mode fs.FileMode
}
