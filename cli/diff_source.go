package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// declaration is what a source declares, beside what there is.
type declaration struct {
	source    *carav1.Source
	claims    []*carav1.Claim
	live      map[string]*carav1.Project // those that it declares, and those that it owns
	overrides map[string]*carav1.Override
}

// difference is one project that is not as its source declares it.
type difference struct {
	project string
	// what would become of it, or why that does not happen.
	what string
	diff []*carav1.FieldDiff
	// blocked is why the source may not prune it: the same for all that it would prune.
	blocked string
	// unknown is true where the source does not say: its file is broken.
	unknown bool
}

// diffSource shows how the cluster differs from what a source declares, and returns the exit code.
func (a *app) diffSource(ctx context.Context, name string) (int, error) {
	d, err := a.declaration(ctx, name)
	if err != nil {
		return 0, err
	}
	code := 0
	for _, trouble := range d.troubles() {
		fmt.Fprintf(a.Err, "source/%s: %s\n", clean(name), line(trouble))
		code = exitNoDiff
	}
	if d.source.GetSpec().GetSuspend() {
		fmt.Fprintf(a.Err, "source/%s is suspended: nothing of this happens before caractrl resume %s\n", clean(name), clean(name))
	}
	blocked := ""
	for _, x := range d.differences(a.now()) {
		if x.blocked != "" {
			blocked = x.blocked
		}
		if x.unknown {
			code = exitNoDiff
			fmt.Fprintf(a.Err, "project/%s %s\n", line(x.project), line(x.what))
			continue
		}
		code = max(code, exitDiffers)
		fmt.Fprintf(a.Out, "project/%s %s\n", line(x.project), line(x.what))
		a.printFieldDiffs(x.diff)
	}
	if blocked != "" {
		fmt.Fprintf(a.Err, "source/%s: the prune is blocked: %s\n", clean(name), line(blocked))
	}
	return code, nil
}

// declaration asks for all that a source's diff is made of.
func (a *app) declaration(ctx context.Context, name string) (*declaration, error) {
	sources, err := a.sources()
	if err != nil {
		return nil, err
	}
	projects, err := a.projects()
	if err != nil {
		return nil, err
	}
	d := &declaration{live: map[string]*carav1.Project{}, overrides: map[string]*carav1.Override{}}
	if d.source, err = sources.GetSource(ctx, byName(name)); err != nil {
		return nil, err
	}
	claims, err := sources.ListClaims(ctx, &carav1.ListClaimsRequest{Source: name})
	if err != nil {
		return nil, err
	}
	d.claims = claims.GetItems()
	overrides, err := projects.ListOverrides(ctx, &carav1.ListRequest{})
	if err != nil {
		return nil, err
	}
	for _, o := range overrides.GetItems() {
		d.overrides[o.GetMetadata().GetName()] = o
	}
	owned, err := projects.ListProjects(ctx, &carav1.ListProjectsRequest{Owner: api.PrefixSource + name})
	if err != nil {
		return nil, err
	}
	for _, p := range owned.GetItems() {
		d.live[p.GetMetadata().GetName()] = p
	}
	for _, c := range d.claims { // those of others have to be asked for by name
		name := claimed(c)
		if d.live[name] != nil || !c.GetSpec().GetPresent() {
			continue
		}
		p, err := projects.GetProject(ctx, byName(name))
		switch {
		case err == nil:
			d.live[name] = p
		case !api.IsNotFound(err):
			return nil, err
		}
	}
	return d, nil
}

func claimed(c *carav1.Claim) string { return c.GetSpec().GetProject().GetMetadata().GetName() }

// troubles are why it is not known what the source declares now.
func (d *declaration) troubles() []string {
	st := d.source.GetStatus()
	if st.GetSnapshot() == nil {
		return []string{"it has not been read yet"}
	}
	var out []string
	if c := api.FindCondition(st.GetConditions(), api.CondFetchFailed); c.GetStatus() == api.StatusTrue {
		out = append(out, fmt.Sprintf("it cannot be read, what follows is of %s: %s", api.ShortRevision(st.GetSnapshot().GetRevision()), c.GetMessage()))
	}
	for _, p := range st.GetSnapshot().GetFileErrors() {
		out = append(out, manifest.Format(p))
	}
	return out
}

// differences are in the order of the projects' names.
func (d *declaration) differences(now time.Time) []difference {
	var out []difference
	add := func(name string, x difference) {
		if x.what != "" {
			x.project = name
			out = append(out, x)
		}
	}
	known := map[string]bool{}
	for _, c := range d.claims {
		name := claimed(c)
		known[name] = true
		if c.GetSpec().GetPresent() {
			add(name, d.declared(c, d.live[name], now))
		} else {
			add(name, d.left(c, d.live[name], now))
		}
	}
	for name, p := range d.live {
		if !known[name] && !api.GoingAway(p) {
			add(name, difference{what: "is kept: the source owns it and never declared it"})
		}
	}
	slices.SortFunc(out, func(x, y difference) int { return strings.Compare(x.project, y.project) })
	return out
}

// standing is the override that keeps git from having its way with a project, or nil.
func (d *declaration) standing(c *carav1.Claim, now time.Time) *carav1.Override {
	o := d.overrides[claimed(c)]
	switch {
	case o == nil, o.GetScope() == api.OverrideExpiry, o.GetUntil() != nil && !o.GetUntil().AsTime().After(now):
		return nil
	case o.GetUntilHash() != "" && o.GetUntilHash() != c.GetSpec().GetHash():
		return nil
	}
	return o
}

func overridden(o *carav1.Override, now time.Time, would string) string {
	how := "overridden"
	if o.GetScope() == api.OverrideDeletion {
		how = "held down"
	}
	return fmt.Sprintf("is %s by %s %s: %s; git would %s it", how, o.GetActor(), untilWhen(now, o), o.GetReason(), would)
}
