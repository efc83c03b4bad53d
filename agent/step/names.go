package step

import (
	"maps"
	"strconv"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// labelRestart holds the token of the last restart request for which a container was created.
const labelRestart = "cara.restart"

// labelRunHash holds the run hash of a container. Labels never change, so after limits were changed in place, the spec hash
// of a container is outdated.
const labelRunHash = "cara.run-hash"

// A DNS label cannot contain a dot, so `cara-a.b` is the container of one project only. During a start-first update a
// service has two containers: the new one gets the free name.
func containerName(project, service string) string { return "cara-" + project + "." + service }
func successorName(project, service string) string { return containerName(project, service) + ".2" }
func volumeName(project, volume string) string     { return "cara-" + project + "." + volume }

// Assigned identifies an assignment of a project to a node.
type Assigned struct {
	Cluster, Node string
	Project, UID  string
	Epoch         int32
}

// Owner returns the labels of everything that this agent creates for one assignment.
func (w *Assigned) Owner() map[string]string {
	return map[string]string{
		api.LabelCluster: w.Cluster,
		api.LabelNode:    w.Node,
		api.LabelProject: w.Project,
		api.LabelUID:     w.UID,
		api.LabelEpoch:   strconv.Itoa(int(w.Epoch)),
	}
}

// containerLabels returns the service's own labels and ours, which take precedence.
func (w *Want) containerLabels(s *carav1.Service) map[string]string {
	labels := maps.Clone(s.GetLabels())
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, w.Owner())
	labels[api.LabelService] = s.GetName()
	labels[api.LabelSpecHash], labels[labelRunHash] = w.Hashes[s.GetName()], w.RunHashes[s.GetName()]
	if made := w.secretsLabel(s); made != "" {
		labels[labelSecrets] = made
	}
	if token := w.Restarts[s.GetName()]; token != "" {
		labels[labelRestart] = token
	}
	return labels
}

// sameAssignment reports whether an object was created for this assignment, not for an older one or for an earlier project
// of the same name.
func (w *Assigned) sameAssignment(labels map[string]string) bool {
	return labels[api.LabelUID] == w.UID && labels[api.LabelEpoch] == strconv.Itoa(int(w.Epoch))
}

// NetworkName returns the name of a project's network.
func NetworkName(project string) string { return engine.NetworkPrefix + project }
