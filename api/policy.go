package api

import (
	"fmt"
	"strings"
)

// RefusedField names the policy that a field of another tool's manifests runs into, and why; empty for every other
// name. There is no field for these things here: a later one would be an administrator's choice.
func RefusedField(name string) (policy, why string) {
	switch strings.ToLower(strings.ReplaceAll(strings.ReplaceAll(name, "_", ""), "-", "")) {
	case "privileged", "allowprivilegeescalation":
		return "privileged", "no container runs privileged; ask for single capabilities with capAdd"
	case "hostnetwork", "networkmode", "pid", "hostpid", "ipc", "hostipc", "usernsmode", "hostusers", "uts", "cgroup", "cgroupns":
		return "host-namespaces", "every container has namespaces of its own; services reach each other by name"
	case "hostpath", "bind", "binds", "devices", "dockersocket":
		return "host-paths", "no path of the host, its devices or the Docker socket is mounted; declare a volume under spec.volumes"
	case "ports", "hostport", "hostports", "hostip":
		return "host-ports", "no port of the host is published; route HTTP with spec.ingress, services reach each other on any port"
	}
	return "", ""
}

// PolicyText is how every program words a refusal by policy.
func PolicyText(policy, why string) string {
	return fmt.Sprintf("refused by policy %q: %s", policy, why)
}
