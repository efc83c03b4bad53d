package step

import (
	"maps"
	"strconv"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// labelRestart holds the token of the last request to restart its service that a container was made for.
const labelRestart = "cara.restart"

// labelRunHash holds the hash of what a container must be made anew for. Labels stay as they were made, so after a
// change of limits in place the spec hash on a container is an older one.
const labelRunHash = "cara.run-hash"

// A dot cannot be in a DNS label, so `cara-a.b` is the container of one project only. A service that is replaced
// start-first has two containers for a while: the one that is made takes the name that is free.
func containerName(project, service string) string { return "cara-" + project + "." + service }
func successorName(project, service string) string { return containerName(project, service) + ".2" }
func volumeName(project, volume string) string     { return "cara-" + project + "." + volume }

// Owner are the labels of everything that this agent makes for one assignment.
func (w *Want) Owner() map[string]string {
	return map[string]string{
		api.LabelCluster: w.Cluster,
		api.LabelNode:    w.Node,
		api.LabelProject: w.Project,
		api.LabelUID:     w.UID,
		api.LabelEpoch:   strconv.Itoa(int(w.Epoch)),
	}
}

// containerLabels are the service's own labels with ours over them.
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

// sameAssignment says whether a thing was made for this very assignment, and not for an older one or a namesake.
func (w *Want) sameAssignment(labels map[string]string) bool {
	return labels[api.LabelUID] == w.UID && labels[api.LabelEpoch] == strconv.Itoa(int(w.Epoch))
}

// NetworkName is the name of a project's network.
func NetworkName(project string) string { return engine.NetworkPrefix + project }
