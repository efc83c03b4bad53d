package api

import (
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// dockerHub is how image references spell Docker Hub.
const dockerHub = "docker.io"

// Registry returns the one spelling of a registry that people and tools write in many ways: with a scheme, a slash or a
// newline at the end, the path of the API, the port that goes without saying, capitals, or one of Docker Hub's names. A
// path that is left is where the names of its images begin. Empty where the text names no registry.
func Registry(server string) string {
	s := strings.ToLower(strings.TrimSpace(server))
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	s, _, _ = strings.Cut(s, "?")
	host, path, _ := strings.Cut(s, "/")
	host = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(host, ":443"), ":80"), ".")
	if slices.Contains([]string{"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com"}, host) {
		host = dockerHub
	}
	path = strings.Trim(path, "/")
	if path == "v1" || path == "v2" {
		path = ""
	}
	name := host
	if path != "" {
		name += "/" + path
	}
	if host == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`@"'<>\`, r) }) {
		return ""
	}
	return name
}

// RegistriesOf returns the registries whose credentials are for an image, the most special first: those for the
// beginnings of its name, and at last the one for its host. Nil if the reference cannot be read.
func RegistriesOf(image string) []string {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return nil
	}
	host := Registry(reference.Domain(named))
	var out []string
	for path := reference.Path(named); path != ""; {
		out = append(out, host+"/"+path)
		path = path[:max(0, strings.LastIndexByte(path, '/'))]
	}
	return append(out, host)
}
