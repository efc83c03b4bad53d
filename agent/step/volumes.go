package step

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// How Step handles volumes that outlive a project. Invariants:
//
//   - A Managed volume belongs to no assignment: it has no label of a project, so nothing that removes an assignment's objects
//     sees it. Step creates Managed volumes and never removes one.
//   - The uid of a Managed volume identifies its data and is part of the volume's name in the engine. A volume with another
//     uid is never mounted.
//   - Once a volume was made, an engine without it means that data is lost. Then the project fails and is never started on an
//     empty volume. Both the server and the agent's own record know that a volume was made. The record is on disk before a
//     container that mounts the volume is created.
//   - A Host volume is mounted only if the node offers it to the project, and only while its path exists.

// HostVolume is a path of this node that its operator offers to projects.
type HostVolume struct {
	Offer *carav1.HostVolume
	// Path without symbolic links.
	Path string
	// Socket is true if the path is a socket. Otherwise it is a directory.
	Socket bool
}

// Storage is where the volumes of a project are: what the server and the node say about them.
type Storage struct {
	// The assignment whose volumes they are.
	Assigned
	// Uses are the project's Managed volumes and Hosts its Host volumes that the node offers to it, by name in the manifest.
	Uses  map[string]*carav1.VolumeUse
	Hosts map[string]HostVolume
	// OwnedBy is the project's owner.
	OwnedBy string
}

func newStorage(n Node, p *carav1.Project, spec *carav1.ProjectSpec) Storage {
	of := Assigned{Cluster: n.Cluster, Node: n.Name, Project: p.GetMetadata().GetName(), UID: p.GetMetadata().GetUid(), Epoch: p.GetStatus().GetEpoch()}
	d := Storage{Assigned: of, OwnedBy: p.GetMetadata().GetOwner(), Uses: map[string]*carav1.VolumeUse{}, Hosts: map[string]HostVolume{}}
	for _, v := range api.ManagedVolumes(spec) {
		if use := api.VolumeUse(p, v.GetName()); use.GetUid() != "" {
			d.Uses[v.GetName()] = use
		}
	}
	for _, v := range api.HostVolumes(spec) {
		for _, h := range n.HostVolumes {
			if api.OfferedTo([]*carav1.HostVolume{h.Offer}, v.GetHost(), d.Project) != nil {
				d.Hosts[v.GetName()] = h
			}
		}
	}
	return d
}

// notOffered returns an error for each Host volume that the node does not offer to the project. The scheduler places no such
// project here.
func (d *Storage) notOffered(spec *carav1.ProjectSpec) []*carav1.FieldError {
	var out []*carav1.FieldError
	for i, v := range spec.GetVolumes() {
		if _, offered := d.Hosts[v.GetName()]; offered || v.GetType() != api.VolumeHost {
			continue
		}
		out = append(out, &carav1.FieldError{Field: fmt.Sprintf("spec.volumes[%d].host", i), Message: fmt.Sprintf(
			"node %s does not offer the host volume %q to project %s; its operator can, with cara-agent --host-volume", d.Node, v.GetHost(), d.Project)})
	}
	return out
}

// source returns what a mount of one of the project's volumes shows.
func (d *Storage) source(volume string) engine.Source {
	if h, ok := d.Hosts[volume]; ok {
		return engine.Source{Path: h.Path, ReadOnly: h.Offer.GetReadOnly()}
	}
	if use := d.Uses[volume]; use != nil {
		return engine.Source{Volume: api.EngineVolume(d.Project, volume, use.GetUid())}
	}
	return engine.Source{Volume: volumeName(d.Project, volume)}
}

// VolumeLabels returns the labels of a new volume with this name in the engine.
func (d *Storage) VolumeLabels(name string) map[string]string {
	for volume, use := range d.Uses {
		if d.source(volume).Volume == name {
			return Node{Cluster: d.Cluster, Name: d.Node}.VolumeLabels(d.Project, volume, use.GetUid(), d.OwnedBy)
		}
	}
	return d.Owner()
}

// Data returns the uids of the Managed volumes that a service mounts, by the engine's name of the volume.
func (d *Storage) Data(s *carav1.Service) map[string]string {
	out := map[string]string{}
	for _, m := range s.GetVolumeMounts() {
		if use := d.Uses[m.GetName()]; use != nil {
			out[d.source(m.GetName()).Volume] = use.GetUid()
		}
	}
	return out
}

// Holds reports whether an assignment uses the data of a Managed volume.
func (d *Storage) Holds(uid string) bool {
	for _, use := range d.Uses {
		if use.GetUid() == uid {
			return true
		}
	}
	return false
}

// HasData reports whether each Managed volume of an assignment is in a list of the engine's volumes.
func (d *Storage) HasData(list []engine.Volume) bool {
	for volume, use := range d.Uses {
		if !listed(list, d.source(volume).Volume, use.GetUid()) {
			return false
		}
	}
	return true
}

// Disposable reports whether a volume belongs to the assignment and is no Managed volume, so that it may be removed.
func (w *Assigned) Disposable(v engine.Volume) bool {
	return v.Labels[api.LabelVolumeUID] == "" && v.Labels[api.LabelProject] == w.Project && w.sameAssignment(v.Labels)
}

