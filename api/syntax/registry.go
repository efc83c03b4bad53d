package syntax

import (
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// dockerHub is Docker Hub's name in image references.
const dockerHub = "docker.io"

// Registry returns the canonical spelling of a registry. It removes a scheme, a slash or newline at the end, the path of
// the API, and the default port; it lower-cases the text and unifies Docker Hub's names. A path that is left is a prefix of
// image names. It returns "" if the text does not name a registry.
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

// RegistriesOf returns the registries whose credentials apply to an image, the most specific first: those for the prefixes
// of its name, and finally that of its host. It returns nil if the reference is invalid.
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
