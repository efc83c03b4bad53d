package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/cli/kind"
)

type describeOptions struct {
	*app
	objects []kind.Ref
}

func newDescribe(a *app) *cobra.Command {
	return command(&cobra.Command{
		Use: "describe KIND NAME... | describe KIND/NAME...", Short: "Show objects in full, with what happened to them",
		Long:              "Show projects, nodes, sources, volumes or tokens in full: what they are, what limits them, their conditions, and what happened to them.",
		Example:           "  caractrl describe project web\n  caractrl describe source/platform\n  caractrl describe volume shop.db",
		ValidArgsFunction: completion{a}.refs(func(k kind.Kind) bool { return k.Describe != nil }),
	}, &describeOptions{app: a})
}

func (o *describeOptions) parse(args []string) (err error) {
	if o.objects, err = kind.ParseRefs(args); err != nil {
		return err
	}
	for _, r := range o.objects {
		switch {
		case r.Kind.Describe == nil:
			return fmt.Errorf("%s cannot be described: get %s shows all there is", r.Kind.Plural, r.Kind.Plural)
		case r.Name == "":
			return fmt.Errorf("name the object: describe %s NAME", r.Kind.Lower())
		}
	}
	return nil
}

func (o *describeOptions) run(ctx context.Context) error {
	conn, err := o.dial()
	if err != nil {
		return err
	}
	for i, r := range o.objects {
		if i > 0 {
			fmt.Fprintln(o.Out)
		}
		if err := (kind.Page{Out: o.Out, Now: o.now(), Conn: conn}).Describe(ctx, r); err != nil {
			return err
		}
	}
	return nil
}
