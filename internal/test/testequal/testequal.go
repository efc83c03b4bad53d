// Package testequal compares an engine with the assignments of its node. Every fault scenario ends with this check: "Docker
// equals the assignments, and nothing else carries our labels".
//
// It compares the last two stages of a push from outside. It uses only projects and labels, and no code of the agent, so
// that both cannot have the same bug.
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

// labelRunHash is the agent's label with the hash of a service without its resources, which can change in a running
// container.
const labelRunHash = "cara.run-hash"

// Node is one engine and its node.
type Node struct {
	Host          string // DOCKER_HOST
	Cluster, Name string
	// Volumes returns all Volume objects of the cluster. If it is nil, every Managed volume of the engine is accepted by its
	// labels.
	Volumes func(context.Context) ([]*carav1.Volume, error)
}

// Await waits until the engine equals the assignments of its node in two checks in a row. Then it returns the container IDs
// by `project.service`. Each check calls assigned for all projects of the cluster. The error has the last differences.
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

// Look is Await with a single check.
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
	known, err := node.known(ctx, held)
	if err != nil {
		return nil, err
	}
	if differ := Differences(node.Name, projects, known, held); len(differ) > 0 {
		return nil, fmt.Errorf("node %s differs:\n  %s", node.Name, strings.Join(differ, "\n  "))
	}
	ids := map[string]string{}
	for _, c := range held.Containers {
		ids[c.Labels[api.LabelProject]+"."+c.Labels[api.LabelService]] = c.ID
	}
	return ids, nil
}

// known returns the Volume objects, or one for each Managed volume of the engine.
func (n Node) known(ctx context.Context, held testdocker.Held) ([]*carav1.Volume, error) {
	if n.Volumes != nil {
		return n.Volumes(ctx)
	}
	var out []*carav1.Volume
	for _, v := range held.Volumes {
		if uid := v.Labels[api.LabelVolumeUID]; uid != "" {
			out = append(out, &carav1.Volume{Metadata: &carav1.ObjectMeta{Name: v.Labels[api.LabelVolume], Uid: uid}})
		}
	}
	return out, nil
}

// Differences returns, in order, what is missing, unexpected or different on a node. Each project of the node must be
// Running, with each service in one container that runs (or has completed), with the right UID, epoch and hash, on the
// project's only network, and with the declared volumes. Or it is Failed, and none of it runs. Each
// Managed volume must have a Volume object, whether a project uses it or not, and the engine must have the data that a Volume
// object says is there.
func Differences(node string, projects []*carav1.Project, volumes []*carav1.Volume, held testdocker.Held) []string {
	d := &differ{held: held, explained: map[string]bool{}}
	for _, p := range projects {
		if p.GetStatus().GetNodeRef() == node {
			d.project(p)
		}
	}
	d.data(node, volumes)
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
	explained map[string]bool // IDs of resources that belong to a project, correct or not
	found     []string
}

func (d *differ) add(format string, args ...any) {
	d.found = append(d.found, fmt.Sprintf(format, args...))
}

// mine returns the resources of one kind that belong to the current assignment of a project.
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
		switch v.GetType() {
		case api.VolumeHost:
		case api.VolumeManaged:
			d.managed(p, v.GetName())
		default:
			declared = append(declared, "cara-"+name+"."+v.GetName())
		}
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

// managed checks that the engine has the data of a project's Managed volume.
func (d *differ) managed(p *carav1.Project, volume string) {
	project, uid := p.GetMetadata().GetName(), api.VolumeUse(p, volume).GetUid()
	if name := "cara-" + project + "." + volume + "-" + uid[:min(8, len(uid))]; d.holder(uid) != name {
		d.add("project %s: the data of volume %s (uid %s) is in the volume %q, want %q", project, volume, uid, d.holder(uid), name)
	}
}

// holder returns the name of the engine's volume with this uid, or an empty string.
func (d *differ) holder(uid string) string {
	for _, v := range d.held.Volumes {
		if uid != "" && v.Labels[api.LabelVolumeUID] == uid {
			return v.Name
		}
	}
	return ""
}

// data compares the engine's Managed volumes with the Volume objects.
func (d *differ) data(node string, volumes []*carav1.Volume) {
	known := map[string]bool{}
	for _, v := range volumes {
		known[v.GetMetadata().GetUid()] = true
		there := v.GetStatus().GetState() == api.VolumeInUse || v.GetStatus().GetState() == api.VolumeRetained
		if there && v.GetStatus().GetMade() && v.GetStatus().GetNode() == node && d.holder(v.GetMetadata().GetUid()) == "" {
			d.add("Volume %s is %s, and the engine does not have its data", v.GetMetadata().GetName(), v.GetStatus().GetState())
		}
	}
	for _, v := range things(d.held) {
		if uid := v.labels[api.LabelVolumeUID]; v.kind == "volume" && uid != "" {
			d.explained[v.id] = true
			if !known[uid] {
				d.add("%s has no Volume object (uid %s)", v, uid)
			}
		}
	}
}

// service checks that a service has exactly one container, and compares it.
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

// hashes returns the hash of a service in the server's spec, with and without its resources.
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

// networks returns the networks of a container: IDs by name.
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
