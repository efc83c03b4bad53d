package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
)

// target is a service of a project, as a command line names it. The service is empty where it names none.
type target struct{ project, service string }

// parseTarget takes `shop`, `project/shop`, `shop/web` and `project/shop/web`.
func parseTarget(arg string) (target, error) {
	parts := strings.Split(arg, "/")
	if k, err := findKind(parts[0]); err == nil && k.name == api.KindProject && len(parts) > 1 {
		parts = parts[1:]
	}
	if len(parts) > 2 || slices.Contains(parts, "") {
		return target{}, fmt.Errorf("%q is no service of a project: write project/NAME, or project/NAME/SERVICE", arg)
	}
	return target{parts[0], strings.Join(parts[1:], "")}, nil
}
