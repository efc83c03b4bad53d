package api

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// ReasonPolicyViolation means that an agent rejected a project because of Violations.
const ReasonPolicyViolation = "PolicyViolation"

// Limits of what a container may use of its machine. They are far above what programs need, and below what would bring the
// machine down.
const (
	maxShared    = 64 << 30 // bytes of shmSize and of a tmpfs's size
	maxOpenFiles = 1 << 20  // Linux's default; an engine cannot start a container with more
)

// Violations returns the violations of the cluster's policies in a project. The server checks them when it accepts a
// manifest, and each agent checks them again before it runs anything. So a server that is compromised or wrong cannot start
// a container with more permissions on any node. Other things (privileged, host namespaces, host paths, the Docker socket,
// fixed host ports) have no field at all.
//
// capabilities are allowed for capAdd on the node, in addition to AllowedCapabilities.
func Violations(p *carav1.Project, capabilities []string) []*carav1.FieldError {
	e := &fieldErrors{seen: map[string]bool{}, list: CapabilityViolations(p, capabilities)}
	e.dnsLabel("metadata.name", p.GetMetadata().GetName())
	for i, v := range p.GetSpec().GetVolumes() {
		at := Element("spec.volumes", i)
		e.dnsLabel(at+".name", v.GetName())
		switch t := v.GetType(); t {
		case "", VolumeEphemeral, VolumeManaged, VolumeHost:
		default:
			e.add(at+".type", "policy \"host-paths\" allows no volume of type %q", text.Short(t))
		}
	}
	for i, s := range p.GetSpec().GetServices() {
		at := Element("spec.services", i)
		e.dnsLabel(at+".name", s.GetName())
		serviceErrors{e}.policy(at, s)
	}
	return e.list
}

// IsName reports whether a name is valid for an object. It becomes a part of host names and file names.
func IsName(name string) bool { return len(validation.IsDNS1123Label(name)) == 0 }

// IsHost reports whether a text can be the host of a request that a project has claimed: a host name in lower case.
func IsHost(host string) bool {
	return len(validation.IsDNS1123Subdomain(host)) == 0 && net.ParseIP(host) == nil
}

// policy has the checks that Validate and Violations share.
func (e serviceErrors) policy(at string, s *carav1.Service) {
	for i, t := range s.GetTmpfs() {
		_, options, _ := strings.Cut(t, ":")
		e.tmpfsOptions(Element(at+".tmpfs", i), options)
	}
	for i, u := range s.GetUlimits() {
		for j, n := range []int32{u.GetSoft(), u.GetHard()} {
			if u.GetName() == "nofile" && (n > maxOpenFiles || n == -1) {
				e.add(Element(at+".ulimits", i)+[]string{".soft", ".hard"}[j], "policy \"bounds\" allows at most %d open files", maxOpenFiles)
			}
		}
	}
	if size, err := syntax.Bytes(s.GetShmSize()); err != nil {
		e.add(at+".shmSize", "%v", err)
	} else if size > maxShared {
		e.add(at+".shmSize", "policy \"bounds\" allows at most 64Gi, this is %s", s.GetShmSize())
	}
}

// tmpfsOptions allows only options that limit or harden a tmpfs.
func (e serviceErrors) tmpfsOptions(field, options string) {
	if options == "" {
		return
	}
	words := []string{"exec", "noexec", "suid", "nosuid", "dev", "nodev", "ro", "rw", "size", "mode", "uid", "gid", "nr_inodes"}
	for o := range strings.SplitSeq(options, ",") {
		name, value, given := strings.Cut(o, "=")
		switch {
		case !slices.Contains(words, name):
			e.add(field, "%q is no option of a tmpfs; use %s", text.Short(o), oneOf(words))
		case name == "size":
			if why := tmpfsSize(value); why != "" {
				e.add(field, "size: %s", why)
			}
		case given != slices.Contains([]string{"mode", "uid", "gid", "nr_inodes"}, name):
			e.add(field, "%q is not how the option is written; give mode, uid, gid and nr_inodes a value, the others none", text.Short(o))
		}
	}
}

// tmpfsSize returns what is wrong with the size of a tmpfs, or "".
func tmpfsSize(value string) string {
	digits := strings.TrimRight(value, "kmgKMG%")
	unit := strings.ToLower(value[len(digits):])
	n, err := strconv.ParseInt(digits, 10, 64)
	scale, known := map[string]int64{"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "%": maxShared / 100}[unit]
	switch {
	case err != nil || !known || n <= 0:
		return fmt.Sprintf("%q is no size; write bytes, or a number with k, m, g or %%, such as 64m", text.Short(value))
	case n > maxShared/scale:
		return "policy \"bounds\" allows at most 64g, or 100%"
	}
	return ""
}

// RefusedField returns the policy that forbids a field of another tool's manifests, and why; "" for every other name. Cara
// has no fields for these things.
func RefusedField(name string) (policy, why string) {
	switch strings.ToLower(strings.ReplaceAll(strings.ReplaceAll(name, "_", ""), "-", "")) {
	case "privileged", "allowprivilegeescalation":
		return "privileged", "no container runs privileged; ask for single capabilities with capAdd"
	case "hostnetwork", "networkmode", "pid", "hostpid", "ipc", "hostipc", "usernsmode", "hostusers", "uts", "cgroup", "cgroupns":
		return "host-namespaces", "every container has namespaces of its own; services reach each other by name"
	case "hostpath", "bind", "binds", "devices", "dockersocket":
		return "host-paths", "no path of the host, its devices or the Docker socket is mounted; declare a volume under spec.volumes"
	case "ports", "hostport", "hostports", "hostip":
		return "host-ports", "no port of the host is published by a service; route HTTP with spec.ingress, and TCP and UDP with spec.ports; services reach each other on any port"
	}
	return "", ""
}

// PolicyText formats the message for a field that a policy forbids.
func PolicyText(policy, why string) string {
	return fmt.Sprintf("refused by policy %q: %s", policy, why)
}
