package syntax_test

import (
	"slices"
	"testing"

	"github.com/caravanserai/cara/api/syntax"
)

func TestRegistry(t *testing.T) {
	for server, want := range map[string]string{
		"docker.io": "docker.io", "docker.io/": "docker.io", "https://docker.io": "docker.io", "Docker.IO\n": "docker.io",
		"https://index.docker.io/v1": "docker.io", "https://index.docker.io/v1/": "docker.io", "index.docker.io": "docker.io",
		"https://registry-1.docker.io/v2/": "docker.io", "https://hub.docker.com": "docker.io", "registry.hub.docker.com": "docker.io",
		"HOST:5000/": "host:5000", "http://Host:5000": "host:5000", "https://host:443/v2/": "host", "http://host:80": "host",
		" ghcr.io ": "ghcr.io", "ghcr.io/team": "ghcr.io/team", "https://registry.gitlab.com/Group/App/": "registry.gitlab.com/group/app",
		"registry.example.com.": "registry.example.com", "127.0.0.1:5000": "127.0.0.1:5000", "[::1]:5000": "[::1]:5000",
		"": "", " \n": "", "https://": "", "not a host": "", "user:pass@host": "", "h\x00st": "", "höst": "",
	} {
		if got := syntax.Registry(server); got != want {
			t.Errorf("Registry(%q) = %q, want %q", server, got, want)
		}
	}
}

func TestRegistriesOf(t *testing.T) {
	for image, want := range map[string][]string{
		"busybox":                     {"docker.io/library/busybox", "docker.io/library", "docker.io"},
		"docker.io/team/app:1":        {"docker.io/team/app", "docker.io/team", "docker.io"},
		"index.docker.io/team/app":    {"docker.io/team/app", "docker.io/team", "docker.io"},
		"Host:5000/a/b@sha256:" + hex: {"host:5000/a/b", "host:5000/a", "host:5000"},
		"host:443/a":                  {"host/a", "host"},
		"a b":                         nil,
	} {
		if got := syntax.RegistriesOf(image); !slices.Equal(got, want) {
			t.Errorf("RegistriesOf(%q) = %q, want %q", image, got, want)
		}
	}
}

const hex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
