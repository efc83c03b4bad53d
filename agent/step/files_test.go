package step

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// withFile returns a spec whose service has a file of the source with this digest.
func withFile(digest string) *carav1.ProjectSpec {
	return &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web", Image: "web", Files: []*carav1.File{
		{Path: "/etc/web", From: "./web/", Entries: []*carav1.FileEntry{{Path: "a", Digest: digest}, {Path: "b/run", Digest: digest, Executable: true}}},
	}}}}
}

// TestFilesAreFetchedFirst: nothing is created or stopped before the files of the source are on the node, and a failure to fetch
// them is retried for ever.
func TestFilesAreFetchedFirst(t *testing.T) {
	e := newWorld()
	e.images["web"] = true
	first := wantOf(withFile("one"))
	for range 20 {
		e.do(first, Step(first, e.have(first), e.now))
	}
	if len(e.containers) != 1 || e.containers[0].State != engine.StateRunning {
		t.Fatalf("containers %v", e.containers)
	}
	next := wantOf(withFile("two"))
	next.Generation++
	for range 20 {
		have := e.have(next)
		have.Unfetched = map[string]bool{"two": true}
		actions := Step(next, have, e.now)
		if len(actions) != 1 || actions[0].Kind != KindFetchFiles && actions[0].Kind != KindWait {
			t.Fatalf("actions %v while the files are missing", actions)
		}
		if actions[0].Kind == KindWait {
			if !strings.Contains(actions[0].Reason, "no server") {
				t.Errorf("waits for %q", actions[0].Reason)
			}
			e.now = actions[0].Until
			continue
		}
		e.memory.Remember(next, have, actions[0], errors.New("no server"), e.now)
	}
	if a := Step(next, e.have(next), e.now); len(a) != 1 || a[0].Kind != KindDeleteContainer {
		t.Errorf("actions %v when the files are there", a)
	}
}

func TestFilesOfTheSource(t *testing.T) {
	w := wantOf(withFile("one"))
	got, err := w.Files(w.Spec.GetServices()[0], func(digest string) ([]byte, error) { return []byte(digest), nil })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]engine.File{
		{Path: "/etc/web/a", Content: []byte("one"), Mode: 0o444}, {Path: "/etc/web/b/run", Content: []byte("one"), Mode: 0o555},
	}, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if _, err := w.Files(w.Spec.GetServices()[0], func(string) ([]byte, error) { return nil, errors.New("gone") }); err == nil {
		t.Error("a container starts without its files")
	}
}

// TestVariablesOfSecrets: the values of Secrets are put into the environment and into files, and nothing else is.
func TestVariablesOfSecrets(t *testing.T) {
	vars := []*carav1.SecretVar{{Name: "PW", SecretKeyRef: &carav1.SecretKeyRef{Name: "db", Key: "password"}}}
	w := wantOf(&carav1.ProjectSpec{Services: []*carav1.Service{{
		Name: "web", Image: "web", Env: []*carav1.EnvVar{{Name: "DB", Value: "u:${PW}$$", SecretVars: vars}, {Name: "RAW", Value: "$$ ${PW}"}},
		Files: []*carav1.File{{Path: "/f", Content: "${PW}", SecretVars: vars}},
	}}})
	svc := w.Spec.GetServices()[0]
	w.HaveSecrets = true
	if why := w.missingValue(svc); !strings.Contains(why, "secret db/password does not exist") {
		t.Errorf("without the Secret: %q", why)
	}
	w.Secrets = map[string][]byte{"db/password": []byte("x\x00")}
	if why := w.missingValue(svc); !strings.Contains(why, "with password of Secret db") || strings.Contains(why, "x\x00") {
		t.Errorf("with a value that no process can have: %q", why)
	}
	w.Secrets["db/password"] = []byte("p${PW}")
	if why := w.missingValue(svc); why != "" {
		t.Error(why)
	}
	if diff := cmp.Diff([]string{"DB=u:p${PW}$", "RAW=$$ ${PW}"}, w.ContainerSpec("c", svc).Env); diff != "" {
		t.Error(diff)
	}
	if files, err := w.Files(svc, nil); err != nil || string(files[0].Content) != "p${PW}" {
		t.Errorf("files %v, %v", files, err)
	}
}
