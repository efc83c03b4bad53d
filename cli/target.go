package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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
	offer(cmd, "service", completion{o.app}.serviceFlag)
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
	offer(cmd, "service", completion{o.app}.serviceFlag)
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
	var names []string
	for _, s := range p.GetSpec().GetServices() {
		names = append(names, s.GetName())
	}
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
