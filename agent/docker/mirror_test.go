package docker

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testregistry"
	"github.com/caravanserai/cara/internal/test/testserver"
)

// TestMirror: an engine with a mirror asks it for the images of Docker Hub, however a manifest spells them, and shows it
// the login of Docker Hub. The image keeps the name of Docker Hub.
func TestMirror(t *testing.T) {
	second := testdocker.SecondEngine(t)
	mirror, err := testregistry.Start(t.Context(), net.JoinHostPort(second.Gateway, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer mirror.Close()
	if err := second.Mirror(t.Context(), mirror.URL()); err != nil {
		t.Fatal(err)
	}
	eng, err := New(Config{Host: second.Host, AllowRegistries: []string{"docker.io"}})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	spellings := map[string]string{"a": "library/a", "docker.io/library/d": "library/d", "index.docker.io/team/g": "team/g"}
	var pulls sync.WaitGroup                 // few, because an engine without the internet looks for Docker Hub for 10 s before each
	for ref, repository := range spellings { // and the repository of Docker Hub
		if _, err := mirror.Put(t.Context(), testimage.WebV1, repository+":1", 0); err != nil {
			t.Fatal(err)
		}
		pulls.Go(func() {
			pulled, err := eng.PullImage(t.Context(), ref+":1", nil, func(engine.Progress) {})
			if name, _, _ := strings.Cut(pulled.Digest, "@"); err != nil || name != strings.TrimPrefix(repository, "library/") {
				t.Errorf("%s: the engine calls the image %q: %v", ref, pulled.Digest, err)
			}
		})
	}
	pulls.Wait()
	for ref, repository := range spellings {
		if !slices.ContainsFunc(mirror.Log(), func(q testserver.Request) bool {
			return strings.HasPrefix(q.Path, "/v2/"+repository+"/manifests/") && q.Status == http.StatusOK
		}) {
			t.Errorf("%s: the mirror was not asked for %s", ref, repository)
		}
	}
	mirror.TokenLogin("ada", "hunter2")
	if _, err := eng.PullImage(t.Context(), "team/g:1", &carav1.RegistryAuth{Username: "ada", Password: "hunter2"}, func(engine.Progress) {}); err != nil {
		t.Errorf("with the login of Docker Hub: %v", err)
	}
	if accepted, _ := mirror.TokenRequests(); accepted == 0 {
		t.Error("the mirror has not seen the login of Docker Hub")
	}
}
