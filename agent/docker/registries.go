package docker

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api/syntax"
)

// mayPull returns an error for an image of a registry that the node's operator does not allow. The engine follows any
// address that a registry names as its token service, so it must not contact an untrusted registry at all.
func (c Config) mayPull(ref string) error {
	if len(c.AllowRegistries) == 0 {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return fmt.Errorf("pull image %s: %w: %w", ref, engine.ErrInvalid, err)
	}
	registry := strings.ToLower(reference.Domain(named))
	if syntax.MatchAny(c.AllowRegistries, registry) || syntax.MatchAny(hubs(c.AllowRegistries...), hubs(registry)[0]) {
		return nil
	}
	return fmt.Errorf("pull image %s: %w: this node pulls from %s only; use such an image, or run cara-agent with --allow-registry %s",
		ref, engine.ErrInvalid, strings.Join(c.AllowRegistries, ", "), registry)
}

// hubs returns the names with all spellings of Docker Hub replaced by one.
func hubs(names ...string) []string {
	out := slices.Clone(names)
	for i, name := range out {
		if hub := syntax.Registry("docker.io"); syntax.Registry(name) == hub {
			out[i] = hub
		}
	}
	return out
}

// RegistryPattern returns what is wrong with a registry pattern, or an empty string. A registry is a host with an optional
// port.
func RegistryPattern(p string) string {
	host, port, found := strings.Cut(p, ":")
	if n, err := strconv.ParseUint(port, 10, 16); found && port != syntax.Everything && (err != nil || n == 0) {
		return fmt.Sprintf("is %q; write a registry with its port as in an image, such as registry.example.com:5000", p)
	}
	return syntax.HostPattern(host)
}
