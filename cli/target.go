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

// target is a service of a project, as a command line names it. The service is empty where it names none.
type target struct{ project, service string }

// serviceFlag is how commands about one service let it be named, apart from project/NAME/SERVICE.
func (a *app) serviceFlag(cmd *cobra.Command, service *string, usage string) {
	cmd.Flags().StringVarP(service, "service", "s", "", usage)
	offer(cmd, "service", a.completeServiceFlag)
}

// parseTarget takes `shop`, `project/shop`, `shop/web` and `project/shop/web`, and what --service says.
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
		return target{}, fmt.Errorf("%q names the service %s, and --service names %s: say one", arg, t.service, service)
	}
	t.service = cmp.Or(t.service, service)
	return t, nil
}

// resolve fills in the only service there is, and refuses one that there is not.
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
