package kind

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ingress shows where the requests for a project's hosts and paths go, as the spec says it.
func (p Page) ingress(rules []*carav1.Ingress) {
	if len(rules) == 0 {
		return
	}
	p.section("Ingress")
	var rows [][]term.Cell
	for _, in := range rules {
		rows = append(rows, []term.Cell{
			term.Text(in.GetName()), term.Text(in.GetHost()), term.Text(api.IngressPath(in.GetPath())),
			term.Text(destination(in.GetTarget().GetService(), in.GetTarget().GetPort(), in.GetRedirect())), term.Text(allowed(in.GetAccess().GetAllow())),
		})
	}
	p.table([]string{"NAME", "HOST", "PATH", "TO", "ALLOWED"}, rows)
}

// allowed formats from where clients can use a rule.
func allowed(networks []string) string {
	if len(networks) > 0 {
		return term.Short(strings.Join(networks, ","), 100)
	}
	return "all"
}

// destination formats where an ingress rule leads: `web:8080`, or `308 https://www.example.com`.
func destination(service string, port int32, redirect *carav1.IngressRedirect) string {
	if redirect != nil {
		return fmt.Sprintf("%d %s", cmp.Or(redirect.GetCode(), api.DefaultRedirectCode), term.Short(redirect.GetTo(), 100))
	}
	return fmt.Sprintf("%s:%d", service, port)
}
