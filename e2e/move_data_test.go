package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testtree"
)

// writer is a project that writes into its Managed volume until it is stopped. Where it finds that it has written before, it
// changes nothing, so that the copy can be compared while it runs.
func writer(name string) string {
	return project(name, `
services:
- name: writer
  image: `+testimage.Busybox+`
  command: [sh, -c, "[ -e /data/log ] && exec sleep 1h; while :; do echo line >>/data/log; date >/data/busy.new; mv /data/busy.new /data/busy; done"]
  init: true
  stopGracePeriod: 1s
  volumeMounts: [{name: data, mountPath: /data}]
volumes:
- name: data
  type: Managed
`)
}

// dataOf is the directory with the data of a volume on this machine.
func (w *testCluster) dataOf(host string, v *carav1.Volume) string {
	w.Helper()
	docker, err := testdocker.Client(host)
	w.must(err)
	defer docker.Close()
	found, err := docker.VolumeInspect(w.Context(), inEngine(v))
	w.must(err)
	return found.Mountpoint
}

// TestMoveKeepsEverything: a project that writes all the time moves to another engine, with everything that a file system has.
// Both copies are equal in every detail afterwards, and the old one is kept.
func TestMoveKeepsEverything(t *testing.T) {
	w, second := twoNodes(t)
	hosts := map[string]string{"n1": w.engines[0], "n2": second.Host}
	for _, host := range hosts {
		testdocker.Images(t, host, testimage.Busybox)
	}
	name := w.name("moved")
	volume := api.VolumeName(name, "data")
	w.apply(writer(name))
	from := w.until(name, "runs", testcluster.Runs).GetStatus().GetNodeRef()
	to := map[string]string{"n1": "n2", "n2": "n1"}[from]
	old := w.volumeIs(volume, api.VolumeInUse)
	source := w.dataOf(hosts[from], old)
	testtree.Fill(t, source, often(20_000, 1_000))
	w.must(testtree.Random(filepath.Join(source, "large"), int64(often(2<<30, 64<<20))))

	begun := time.Now()
	if r := w.ctl("", "move", name, "--to", to, "--wait", "--timeout", "9m"); r.Code != 0 {
		t.Fatalf("move: %+v", r)
	}
	t.Logf("the move took %s", time.Since(begun).Round(10*time.Millisecond))
	p := w.until(name, "runs", testcluster.Runs)
	if p.GetStatus().GetNodeRef() != to || p.GetStatus().GetMove() != nil {
		t.Fatalf("the project is on node %s, with the move %v", p.GetStatus().GetNodeRef(), p.GetStatus().GetMove())
	}
	next := w.volumeIs(volume, api.VolumeInUse)
	kept := w.volumeIs(volume+"."+old.GetMetadata().GetUid()[:8], api.VolumeRetained)
	if next.GetMetadata().GetUid() == old.GetMetadata().GetUid() || inEngine(kept) != inEngine(old) {
		t.Errorf("volume %s became %s, and %s is kept", inEngine(old), inEngine(next), inEngine(kept))
	}
	testtree.Same(t, source, w.dataOf(hosts[to], next))
}
