package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// keeper is a project with a shell whose Managed volume `data` is at /data.
func keeper(name, word string, more ...string) string {
	return project(name, `
services:
- name: tools
  image: `+testimage.Busybox+`
  command: [sleep, 1h]
  env: [{name: WORD, value: `+word+`}]
  init: true
  stopGracePeriod: 1s
  volumeMounts: [{name: data, mountPath: /data}]
volumes:
- name: data
  type: Managed
`+strings.Join(more, "\n"))
}

// dataNode is a cluster of one node that has busybox.
func dataNode(t *testing.T, flags ...string) *testCluster {
	w := oneNode(t, flags...)
	testdocker.Images(t, w.engines[0], testimage.Busybox)
	return w
}

// keeps writes a word into the volume of a project, and reads it back.
func (w *testCluster) keeps(name, word string) {
	w.Helper()
	if r := w.ctl("", "exec", name, "--", "sh", "-c", "echo "+word+" > /data/word && sync"); r.Code != 0 {
		w.Fatalf("write: %+v", r)
	}
	w.kept(name, word)
}

// kept wants the word that is in the volume of a project. An empty word means an empty volume. The project's agent may have
// to connect first.
func (w *testCluster) kept(name, word string) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	var r testcluster.Result
	w.must(testcluster.WaitFor(ctx, "a command runs in "+name, func(ctx context.Context) (err error) {
		if r, err = w.Ctl(ctx, "", "exec", name, "--", "sh", "-c", "cat /data/* 2>/dev/null; true"); err == nil && r.Code != 0 {
			err = fmt.Errorf("exit code %d: %s", r.Code, r.Stderr)
		}
		return err
	}))
	if strings.TrimSpace(r.Stdout) != word {
		w.Errorf("the volume of %s has %q (%s), want %q", name, r.Stdout, r.Stderr, word)
	}
}

func (w *testCluster) volumeIs(name, state string) *carav1.Volume {
	w.Helper()
	conn, err := w.Conn()
	w.must(err)
	ctx, cancel := w.patience()
	defer cancel()
	var v *carav1.Volume
	w.must(testcluster.WaitFor(ctx, "volume "+name+" is "+state, func(ctx context.Context) (err error) {
		v, err = carav1.NewVolumeServiceClient(conn).GetVolume(ctx, &carav1.GetRequest{Name: name})
		if state == "" && api.IsNotFound(err) {
			return nil
		}
		if err == nil && v.GetStatus().GetState() != state {
			err = fmt.Errorf("it is %s", v.GetStatus().GetState())
		}
		return err
	}))
	return v
}

// inEngine is a volume's name in the engine.
func inEngine(v *carav1.Volume) string {
	return api.EngineVolume(v.GetSpec().GetProject(), v.GetSpec().GetName(), v.GetMetadata().GetUid())
}

// TestDataOutlivesItsProject: an update, a restart of the agent, the end of the project in each way that git knows, and a
// change of the manifest all leave the data where it is.
func TestDataOutlivesItsProject(t *testing.T) {
	w := dataNode(t)
	name := w.name("keep")
	volume := api.VolumeName(name, "data")
	o := w.origin("platform", map[string]string{"keep.yaml": keeper(name, "one"), "other.yaml": w.web(w.name("other"), testimage.WebV1)}, "allowEmpty: true", "pruneLimit: 100")
	w.running(name)
	w.keeps(name, "precious")
	uid := w.volumeIs(volume, api.VolumeInUse).GetMetadata().GetUid()

	w.Log("an update")
	o.Write("keep.yaml", keeper(name, "two"))
	o.save("Change the service")
	w.until(name, "runs the update", func(p *carav1.Project) bool {
		return p.GetStatus().GetPhase() == api.PhaseRunning && p.GetMetadata().GetGeneration() == 2
	})
	w.kept(name, "precious")
	w.must(w.Agents["n1"].Kill())
	w.must(w.RestartAgent("n1"))
	w.ready("n1")
	w.kept(name, "precious")

	w.Log("pruned, and back")
	o.Remove("keep.yaml")
	o.save("Drop it")
	w.gone(name)
	w.volumeIs(volume, api.VolumeRetained)
	o.Write("keep.yaml", keeper(name, "two"))
	o.save("Bring it back")
	w.running(name)
	w.kept(name, "precious")
	w.says("the events", w.ctl("", "get", "events").Stdout, api.ReasonVolumeReattached)
	if got := w.volumeIs(volume, api.VolumeInUse).GetMetadata().GetUid(); got != uid {
		t.Errorf("the data is %s, want %s", got, uid)
	}

	w.Log("its source is deleted, and a person cannot have its data")
	o.Remove("keep.yaml")
	o.save("Drop it again")
	w.gone(name)
	r := w.ctl(keeper(name, "two"), "apply", "-f", "-")
	if r.Code == 0 {
		t.Error("the data of a source was given to a person")
	}
	w.says("the refusal", r.Stdout+r.Stderr, "is kept for source/platform", "caractrl release volume "+volume)
	if r := w.ctl("", "release", "volume", volume); r.Code != 0 {
		t.Fatalf("release: %+v", r)
	}
	w.apply(keeper(name, "two", "  reclaim: Delete"))
	w.running(name)
	w.kept(name, "precious")

	w.Log("a manifest without the mount keeps the data, reclaim or not")
	w.apply(strings.ReplaceAll(keeper(name, "two"), "name: data", "name: fresh"))
	w.volumeIs(volume, api.VolumeRetained)
	w.running(name)
	w.kept(name, "")
	w.apply(keeper(name, "two", "  reclaim: Delete"))
	w.volumeIs(volume, api.VolumeInUse)
	w.running(name)
	w.kept(name, "precious")

	w.Log("only a manifest that says so deletes it")
	if r := w.ctl("", "delete", "project", name, "--wait"); r.Code != 0 {
		t.Fatalf("delete: %+v", r)
	}
	w.volumeIs(volume, "")
}

