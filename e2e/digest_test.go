package e2e

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/image"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testregistry"
)

// discardImages takes the images of a repository out of the engine that the tests share, once the containers are gone:
// call it first.
func discardImages(t *testing.T, repository string) {
	t.Helper()
	host := testdocker.Engine(t)
	t.Cleanup(func() {
		docker, err := testdocker.Client(host)
		if err != nil {
			t.Fatal(err)
		}
		defer docker.Close()
		ctx := context.WithoutCancel(t.Context())
		list, err := docker.ImageList(ctx, image.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range list {
			if slices.ContainsFunc(append(i.RepoTags, i.RepoDigests...), func(name string) bool { return strings.Contains(name, repository) }) {
				if _, err := docker.ImageRemove(ctx, i.ID, image.RemoveOptions{Force: true}); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// TestAMoveKeepsTheVeryImage: a tag that leads elsewhere by now changes nothing for a project that only moves. A changed
// service asks again what the tag leads to, and so does one whose digest the registry has thrown away; then it says so.
func TestAMoveKeepsTheVeryImage(t *testing.T) {
	discardImages(t, "/kept-app")
	w, second := twoNodes(t)
	registry, err := testregistry.Start(t.Context(), net.JoinHostPort(second.Gateway, "0"))
	w.must(err)
	defer registry.Close()
	push := func(fixture string) string { // padded: no engine has it under another name
		t.Helper()
		ref, err := registry.Put(t.Context(), fixture, "kept-app:1", 1000)
		w.must(err)
		return ref
	}
	move := func(from, to string) *carav1.Project {
		t.Helper()
		for _, args := range [][]string{{"uncordon", to}, {"drain", from, "--timeout", patience.String()}} {
			if r := w.ctl("", args...); r.Code != 0 {
				t.Fatalf("caractrl %v: %s%s", args, r.Stdout, r.Stderr)
			}
		}
		return w.until(w.name("app"), "runs on "+to, func(p *carav1.Project) bool {
			return testcluster.Runs(p) && p.GetStatus().GetNodeRef() == to
		})
	}
	ref := push(testimage.WebV1)
	app := w.name("app")
	w.ctl("", "cordon", "n2")
	w.apply(w.web(app, ref))
	w.running(app)
	w.answers("n1", app+".test", "/", 200, "web v1")
	first := w.project(app).GetStatus().GetServices()[0].GetImageDigest()

	push(testimage.WebV2)
	p := move("n1", "n2")
	w.answers("n2", app+".test", "/", 200, "web v1")
	if s := p.GetStatus().GetServices()[0]; s.GetImageDigest() != first || s.GetImage() != ref {
		t.Errorf("moved to image %s, digest %s; it was %s, digest %s", s.GetImage(), s.GetImageDigest(), ref, first)
	}

	w.apply(strings.Replace(w.web(app, ref), "image: ", "env: [{name: CHANGED, value: yes}]\n    image: ", 1))
	w.until(app, "runs another image", func(p *carav1.Project) bool {
		return testcluster.Runs(p) && p.GetMetadata().GetGeneration() == 2 && p.GetStatus().GetServices()[0].GetImageDigest() != first
	})
	w.answers("n2", app+".test", "/", 200, "web v2")

	w.must(registry.Remove(t.Context(), "kept-app:1"))
	push(testimage.WebV1)
	p = move("n2", "n1")
	w.answers("n1", app+".test", "/", 200, "web v1")
	if c := api.FindCondition(p.GetStatus().GetConditions(), api.CondImagesReady); c.GetReason() != "DigestGone" || c.GetStatus() != api.StatusTrue {
		t.Errorf("the condition is %v", c)
	}
	w.says("the project's description", w.ctl("", "describe", "project", app).Stdout, "ImageDigestGone", "does not give out any more")
}
