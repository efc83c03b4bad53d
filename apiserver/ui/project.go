package ui

import (
	"context"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// project is everything about one project.
type project struct {
	*carav1.Project
	Reason, Message string
	Services        []service
	Moments         []moment
	Band            *band
	History         []*carav1.Revision
	Volumes         []*carav1.Volume
	Override        *carav1.Override
	Origin          origin
	Path            []stop
	Actions         []offer
	Shell           bool   // the person may open one
	Ingress         string // where the node serves the hosts by name; empty if it does not
	Plots           bool   // the person may see them
}

// service is a service of the spec beside its status.
type service struct {
	*carav1.Service
	Status *carav1.ServiceStatus
}

func (vs views) project(ctx context.Context, r request) (view, error) {
	name := r.name
	p, err := vs.api.projects.GetProject(ctx, &carav1.GetRequest{Name: name})
	if api.IsNotFound(err) {
		return vs.gone(ctx, name, err)
	}
	if err != nil {
		return view{}, err
	}
	out := &project{Project: p, Services: servicesOf(p), Actions: vs.offers(r.actor, p), Shell: placed(p) && vs.may(r.actor, carav1.ProjectService_Exec_FullMethodName, name)}
	out.Plots = p.GetStatus().GetNodeRef() != "" && vs.may(r.actor, carav1.ProjectService_GetUsageHistory_FullMethodName, name)
	out.Reason, out.Message = api.Telling(p)
	if err := vs.fill(ctx, out, name); err != nil {
		return view{}, err
	}
	return view{
		title: name, nav: "projects", template: "project", data: out, name: name, source: out.Origin.Source.GetMetadata().GetName(),
		kinds: []string{api.KindProject, api.KindEvent, api.KindOverride, api.KindVolume, api.KindNode, api.KindSource, api.KindClaim},
	}, nil
}

// fill adds what other services know about the project.
func (vs views) fill(ctx context.Context, out *project, name string) error {
	history, err := vs.api.projects.GetProjectHistory(ctx, &carav1.GetRequest{Name: name})
	if api.IsNotFound(err) {
		err = nil
	}
	events := get(ctx, &err, vs.api.events.ListEvents, &carav1.ListEventsRequest{Kind: api.KindProject, Name: name, NewestFirst: true})
	volumes := get(ctx, &err, vs.api.volumes.ListVolumes, &carav1.ListVolumesRequest{Project: name})
	overrides := get(ctx, &err, vs.api.projects.ListOverrides, &carav1.ListOverridesRequest{Project: name})
	if err != nil {
		return err
	}
	out.History, out.Volumes = history.GetItems(), volumes.GetItems()
	if len(overrides.GetItems()) > 0 {
		out.Override = overrides.GetItems()[0]
	}
	out.Moments = timeline(out.Project, events.GetItems(), out.History, out.Override)
	out.Band = bandOf(out.Project, out.Moments, time.Now())
	return vs.fillPath(ctx, out)
}

// fillPath adds how the project came from git to its containers.
func (vs views) fillPath(ctx context.Context, out *project) (err error) {
	if out.Origin, err = vs.originOf(ctx, out.Project); err != nil {
		return err
	}
	var n *carav1.Node
	if at := out.GetStatus().GetNodeRef(); at != "" {
		if n, err = vs.api.nodes.GetNode(ctx, &carav1.GetRequest{Name: at}); err != nil && !api.IsNotFound(err) {
			return err
		}
	}
	out.Path, out.Ingress = pathOf(out.Project, out.Origin, n), n.GetStatus().GetInfo().GetIngressAddress()
	return nil
}

// gone shows why a project does not exist any more, if its tombstone is still there.
func (vs views) gone(ctx context.Context, name string, missing error) (view, error) {
	stones, err := vs.api.projects.ListTombstones(ctx, &carav1.ListRequest{})
	if err != nil {
		return view{}, err
	}
	i := slices.IndexFunc(stones.GetItems(), func(t *carav1.Tombstone) bool { return t.GetMetadata().GetName() == name })
	if i < 0 {
		return view{}, missing
	}
	return view{
		title: name, nav: "projects", template: "gone", data: stones.GetItems()[i], name: name,
		kinds: []string{api.KindProject, api.KindTombstone},
	}, nil
}

// servicesOf returns the services of the spec, each with its status.
func servicesOf(p *carav1.Project) []service {
	status := map[string]*carav1.ServiceStatus{}
	for _, s := range p.GetStatus().GetServices() {
		status[s.GetName()] = s
	}
	out := make([]service, len(p.GetSpec().GetServices()))
	for i, s := range p.GetSpec().GetServices() {
		out[i] = service{s, status[s.GetName()]}
	}
	return out
}

// hostURL returns the address of a host, for a link; "" if it is not the name of a host.
func hostURL(p *carav1.Project, host string) string {
	if len(validation.IsDNS1123Subdomain(host)) > 0 {
		return ""
	}
	for _, in := range p.GetSpec().GetIngress() {
		if api.Public(in) && (in.GetHost() == host || strings.HasPrefix(host, in.GetHost()+".")) {
			return "https://" + host + "/"
		}
	}
	return "http://" + host + "/"
}
