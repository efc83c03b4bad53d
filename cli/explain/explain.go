// Package explain is the command `caractrl explain`: it says what the fields of a manifest mean. It reads the JSON Schemas
// that are generated from the API definition, so it needs no server.
package explain

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/cli/kind"
)

type options struct {
	out       io.Writer
	recursive bool
	schema    bool
}

// Command returns the command. It prints to out.
func Command(out io.Writer) *cobra.Command {
	o := &options{out: out}
	cmd := &cobra.Command{
		Use: "explain [KIND[.FIELD...]]", Short: "Show the fields of a manifest and what they mean",
		Long: "Show the fields of a manifest and what they mean: types, defaults, limits and allowed values. It needs no server.\n" +
			"The kinds are " + strings.Join(kinds(), ", ") + ". --schema prints the JSON Schema, for editors and validators.",
		Example: "  caractrl explain project.spec.ingress\n  caractrl explain project.spec.services --recursive\n" +
			"  caractrl explain source --schema > source.schema.json",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: complete,
		RunE: func(_ *cobra.Command, args []string) error {
			return o.run(append(args, "")[0])
		},
	}
	cmd.Flags().BoolVar(&o.recursive, "recursive", false, "show all fields below, too, with their types only")
	cmd.Flags().BoolVar(&o.schema, "schema", false, "print the JSON Schema of the kind, or of all kinds")
	cmd.MarkFlagsMutuallyExclusive("recursive", "schema")
	return cmd
}

func (o *options) run(path string) error {
	if path == "" {
		return o.all()
	}
	steps := split(path)
	name, err := kindName(steps[0])
	if err != nil {
		return err
	}
	if o.schema {
		if len(steps) > 1 {
			return fmt.Errorf("a schema is for a kind: caractrl explain %s --schema", name)
		}
		return o.print(name)
	}
	root, err := read(name)
	if err != nil {
		return err
	}
	f, err := find(root, name, steps[1:])
	if err != nil {
		return err
	}
	page{o.out}.field(root.Title, strings.Join(steps[1:], "."), f, o.recursive)
	return nil
}

// all lists the kinds.
func (o *options) all() error {
	if o.schema {
		return o.print("manifest")
	}
	for _, name := range kinds() {
		f, err := read(name)
		if err != nil {
			return err
		}
		fmt.Fprintln(o.out, name)
		page{o.out}.text(f.Description, "    ")
	}
	return nil
}

func (o *options) print(name string) error {
	text, err := schemaOf(name)
	if err == nil {
		_, err = o.out.Write(text)
	}
	return err
}

// kindName returns the kind that a word such as `projects` or `Project` means.
func kindName(word string) (string, error) {
	k, err := kind.Find(word)
	if err == nil && slices.Contains(kinds(), k.Lower()) {
		return k.Lower(), nil
	}
	return "", fmt.Errorf("there is no manifest of the kind %q; the kinds are %s", word, strings.Join(kinds(), ", "))
}

// complete completes a path by one step.
func complete(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	const more = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	dot := strings.LastIndexByte(prefix, '.')
	if dot < 0 {
		return starting(kinds(), "", prefix), more
	}
	steps := split(prefix[:dot])
	name, err := kindName(steps[0])
	if err != nil {
		return nil, more
	}
	f, err := read(name)
	if err == nil {
		f, err = find(f, name, steps[1:])
	}
	if err != nil {
		return nil, more
	}
	return starting(f.below().names(), prefix[:dot+1], prefix), more
}

// starting returns the names after the path that start with prefix.
func starting(names []string, path, prefix string) (out []string) {
	for _, n := range names {
		if strings.HasPrefix(path+n, prefix) {
			out = append(out, path+n)
		}
	}
	return out
}
