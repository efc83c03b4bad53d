// Package testequal says in which points an engine differs from what is assigned to its node: the sentence that every
// fault scenario ends in, "Docker equals the assignments, and nothing else carries our labels".
//
// It stands outside the line from a git push to a running container and compares its last two stations. It knows
// projects and labels only, and nothing of how an agent decides, so that both cannot be wrong in the same way.
package testequal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
)

// labelRunHash is the agent's own: the hash of a service without its resources, which can change under a container.
const labelRunHash = "cara.run-hash"

// Node is one engine and whose it is.
type Node struct {
	Host          string // DOCKER_HOST
	Cluster, Name string
}

// Await waits until the engine equals what is assigned to its node, and goes on to do so at a second look; then it returns
// the ids of the containers by `project.service`. assigned is asked again each time for all projects of the cluster. The
// error says in which points they differed last.
func Await(ctx context.Context, node Node, assigned func(context.Context) ([]*carav1.Project, error)) (map[string]string, error) {
	last := errors.New("never looked")
	for equal := 0; ; {
		ids, err := Look(ctx, node, assigned)
		if err == nil {
			if equal++; equal == 2 {
				return ids, nil
			}
		} else if equal = 0; ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait until engine %s equals the assignments: %w; last: %w", node.Host, ctx.Err(), last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Look is Await without waiting.
func Look(ctx context.Context, node Node, assigned func(context.Context) ([]*carav1.Project, error)) (map[string]string, error) {
	projects, err := assigned(ctx)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{api.LabelCluster: node.Cluster, api.LabelNode: node.Name}
	held, err := testdocker.List(ctx, node.Host, labels)
	if err != nil {
		return nil, err
	}
	if differ := Differences(node.Name, projects, held); len(differ) > 0 {
		return nil, fmt.Errorf("node %s differs:\n  %s", node.Name, strings.Join(differ, "\n  "))
	}
	ids := map[string]string{}
	for _, c := range held.Containers {
		ids[c.Labels[api.LabelProject]+"."+c.Labels[api.LabelService]] = c.ID
	}
	return ids, nil
}

// Differences lists, in order, what there is too much, too little or otherwise than it should be on a node. A project of
// it is Running, with each service in one container that runs (or has ended as it should), of the right uid, epoch and
// hash and on the project's one network, and with the volumes that it declares; or it is Failed, and nothing of it runs.
func Differences(node string, projects []*carav1.Project, held testdocker.Held) []string {
	d := &differ{held: held, explained: map[string]bool{}}
	for _, p := range projects {
		if p.GetStatus().GetNodeRef() == node {
			d.project(p)
		}
	}
	for _, resource := range things(held) {
		if !d.explained[resource.id] {
			d.add("%s is nobody's (uid %s, epoch %s)", resource, resource.labels[api.LabelUID], resource.labels[api.LabelEpoch])
		}
	}
	return d.found
}

// resource is a container, network or volume of the engine.
type resource struct {
	kind, id, name string
	labels         map[string]string
}

func (t resource) String() string { return t.kind + " " + t.name }

func things(held testdocker.Held) []resource {
	var out []resource
	for i, c := range held.Containers {
		out = append(out, resource{"container", c.ID, testdocker.Held{Containers: held.Containers[i : i+1]}.Names()[0], c.Labels})
	}
	for _, n := range held.Networks {
		out = append(out, resource{"network", n.ID, n.Name, n.Labels})
	}
	for _, v := range held.Volumes {
		out = append(out, resource{"volume", "volume " + v.Name, v.Name, v.Labels})
	}
	return out
}

type differ struct {
	held      testdocker.Held
	explained map[string]bool // things that belong to a project, right or not, by id
	found     []string
}

func (d *differ) add(format string, args ...any) {
	d.found = append(d.found, fmt.Sprintf(format, args...))
}

// mine are the things of one kind that were made for this very assignment of a project.
func (d *differ) mine(p *carav1.Project, kind string) []resource {
	return slices.DeleteFunc(things(d.held), func(t resource) bool {
		return t.kind != kind || t.labels[api.LabelProject] != p.GetMetadata().GetName() || t.labels[api.LabelUID] != p.GetMetadata().GetUid() ||
			t.labels[api.LabelEpoch] != strconv.Itoa(int(p.GetStatus().GetEpoch()))
	})
}

func (d *differ) project(p *carav1.Project) {
	name, phase := p.GetMetadata().GetName(), p.GetStatus().GetPhase()
	containers, networks, volumes := d.mine(p, "container"), d.mine(p, "network"), d.mine(p, "volume")
	for _, t := range slices.Concat(containers, networks, volumes) {
		d.explained[t.id] = true
	}
	switch phase {
	case api.PhaseRunning:
	case api.PhaseFailed:
		for _, c := range containers {
			if state := d.state(c.id); state == "running" {
				d.add("%s runs though project %s is Failed", c, name)
			}
		}
		return
	default:
		d.add("project %s is %s", name, phase)
		return
	}
	if got, want := p.GetStatus().GetObservedGeneration(), p.GetMetadata().GetGeneration(); got != want {
		d.add("project %s: generation %d is observed, want %d", name, got, want)
	}
	if len(networks) != 1 || networks[0].name != "cara-"+name {
		d.add("project %s has the networks %v, want cara-%s alone", name, networks, name)
		return
	}
	var declared, there []string
	for _, v := range p.GetSpec().GetVolumes() {
		declared = append(declared, "cara-"+name+"."+v.GetName())
	}
	for _, v := range volumes {
		there = append(there, v.name)
	}
	if slices.Sort(declared); !slices.Equal(declared, slices.Sorted(slices.Values(there))) {
		d.add("project %s has the volumes %v, want %v", name, there, declared)
	}
	for _, svc := range p.GetSpec().GetServices() {
		d.service(p, svc, networks[0], slices.DeleteFunc(slices.Clone(containers), func(c resource) bool {
			return c.labels[api.LabelService] != svc.GetName()
		}))
		containers = slices.DeleteFunc(containers, func(c resource) bool { return c.labels[api.LabelService] == svc.GetName() })
	}
	for _, c := range containers {
		d.add("%s is of service %q, which project %s does not have", c, c.labels[api.LabelService], name)
	}
}

// service compares the containers of one service: there must be one.
func (d *differ) service(p *carav1.Project, svc *carav1.Service, network resource, containers []resource) {
	at := p.GetMetadata().GetName() + "." + svc.GetName()
	if len(containers) != 1 {
		d.add("service %s has the containers %v, want one", at, containers)
		return
	}
	c := containers[0]
	if hash, run := hashes(p.GetSpec(), svc.GetName()); c.labels[api.LabelSpecHash] != hash && c.labels[labelRunHash] != run {
		d.add("service %s: the container's hash is %s, want %s", at, c.labels[api.LabelSpecHash], hash)
	}
	oneShot := svc.GetRestartPolicy() == api.RestartNever || svc.GetRestartPolicy() == api.RestartOnFailure
	switch state := d.state(c.id); {
	case state == "exited" && oneShot:
		return
	case state != "running":
		d.add("service %s: the container is %s", at, state)
		return
	}
	if on := d.networks(c.id); on[network.name] != network.id {
		d.add("service %s: the container is on the networks %v, want %s (%.12s)", at, slices.Sorted(maps.Keys(on)), network.name, network.id)
	}
}

// hashes of a service as the server's spec has it, and of it without its resources.
func hashes(spec *carav1.ProjectSpec, service string) (whole, run string) {
	bare := proto.CloneOf(spec)
	for _, s := range bare.GetServices() {
		s.Resources = nil
	}
	return api.ServiceHash(spec, service), api.ServiceHash(bare, service)
}

func (d *differ) state(id string) string {
	for _, c := range d.held.Containers {
		if c.ID == id {
			return string(c.State)
		}
	}
	return "gone"
}

// networks that a container is on: ids by name.
func (d *differ) networks(id string) map[string]string {
	out := map[string]string{}
	for _, c := range d.held.Containers {
		if c.ID != id || c.NetworkSettings == nil {
			continue
		}
		for name, n := range c.NetworkSettings.Networks {
			out[name] = n.NetworkID
		}
	}
	return out
}
