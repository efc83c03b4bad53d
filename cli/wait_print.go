package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// printURLs ends a successful wait with the URLs of the projects: the last line of a script's output is a URL and nothing else.
func (a *app) printURLs(w *waiting) {
	for _, name := range slices.Sorted(maps.Keys(w.last)) {
		p := w.last[name]
		a.printBut(p, api.CondIngressReady)
		for _, host := range kind.WithoutCertificate(p) {
			fmt.Fprintf(a.Err, "project/%s runs, but %s has no certificate yet\n", term.Line(name), term.Line(host))
		}
		for _, url := range kind.BareURLs(p, w.urls) {
			fmt.Fprintln(a.Out, term.Line(url))
		}
	}
}

// printBut prints why a project that runs cannot be used everywhere, if the condition says so.
func (a *app) printBut(p *carav1.Project, condition string) {
	if c := api.FindCondition(p.GetStatus().GetConditions(), condition); c.GetStatus() == api.StatusFalse {
		fmt.Fprintln(a.Err, "project/"+term.Line(p.GetMetadata().GetName()), "runs, but:", term.Line(c.GetMessage()))
	}
}

// printPorts prints the addresses where the ports of projects are open, and why one is not.
func (a *app) printPorts(ctx context.Context, projects map[string]*carav1.Project) error {
	var with []*carav1.Project
	for _, name := range slices.Sorted(maps.Keys(projects)) {
		if p := projects[name]; len(p.GetSpec().GetPorts()) > 0 {
			with = append(with, p)
		}
	}
	if len(with) == 0 {
		return nil
	}
	conn, err := a.dial()
	if err != nil {
		return err
	}
	nodes, err := carav1.NewNodeServiceClient(conn).ListNodes(ctx, &carav1.ListRequest{})
	if api.Code(err) == codes.PermissionDenied {
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range with {
		for _, at := range kind.OpenPorts(p, nodes.GetItems()) {
			fmt.Fprintln(a.Out, term.Line(at))
		}
		a.printBut(p, api.CondPortsReady)
	}
	return nil
}