// TestLostDataIsNeverReplaced: a project whose data somebody took away does not start on an empty volume, until somebody
// says that an empty one is intended.
func TestLostDataIsNeverReplaced(t *testing.T) {
	w := dataNode(t)
	name := w.name("lost")
	volume := api.VolumeName(name, "data")
	w.apply(keeper(name, "one"))
	w.running(name)
	w.keeps(name, "precious")
	v := w.volumeIs(volume, api.VolumeInUse)
	if r := w.ctl("", "delete", "project", name, "--wait"); r.Code != 0 {
		t.Fatalf("delete: %+v", r)
	}
	w.volumeIs(volume, api.VolumeRetained)
	docker, err := testdocker.Client(w.engines[0])
	w.must(err)
	defer docker.Close()
	w.must(docker.VolumeRemove(t.Context(), inEngine(v), false))
	w.apply(keeper(name, "one"))
	w.failed(name, api.ReasonVolumeLost, "data")
	w.volumeIs(volume, api.VolumeLost)
	if _, err := docker.VolumeInspect(t.Context(), inEngine(v)); err == nil {
		t.Error("there is an empty volume in the place of the lost one")
	}
	if r := w.ctl("", "retry", name); r.Code != 0 {
		t.Fatalf("retry: %+v", r)
	}
	w.failed(name, api.ReasonVolumeLost, "data")
	if r := w.ctl("", "recreate", "volume", volume, "--yes"); r.Code != 0 {
		t.Fatalf("recreate: %+v", r)
	}
	w.running(name)
	w.kept(name, "")
}

// TestProjectStaysWithItsData: a project is not placed on a node without its data, and says where the data is.
func TestProjectStaysWithItsData(t *testing.T) {
	w, second := twoNodes(t)
	for _, host := range []string{w.engines[0], second.Host} {
		testdocker.Images(t, host, testimage.Busybox)
	}
	name := w.name("stay")
	w.apply(keeper(name, "one"))
	w.running(name)
	w.keeps(name, "precious")
	node := w.project(name).GetStatus().GetNodeRef()
	for _, args := range [][]string{{"delete", "project", name, "--wait"}, {"cordon", node}} {
		if r := w.ctl("", args...); r.Code != 0 {
			t.Fatalf("%v: %+v", args, r)
		}
	}
	w.apply(keeper(name, "one"))
	p := w.until(name, "waits for the node of its data", func(p *carav1.Project) bool {
		return api.FindCondition(p.GetStatus().GetConditions(), api.CondScheduled).GetReason() == api.ReasonUnschedulable
	})
	w.says("the condition", api.FindCondition(p.GetStatus().GetConditions(), api.CondScheduled).GetMessage(), "1 cordoned", node, "data")
	if r := w.ctl("", "uncordon", node); r.Code != 0 {
		t.Fatalf("uncordon: %+v", r)
	}
	w.running(name)
	w.kept(name, "precious")
	if at := w.project(name).GetStatus().GetNodeRef(); at != node {
		t.Errorf("it runs on %s, and its data is on %s", at, node)
	}
}
