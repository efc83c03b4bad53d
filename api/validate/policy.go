package validate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

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
	e := &fieldErrors{seen: map[string]bool{}, list: Capabilities(p, capabilities)}
	e.dnsLabel("metadata.name", p.GetMetadata().GetName())
	for i, v := range p.GetSpec().GetVolumes() {
		at := api.Element("spec.volumes", i)
		e.dnsLabel(at+".name", v.GetName())
		switch t := v.GetType(); t {
		case "", api.VolumeEphemeral, api.VolumeManaged, api.VolumeHost:
		default:
			e.add(at+".type", "policy \"host-paths\" allows no volume of type %q", text.Short(t))
		}
	}
	for i, s := range p.GetSpec().GetServices() {
		at := api.Element("spec.services", i)
		e.dnsLabel(at+".name", s.GetName())
		serviceErrors{e}.policy(at, s)
	}
	return e.list
}

// policy has the checks that Object and Violations share.
func (e serviceErrors) policy(at string, s *carav1.Service) {
	for i, t := range s.GetTmpfs() {
		_, options, _ := strings.Cut(t, ":")
		e.tmpfsOptions(api.Element(at+".tmpfs", i), options)
	}
	for i, u := range s.GetUlimits() {
		for j, n := range []int32{u.GetSoft(), u.GetHard()} {
			if u.GetName() == "nofile" && (n > maxOpenFiles || n == -1) {
				e.add(api.Element(at+".ulimits", i)+[]string{".soft", ".hard"}[j], "policy \"bounds\" allows at most %d open files", maxOpenFiles)
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

// Capabilities returns an error for each added capability that is neither allowed on every node nor listed in more.
func Capabilities(p *carav1.Project, more []string) []*carav1.FieldError {
	e := &fieldErrors{seen: map[string]bool{}}
	allowed := append(syntax.AllowedCapabilities(), more...)
	slices.Sort(allowed)
	for i, s := range p.GetSpec().GetServices() {
		for j, c := range s.GetCapAdd() {
			if !slices.Contains(allowed, syntax.CanonCapability(c)) {
				e.add(api.Element(api.Element("spec.services", i)+".capAdd", j), "policy \"capabilities\" does not allow %q; allowed are %s; "+
					"a node's operator can allow more with cara-agent --allow-cap", text.Short(c), strings.Join(slices.Compact(allowed), ", "))
			}
		}
	}
	return e.list
}

// added validates capAdd, except for what depends on the nodes.
func (e serviceErrors) added(at string, caps []string) {
	for i, c := range caps {
		switch name := syntax.CanonCapability(c); {
		case name == syntax.AllCapabilities:
			e.add(api.Element(at, i), "policy \"capabilities\" does not allow ALL; name each capability that the service needs")
		case !slices.Contains(syntax.Capabilities(), name):
			e.add(api.Element(at, i), "%q is no Linux capability; write one such as NET_BIND_SERVICE", text.Short(c))
		}
	}
}

// Limits of Linux for a new process: one string (an argument, or NAME=value) has at most 32 pages including its NUL, and
// all strings share a part of the stack. Docker would create a container with more, but it could not start.
const (
	// MaxWord limits one string, in bytes.
	MaxWord = 32*4096 - 1
	// MaxWords limits the environment, command and arguments of a service together, in bytes. The image adds its own
	// variables, so the limit is below the usual 2 MiB.
	MaxWords = 1 << 20
)

// EnvProblem returns why a variable cannot have this value, or "". The text never contains the value.
func EnvProblem(name string, value []byte) string {
	switch size := len(name) + len("=") + len(value); {
	case strings.IndexByte(string(value), 0) >= 0:
		return "contains a NUL byte, which no environment variable can hold; take it out"
	case !utf8.Valid(value):
		return "is not UTF-8, which an environment variable must be; encode it, or use a file"
	case size > MaxWord:
		return fmt.Sprintf("has %d bytes together with its name, at most %d are allowed; use a file", size, MaxWord)
	}
	return ""
}

// WordsProblem returns why a service's strings are too long together, or "". secrets is the number of bytes from Secrets.
func WordsProblem(s *carav1.Service, secrets int) string {
	size := secrets
	for _, v := range s.GetEnv() {
		size += len(v.GetName()) + len(v.GetValue()) + len("=\x00")
	}
	for _, words := range [][]string{s.GetCommand(), s.GetArgs()} {
		for _, w := range words {
			size += len(w) + len("\x00")
		}
	}
	if size > MaxWords {
		return fmt.Sprintf("the environment, command and arguments have %d bytes, at most %d are allowed together; use files", size, MaxWords)
	}
	return ""
}

// words validates the strings that a container's process gets.
func (e serviceErrors) words(at string, s *carav1.Service) {
	for field, words := range map[string][]string{".command": s.GetCommand(), ".args": s.GetArgs(), ".healthcheck.exec.command": s.GetHealthcheck().GetExec().GetCommand()} {
		for i, w := range words {
			e.word(api.Element(at+field, i), w)
		}
	}
	if bad := WordsProblem(s, 0); bad != "" {
		e.add(at+".env", "%s", bad)
	}
}

func (e serviceErrors) word(field, w string) {
	e.noNUL(field, w)
	if len(w) > MaxWord {
		e.add(field, "has %d bytes, at most %d are allowed; use a file", len(w), MaxWord)
	}
}
