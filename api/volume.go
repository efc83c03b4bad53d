package api

import (
	"path"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// MaxManaged limits the Managed volumes of a project, because they change in one transaction with it.
const MaxManaged = 16

// VolumeName returns the name of the Volume object of a project's Managed volume. A DNS label contains no dot, so the name
// belongs to one project only.
func VolumeName(project, volume string) string { return project + "." + volume }

// AsideName returns the name of the Volume object of data that is not the newest of its volume.
func AsideName(project, volume, uid string) string {
	return VolumeName(project, volume) + "." + ShortUID(uid)
}

// ShortUID returns the part of a volume's uid that names contain.
func ShortUID(uid string) string { return uid[:min(8, len(uid))] }

// EngineVolume returns the name of a Managed volume in the engine of its node.
func EngineVolume(project, volume, uid string) string {
	return "cara-" + VolumeName(project, volume) + "-" + ShortUID(uid)
}

// ManagedVolumes returns the Managed volumes of a spec, in its order.
func ManagedVolumes(s *carav1.ProjectSpec) []*carav1.ProjectVolume {
	return volumesOf(s, VolumeManaged)
}

// HostVolumes returns the Host volumes of a spec, in its order.
func HostVolumes(s *carav1.ProjectSpec) []*carav1.ProjectVolume { return volumesOf(s, VolumeHost) }

func volumesOf(s *carav1.ProjectSpec, typ string) []*carav1.ProjectVolume {
	var out []*carav1.ProjectVolume
	for _, v := range s.GetVolumes() {
		if v.GetType() == typ {
			out = append(out, v)
		}
	}
	return out
}

// Reclaims reports whether the data of a Managed volume is deleted with its project.
func Reclaims(v *carav1.ProjectVolume) bool { return v.GetReclaim() == ReclaimDelete }

// VolumeUse returns how a project uses one of its Managed volumes, or nil.
func VolumeUse(p *carav1.Project, volume string) *carav1.VolumeUse {
	for _, u := range p.GetStatus().GetVolumes() {
		if u.GetName() == volume {
			return u
		}
	}
	return nil
}

// DataNodes returns the nodes that have data of a project, sorted. The project can run only where all of it is.
func DataNodes(p *carav1.Project) []string {
	var nodes []string
	for _, u := range p.GetStatus().GetVolumes() {
		if u.GetNode() != "" && u.GetMade() {
			nodes = append(nodes, u.GetNode())
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// OfferedTo returns the host volume of a name that is offered to a project, or nil.
func OfferedTo(offers []*carav1.HostVolume, name, project string) *carav1.HostVolume {
	for _, o := range offers {
		if o.GetName() == name && (len(o.GetProjects()) == 0 || syntax.MatchAny(o.GetProjects(), project)) {
			return o
		}
	}
	return nil
}

// MountOf returns the innermost mount that contains a path, or nil.
func MountOf(mounts []*carav1.VolumeMount, file string) *carav1.VolumeMount {
	var found *carav1.VolumeMount
	for _, m := range mounts {
		below := strings.HasPrefix(path.Clean(file), strings.TrimSuffix(path.Clean(m.GetMountPath()), "/")+"/")
		if below && (found == nil || len(path.Clean(m.GetMountPath())) > len(path.Clean(found.GetMountPath()))) {
			found = m
		}
	}
	return found
}