// volumes returns which of the project's volumes can be mounted, by their names in the manifest. It adds actions to create
// the others. Host volumes can always be mounted here: see pathsMissing.
func (s *plan) volumes() map[string]bool {
	usable := map[string]bool{}
	for _, v := range s.w.Spec.GetVolumes() {
		name := s.w.source(v.GetName()).Volume
		switch v.GetType() {
		case api.VolumeHost:
			usable[v.GetName()] = true
		case api.VolumeManaged:
			usable[v.GetName()] = s.managed(v.GetName(), name)
		default:
			usable[v.GetName()] = slices.ContainsFunc(s.h.Volumes, func(h engine.Volume) bool { return h.Name == name })
			if !usable[v.GetName()] {
				s.attempt(Action{Kind: KindCreateVolume, Name: name, Reason: reasonDeclared}, api.ReasonVolumeFailed)
			}
		}
	}
	return usable
}

// managed reports whether a Managed volume is in the engine. If it never was, managed adds an action to create it. If its data
// is lost, the rollout fails.
func (s *plan) managed(volume, name string) bool {
	use, full := s.w.Uses[volume], api.VolumeName(s.w.Project, volume)
	switch {
	case use == nil:
		s.wait("", time.Time{}, "the server has not said which data the Managed volume %s has; a server that is older than this agent "+
			"never does: update cara-server", volume)
	case s.h.inEngine(name, use.GetUid()):
		return true
	case s.h.mounts(name):
		s.wait("", time.Time{}, "the engine does not list the volume %s, although a running container mounts it; nothing is created in its place", name)
	case use.GetNode() != "" && use.GetNode() != s.w.Node:
		s.wait("", time.Time{}, "the data of volume %s is on node %s, and the project is still on node %s; nothing is created in its place", full, use.GetNode(), s.w.Node)
	case use.GetMade() || s.h.Record.Made[use.GetUid()]:
		s.fail("", api.ReasonVolumeLost, "the data of volume %s is lost: node %s has no volume %s any more, and the project is not started on an empty one. "+
			"See caractrl describe volume %s. Restore the data, or get an empty volume: caractrl recreate volume %s", full, s.w.Node, name, full, full)
	default:
		s.attempt(Action{Kind: KindCreateVolume, Name: name, Reason: reasonDeclared}, api.ReasonVolumeFailed)
	}
	return false
}

// inEngine reports whether the engine has a Managed volume with this uid.
func (h *Have) inEngine(name, uid string) bool { return listed(h.Managed, name, uid) }

func listed(list []engine.Volume, name, uid string) bool {
	return slices.ContainsFunc(list, func(v engine.Volume) bool {
		return v.Name == name && v.Labels[api.LabelVolumeUID] == uid
	})
}

// mounts reports whether a container that runs mounts a volume. The engine does not remove such a volume.
func (h *Have) mounts(name string) bool {
	return slices.ContainsFunc(h.Containers, func(c engine.Container) bool {
		for _, source := range c.Mounts {
			if source.Volume == name {
				return up(c)
			}
		}
		return false
	})
}

// otherSource returns which Managed or Host volume a container mounts in another version than a new container would, as text,
// or an empty string.
func (d *Storage) otherSource(svc *carav1.Service, c *engine.Container) string {
	for _, m := range svc.GetVolumeMounts() {
		has, known := c.Mounts[path.Clean(m.GetMountPath())]
		_, host := d.Hosts[m.GetName()]
		want := d.source(m.GetName())
		switch {
		case !known || !host && d.Uses[m.GetName()] == nil:
		case has.Volume != want.Volume || has.Path != want.Path:
			return "volume " + m.GetName() + " was replaced"
		case want.ReadOnly && !has.ReadOnly:
			return "the node offers volume " + m.GetName() + " for reading only"
		}
	}
	return ""
}

// pathPause is how often the path of a Host volume is looked for while it is missing.
const pathPause = 10 * time.Second

// pathsMissing reports whether a container of the service would mount a host path that does not exist, and waits for it. The
// operator may mount a disk there again.
func (s *plan) pathsMissing(svc *carav1.Service) bool {
	for _, m := range svc.GetVolumeMounts() {
		if why := s.h.Missing[m.GetName()]; why != "" {
			s.wait(svc.GetName(), s.now.Add(pathPause), "service %s waits for the host volume %s (volume %s) on node %s: %s",
				svc.GetName(), s.w.Hosts[m.GetName()].Offer.GetName(), m.GetName(), s.w.Node, why)
			return true
		}
	}
	return false
}

// ManagedOf returns the Managed volumes of a project among those of the node.
func ManagedOf(all []engine.Volume, project string) []engine.Volume {
	return slices.DeleteFunc(slices.Clone(all), func(v engine.Volume) bool {
		of, _ := SplitVolume(v)
		return of != project
	})
}

// SplitVolume returns the project and the name of a Managed volume, from its label.
func SplitVolume(v engine.Volume) (project, name string) {
	project, name, _ = strings.Cut(v.Labels[api.LabelVolume], ".")
	return project, name
}
