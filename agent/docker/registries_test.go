package docker

import (
	"errors"
	"strings"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
)

func TestOnlyAllowedRegistriesAreAsked(t *testing.T) {
	for _, tt := range []struct {
		allow []string
		ref   string
		ok    bool
	}{
		{nil, "127.0.0.1:2375/x", true},
		{[]string{"docker.io"}, "nginx", true},
		{[]string{"docker.io"}, "docker.io/library/nginx:1", true},
		{[]string{"docker.io"}, "index.docker.io/library/nginx:1", true},
		{[]string{"docker.io"}, "registry-1.docker.io/library/nginx:1", true},
		{[]string{"index.docker.io"}, "nginx", true},
		{[]string{"*.docker.io"}, "registry-1.docker.io/library/nginx:1", true},
		{[]string{"*.docker.io"}, "nginx", false},
		{[]string{"docker.io"}, "docker.io.example.com/nginx", false},
		{[]string{"docker.io"}, "ghcr.io/a/b", false},
		{[]string{"docker.io"}, "127.0.0.1:2375/x", false},
		{[]string{"docker.io"}, "localhost/x", false},
		{[]string{"*.example.com"}, "registry.example.com/a/b:1", true},
		{[]string{"*.example.com"}, "registry.example.com:5000/a/b:1", false},
		{[]string{"*.example.com:5000"}, "registry.example.com:5000/a/b:1", true},
		{[]string{"*.example.com:*"}, "registry.example.com:81/a/b", true},
		{[]string{"ghcr.io"}, "ghcr.io.evil.test/a/b", false},
	} {
		// An engine that is never asked: the refusal comes before the first call.
		e := images{&connection{cfg: Config{AllowRegistries: tt.allow}}}
		if err := e.cfg.mayPull(tt.ref); (err == nil) != tt.ok {
			t.Errorf("%v: pull of %s: %v", tt.allow, tt.ref, err)
		}
		if tt.ok {
			continue
		}
		_, err := e.PullImage(t.Context(), tt.ref, nil, nil)
		if !errors.Is(err, engine.ErrInvalid) || !strings.Contains(err.Error(), "--allow-registry") {
			t.Errorf("pull of %s: %v", tt.ref, err)
		}
	}
	for pattern, ok := range map[string]bool{
		"docker.io": true, "*": true, "r.example.com:5000": true, "r.example.com:*": true, "127.0.0.1:5000": true,
		"https://r.example.com": false, "r.example.com:": false, "r.example.com:x": false, "r.example.com:70000": false, "": false,
	} {
		if why := RegistryPattern(pattern); (why == "") != ok {
			t.Errorf("pattern %q: %s", pattern, why)
		}
	}
}
